"""The formats of Video Save, read from formats/*.json: a further format is a further file."""

import json
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from comfy_api.latest import io

from ..checks import check_choice, check_number

FOLDER = Path(__file__).parent / "formats"
WIDGETS = {"INT": io.Int.Input, "FLOAT": io.Float.Input, "COMBO": io.Combo.Input, "BOOLEAN": io.Boolean.Input}
# FFmpeg's name for numbered pictures, and ours for each.
SEQUENCE, PICTURES = "image2", "%05d.png"
# What an option of a format holds beside the arguments of its widget.
OWN = ("type", "choices", "for")
# From four cores on x264 asks for as many threads by itself, one and a half for each.
FEW_CORES = 4
# The values of the option "encoder".
SOFTWARE, HARDWARE = "software", "hardware"


def pattern(folder: Path) -> str:
    """FFmpeg's name for the pictures in a folder."""
    return f"{str(folder).replace('%', '%%')}/{PICTURES}"


@dataclass(frozen=True)
class Settings:
    """What is asked of an encoder: its name, a pixel format, its own options and the muxer's; and what it can take."""

    encoder: str
    pixel_format: str
    options: dict[str, str]
    muxer: dict[str, str] = field(default_factory=dict)
    min_side: int = 0


@dataclass(frozen=True)
class Format:
    """One format.

    order: its place in the list. options: widgets, of one id in all formats with one tooltip, by which the editor's
    translations find them. One with `choices` gives for each of its values what it changes: pixel_format, and options
    of the encoder. The value of any other is the encoder's option of that name, or the muxer's with "for": "muxer";
    the one with "for": "hardware" chooses between SOFTWARE and HARDWARE.
    hardware: what the GPU's encoder is asked for instead: encoder, fixed, and other names (renamed), values and
    pixel_formats for those of the options.
    fixed: the encoder's options that nobody chooses. few_cores: more of them on a machine of fewer than FEW_CORES,
    where the encoder asks for so few threads that they wait for one another.
    tag: the codec's name in the file, where players insist on one.
    shown: how the editor shows it: as "video", as "image", or, where it can play neither, by an H.264 "preview".
    max_rate: so many pictures a second the container's clock can tell apart; browsers show 100 ms where GIF or WebP
    say 10 or less. min_side: of smaller pictures the encoder does not say that it cannot take them: x265 writes outside
    its memory below 50 pixels, SVT-AV1 hangs below 30.
    """

    key: str
    order: int
    tooltip: str
    container: str
    extension: str
    encoder: str
    audio_encoder: str | None
    options: list[dict]
    shown: str = "video"
    pixel_format: str = ""
    fixed: dict[str, str] = field(default_factory=dict)
    few_cores: dict[str, str] = field(default_factory=dict)
    tag: str = ""
    max_rate: int | None = None
    min_side: int = 0
    hardware: dict = field(default_factory=dict)

    def inputs(self) -> list[io.Input]:
        """The widgets of this format; optional with defaults, so that old API files survive new options."""
        made = []
        for option in self.options:
            given = {key: value for key, value in option.items() if key not in OWN}
            if "choices" in option:
                given["options"] = list(option["choices"])
            made.append(WIDGETS[option["type"]](optional=True, **given))
        return made

    def unchosen(self) -> dict[str, str]:
        """The encoder's options that nobody chooses, on this machine."""
        return self.fixed | (self.few_cores if os.cpu_count() < FEW_CORES else {})

    def settings(self, given: dict) -> Settings:
        """What the values given ask of the encoder, the defaults standing in for those that are absent.

        Raises OutOfRange and NotOneOf.
        """
        pixel_format, encoder, muxer = self.pixel_format, self.unchosen(), {}
        for option in self.options:
            # The host passes an absent optional input of a DynamicCombo as None.
            value = given.get(option["id"])
            value = option["default"] if value is None else value
            # The host does not check what comes by a link.
            if option["type"] == "INT":
                check_number(option["id"], value, option["min"], option["max"])
            elif option["type"] == "COMBO":
                check_choice(option["id"], value, option.get("choices") or option["options"])
            if "choices" in option:
                chosen = option["choices"][value]
                pixel_format = chosen.get("pixel_format", pixel_format)
                encoder |= chosen.get("options", {})
            elif option.get("for") != HARDWARE:
                text = str(int(value) if isinstance(value, bool) else value)
                (muxer if option.get("for") == "muxer" else encoder)[option["id"]] = text
        return Settings(self.encoder, pixel_format, encoder, muxer, self.min_side)

    def hardware_settings(self, given: dict) -> Settings | None:
        """The same of the GPU's encoder, where the values given ask for it."""
        if given.get("encoder") != HARDWARE:
            return None
        asked, other = self.settings(given), self.hardware
        options = dict(other["fixed"])
        for name, value in asked.options.items():
            if name not in self.unchosen():
                options[other["renamed"].get(name, name)] = other["values"].get(name, {}).get(value, value)
        pixel_format = other["pixel_formats"].get(asked.pixel_format, asked.pixel_format)
        return Settings(other["encoder"], pixel_format, options, asked.muxer)


@cache
def all_formats() -> dict[str, Format]:
    found = [Format(path.stem, **json.loads(path.read_text())) for path in FOLDER.glob("*.json")]
    return {it.key: it for it in sorted(found, key=lambda it: (it.order, it.key))}
