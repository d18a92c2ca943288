"""What the pack can do on this machine now, and the one thing to do where it cannot."""

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
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
SECONDS, ROOM_SECONDS, KEPT_SECONDS = 3, 2.5, 2
GB = 1e9

# The last asking: when it ended, and what it found, once it has.
_asking: Future[tuple[float, dict]] | None = None


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


async def ask() -> dict:
    found = await asyncio.gather(*map(states_of, MODES))
    return answer([state for states in found for state in states])


def answer(states: list[State]) -> dict:
    modes = [asdict(state) for state in states]
    return {"modes": modes, "machine": machine.facts(), "versions": machine.versions()}


def begin_asking() -> Future:
    """Ask in a thread and a loop of its own: what does not answer must hold up neither the server's nor the queue."""
    asking = Future()
    # Who stops waiting must not stop it for the others.
    asking.set_running_or_notify_cancel()

    async def work():
        try:
            found = await ask()
            asking.set_result((time.monotonic(), found))
        except Exception as error:
            asking.set_exception(error)

    threading.Thread(target=lambda: asyncio.run(work()), name="health", daemon=True).start()
    return asking


def fresh(asking: Future | None) -> bool:
    """Whether it is under way, or has ended well not long ago."""
    if asking is None or (asking.done() and asking.exception()):
        return False
    return not asking.done() or time.monotonic() < asking.result()[0] + KEPT_SECONDS


async def health() -> dict:
    """JSON: modes (a list of State), machine and versions; asked at once of all, within 3 s, and kept for 2."""
    global _asking
    if not fresh(_asking):
        _asking = begin_asking()
    try:
        async with asyncio.timeout(SECONDS):
            return (await asyncio.wrap_future(_asking))[1]
    except TimeoutError:
        return answer([unknown(mode) for room in MODES for mode in MODES[room]])


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
