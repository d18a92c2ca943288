"""What the pack can do on this machine now, and the one thing to do where it cannot."""

import asyncio
import time
from dataclasses import asdict
from importlib import import_module

from ..errors import BadSetting
from ..host import machine
from ..states import FILES_MISSING, ROOM_FAILED, STARTING, UNREACHABLE, State, failed, of_failure

# Each room that makes videos, and its modes.
MODES = {"cosmos": ("cosmos_text2world", "cosmos_video2world"), "ltx2": ("ltx2",), "svd": ("svd",)}
NAMES = {
    "cosmos_text2world": "Cosmos Text to World",
    "cosmos_video2world": "Cosmos Video to World",
    "ltx2": "LTX-2",
    "svd": "SVD-XT",
}
SECONDS, KEPT_SECONDS = 3, 2
GB = 1e9

_kept: tuple[float, dict] | None = None


async def states_of(room: str) -> list[State]:
    if room in failed:
        return [of_failure(mode, ROOM_FAILED, failed[room]) for mode in MODES[room]]
    try:
        async with asyncio.timeout(SECONDS):
            return await import_module(f"...{room}.health", __name__).states()
    except BadSetting as failure:
        return [of_failure(mode, ROOM_FAILED, failure) for mode in MODES[room]]
    except TimeoutError:
        what = f"it has not been found out within {SECONDS} seconds"
        return [State(mode, STARTING, what=what, cure="Ask again in a moment.") for mode in MODES[room]]


async def health() -> dict:
    """JSON: modes (a list of State), machine and versions; asked at once of all, within 3 s, and kept for 2."""
    global _kept
    if _kept is None or time.monotonic() > _kept[0] + KEPT_SECONDS:
        found = await asyncio.gather(*map(states_of, MODES))
        modes = [asdict(state) for states in found for state in states]
        _kept = time.monotonic(), {"modes": modes, "machine": machine.facts(), "versions": machine.versions()}
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
