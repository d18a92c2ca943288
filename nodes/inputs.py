"""What nodes of several rooms show alike."""

from comfy_api.latest import io

ABSENT = object()  # the default of an input that a validate_inputs names: a linked one arrives as None


def likely(names: list[str], *parts: str) -> str | None:
    """The default of a widget that chooses a file: the first whose name has the first part, else the second, ..."""
    return next((it for part in parts for it in names if part in it.lower()), None)


def seed_input(tooltip: str) -> io.Input:
    return io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip=tooltip)
