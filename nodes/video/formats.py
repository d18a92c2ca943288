"""The formats of Video Save, read from formats/*.json: a further format is a further file."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from comfy_api.latest import io

FOLDER = Path(__file__).parent / "formats"
WIDGETS = {"INT": io.Int.Input, "FLOAT": io.Float.Input, "COMBO": io.Combo.Input, "BOOLEAN": io.Boolean.Input}


@dataclass(frozen=True)
class Format:
    """One format. `pixel_formats` is keyed by the option bit_depth; every other option is the encoder's own."""

    key: str
    tooltip: str
    container: str
    extension: str
    encoder: str
    audio_encoder: str
    pixel_formats: dict[str, str]
    options: list[dict]

    def inputs(self) -> list[io.Input]:
        """The widgets of this format; optional with defaults, so that old API files survive new options."""
        return [
            WIDGETS[it["type"]](optional=True, **{key: value for key, value in it.items() if key != "type"})
            for it in self.options
        ]

    def settings(self, given: dict) -> tuple[str, dict[str, str]]:
        """Pixel format and encoder options for the values given, the defaults standing in for those that are absent."""
        # The host passes an absent optional input of a DynamicCombo as None.
        given = {key: value for key, value in given.items() if value is not None}
        values = {it["id"]: str(given.get(it["id"], it["default"])) for it in self.options}
        return self.pixel_formats[values.pop("bit_depth")], values


@cache
def all_formats() -> dict[str, Format]:
    return {path.stem: Format(path.stem, **json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json"))}
