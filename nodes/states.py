"""What each mode of the pack can do now, as its room tells it to the studio."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .errors import Failure, ModelFileMissing, RoomFailed
from .host import memory, paths
from .host.pages import model_files
from .weights import looks_like

# ready: it can make a video now. starting: in a while. available: when it is first used, its files are read.
READY, STARTING, LOADED, AVAILABLE = "ready", "starting", "loaded", "available"
FILES_MISSING, UNREACHABLE, ROOM_FAILED = "files missing", "unreachable", "room failed"

# Rooms that could not load, by name; extension.py fills it.
failed: dict[str, RoomFailed] = {}


@dataclass
class State:
    """One mode. mode: cosmos_text2world, cosmos_video2world, ltx2 or svd. state: one of those above.

    place: address or file. bytes: of its files. on_device: how many of them are on the GPU, or the CPU, now. what and
    cure: in English; code and values are those of errors.py, for other languages.
    """

    mode: str
    state: str
    place: str = ""
    bytes: int = 0
    on_device: int = 0
    what: str = ""
    cure: str = ""
    code: str = ""
    values: dict = field(default_factory=dict)


def of_failure(mode: str, state: str, failure: Failure, place: str = "") -> State:
    values = {name: str(value) for name, value in failure.values.items()}
    return State(mode, state, place, what=failure.what, cure=failure.cure, code=failure.code, values=values)


@cache
def kind_of(path: str, size: int, changed: int) -> str:
    """What a file of weights looks like, by its keys; a changed file is looked at anew."""
    try:
        with safe_open(path, "pt") as file:
            return looks_like(file.keys())
    except (SafetensorError, OSError):
        return "no file of weights"


def weights_of(kind: str) -> list[Path]:
    """The checkpoints that look like this kind."""
    found = []
    for name in paths.checkpoint_names():
        path = Path(paths.checkpoint_path(name, ""))
        files = [it for it in model_files(str(path)) if it.suffix == ".safetensors"]
        facts = [(it, it.stat()) for it in files]
        if any(kind_of(str(it), status.st_size, status.st_mtime_ns) == kind for it, status in facts):
            found.append(path)
    return found


def of_files(mode: str, kind: str, model: str, wanted: str, others: Callable[[], list[Path]] = list) -> State:
    """The state of a local model. kind: what looks_like() calls it. wanted: the file that people download.

    model: what docker/download_models.sh calls it. others: further files that it needs; raises ModelFileMissing.
    """
    try:
        found = weights_of(kind)
        if not found:
            folders = " or ".join(paths.model_folders("checkpoints"))
            raise ModelFileMissing(file=wanted, folder=folders, model=model)
        files = [*found[:1], *others()]
    except ModelFileMissing as failure:
        return of_failure(mode, FILES_MISSING, failure)
    loaded = {path: size for path, size in memory.loaded().items() if Path(path) in found}
    place = next(iter(loaded), str(found[0]))
    size = sum(it.stat().st_size for file in files for it in model_files(str(file)))
    names = ", ".join(Path(it).name for it in (place, *files[1:]))
    if loaded:
        return State(mode, LOADED, place, size, loaded[place], f"{names} is loaded")
    return State(mode, AVAILABLE, place, size, what=f"{names} will be loaded when it is used")
