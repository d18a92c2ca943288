"""The list of rooms. A room that cannot load is reported and left out; the others stay."""

import logging
from importlib import import_module
from pathlib import Path

from comfy_api.latest import ComfyExtension, io

from . import states
from .errors import Failure, RoomFailed
from .parts import sweep

log = logging.getLogger(__name__)

ROOMS = ("cosmos", "ltx2", "svd", "video", "studio")
REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"


def room_failed(room: str, error: Exception) -> RoomFailed:
    match error:
        case Failure():
            cause, cure = error.what, error.cure
        case ImportError():
            cause = " ".join(str(error).split())
            cure = f"With ComfyUI's own Python run `pip install -r {REQUIREMENTS}`, then restart ComfyUI."
        case _:
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            cure = "Update ComfyUI and this pack, restart, and if it stays report this line."
    return RoomFailed(room=room, cause=cause.rstrip("."), cure=cure)


def open_rooms() -> tuple[list[type[io.ComfyNode]], dict[str, RoomFailed]]:
    """Import every room and build its schemas.

    Returns the nodes of the rooms that work, and by name the failures of those that do not: what states.failed holds,
    since a later room may ask.
    """
    nodes, failed = [], states.failed
    for room in ROOMS:
        try:
            found = import_module(f".{room}.nodes", __package__).NODES
            # When one schema raises, the host drops every later node of the pack: each is built inside its room's try.
            for node in found:
                node.GET_SCHEMA()
        except Exception as error:
            failed[room] = room_failed(room, error)
            log.error("%s", failed[room])
            log.debug("Room %s:", room, exc_info=error)
        else:
            nodes += found
    return nodes, failed


class Xavi9Videos(ComfyExtension):
    async def on_load(self):
        sweep()
        try:
            import_module(".studio.routes", __package__).register()
        except Exception as error:
            # The rooms that make videos do without it.
            log.error("%s", room_failed("studio", error))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return open_rooms()[0]
