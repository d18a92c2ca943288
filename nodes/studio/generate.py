"""Generate Video: what each mode is asked, checked as the mode's own nodes do it."""

from collections.abc import Mapping
from importlib import import_module

from comfy_api.latest import io
from comfy_execution.validation import validate_node_input

from ..checks import check_choice, check_number
from ..errors import UnknownMode, WrongLink
from ..modes import Mode
from ..pictures import check_image
from ..states import failed
from .health import MODES

# What the widget shows and workflows hold, for ever.
CHOICES = {
    "Cosmos Text2World": "cosmos_text2world",
    "Cosmos Video2World": "cosmos_video2world",
    "LTX-2 (FP8)": "ltx2",
    "SVD-XT": "svd",
}
ROOMS = {mode: room for room, modes in MODES.items() for mode in modes}
# The largest that every mode takes.
LAST_SEED = 4294967295
# The editor's translations have one text for an input that several modes have.
TOOLTIPS = {
    "image": "The picture that the video starts from. It is cropped to the video's shape; transparency becomes black.",
    "negative_prompt": "What to avoid. In LTX-2 it counts with guidance above 1 only; in Cosmos empty leaves it to the "
    "NIM.",
    "checkpoint": "The model file in ComfyUI's checkpoints folder, or its folder in diffusers.",
    "width": "Pixels. LTX-2 was made for sizes around 768x512, SVD-XT for 1024x576; other numbers work too.",
    "height": "Pixels, as for width.",
    "frames": "How many pictures; divided by fps it is the length.",
    "fps": "Frames per second.",
    "steps": "More is finer and slower. In LTX-2 0 is the schedule's own: 8 distilled, 40 dev.",
    "guidance_scale": "How closely to follow the prompt. In LTX-2 0 is the schedule's own: 1 (off) distilled, 4 dev.",
}


def mode_of(choice: str | None) -> Mode:
    """What stands behind a choice. Raises UnknownMode, and RoomFailed where its room could not load."""
    if choice not in CHOICES:
        raise UnknownMode(allowed=", ".join(CHOICES))
    mode = CHOICES[choice]
    room = ROOMS[mode]
    if room in failed:
        raise failed[room]
    return import_module(f"...{room}.modes", __name__).modes()[mode]


def options() -> list[io.DynamicCombo.Option]:
    """The widgets and sockets of each choice; one whose room could not load has none, and says so when it is run."""
    made = []
    for choice, mode in CHOICES.items():
        inputs = [] if ROOMS[mode] in failed else mode_of(choice).inputs
        for it in inputs:
            it.tooltip = TOOLTIPS.get(it.id, it.tooltip)
        made.append(io.DynamicCombo.Option(choice, inputs))
    return made


def filled(mode: Mode, given: Mapping[str, object], linked: set[str]) -> dict[str, object]:
    """The value of each of the mode's inputs: its default where none is given, None of one that is known as linked."""
    values = {}
    for it in mode.inputs:
        value = given.get(it.id)
        if value is not None or it.id in linked:
            values[it.id] = value
        elif isinstance(it, io.Combo.Input):
            values[it.id] = next(iter(it.options), "") if it.default is None else it.default
        elif isinstance(it, io.WidgetInput):
            values[it.id] = it.default
    return values


def check(mode: Mode, prompt: str | None, seed: int | None, values: Mapping[str, object]):
    """Raise what the mode's own nodes would refuse, and what the host checks of a node that is in the graph itself."""
    mode.check(prompt, values)
    if seed is not None:
        check_number("seed", seed, 0, LAST_SEED)
    for it in mode.inputs:
        value = values.get(it.id)
        if value is None:
            continue
        match it:
            case io.Int.Input() | io.Float.Input():
                check_number(it.id, value, it.min, it.max)
            case io.Combo.Input():
                check_choice(it.id, value, it.options)
            case io.Image.Input():
                check_image(value)


def check_links(inputs: list[io.Input], received: Mapping[str, str]):
    """Raise WrongLink. received: the type of what is linked to each input, by its name."""
    for it in inputs:
        if it.id in received and not validate_node_input(received[it.id], it.get_io_type()):
            raise WrongLink(name=it.id, wanted=it.get_io_type(), given=received[it.id])
