"""What the pack can do on this machine now, and the one thing to do where it cannot."""

import asyncio
import logging
import threading
import time
from dataclasses import asdict
from importlib import import_module

from ..errors import Failure
from ..host import machine
from ..states import FILES_MISSING, ROOM_FAILED, STARTING, UNREACHABLE, State, failed, of_failure

log = logging.getLogger(__name__)

# Each room that makes videos, and its modes.
MODES = {"cosmos": ("cosmos_text2world", "cosmos_video2world"), "ltx2": ("ltx2",), "svd": ("svd",)}
NAMES = {
    "cosmos_text2world": "Cosmos Text to World",
    "cosmos_video2world": "Cosmos Video to World",
    "ltx2": "LTX-2",
    "svd": "SVD-XT",
}
SECONDS, ROOM_SECONDS, KEPT_SECONDS, LOOK_SECONDS = 3, 2.5, 2, 0.02
GB = 1e9

_kept: tuple[float, dict] | None = None
_thread: threading.Thread | None = None
_asked = 0.0


async def states_of(room: str) -> list[State]:
    if room in failed:
        return [of_failure(mode, ROOM_FAILED, failed[room]) for mode in MODES[room]]
    try:
        async with asyncio.timeout(ROOM_SECONDS):
            return await import_module(f"...{room}.health", __name__).states()
    except TimeoutError:
        return [unknown(mode) for mode in MODES[room]]
    except Failure as failure:
        return [of_failure(mode, ROOM_FAILED, failure) for mode in MODES[room]]
    except Exception as error:
        # One room that is at a loss must not hide what the others say.
        log.warning("The state of %s: %s", room, error, exc_info=error)
        what = f"its state could not be found out ({type(error).__name__}: {error})"
        return [State(mode, ROOM_FAILED, what=what, cure="Look at ComfyUI's log.") for mode in MODES[room]]


def unknown(mode: str) -> State:
    return State(mode, STARTING, what=f"it has not answered within {SECONDS} seconds", cure="Ask again in a moment.")


async def ask():
    global _kept
    found = await asyncio.gather(*map(states_of, MODES))
    modes = [asdict(state) for states in found for state in states]
    _kept = time.monotonic(), {"modes": modes, "machine": machine.facts(), "versions": machine.versions()}


async def health() -> dict:
    """JSON: modes (a list of State), machine and versions; asked at once of all, within 3 s, and kept for 2.

    In a thread and a loop of its own: a name server or a file system that does not answer would hold up the server's.
    """
    global _thread, _asked
    began = time.monotonic()
    if _kept is None or began > _kept[0] + KEPT_SECONDS:
        if _thread is None or not _thread.is_alive() or (_kept and _kept[0] > _asked):
            _asked = began
            _thread = threading.Thread(target=lambda: asyncio.run(ask()), name="health", daemon=True)
            _thread.start()
        while (_kept is None or _kept[0] < _asked) and time.monotonic() < began + SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
        if _kept is None or _kept[0] < _asked:
            modes = [asdict(unknown(mode)) for room in MODES for mode in MODES[room]]
            return {"modes": modes, "machine": machine.facts(), "versions": machine.versions()}
    return _kept[1]


def report(found: dict) -> str:
    """The same as a text for people."""
    lines = []
    for mode in found["modes"]:
        size = f", {mode['bytes'] / GB:.1f} GB" if mode["bytes"] else ""
        there = f", {mode['on_device'] / GB:.1f} GB on the device" if mode["on_device"] else ""
        lines.append(f"{NAMES[mode['mode']]}: {mode['state']}{size}{there}")
        lines.append(f"  {mode['what']}")
        if mode["state"] in (STARTING, UNREACHABLE, FILES_MISSING, ROOM_FAILED):
            lines.append(f"  {mode['cure']}")
    it = found["machine"]
    kind = "unified with the system's" if it["unified"] else "its own" if it["device"] != "cpu" else "the system's"
    lines.append(f"{it['name']}: {it['free'] / GB:.1f} of {it['total'] / GB:.1f} GB free ({kind} memory)")
    lines.append(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    return "\n".join(lines)
