"""What each mode of the pack can do now, as its room tells it to the studio."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import Failure, ModelFileMissing, RoomFailed, WrongModelFile
from .host import memory, paths
from .host.pages import model_files
from .weights import looks_like

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
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


# What an unusable file is said to look like.
BROKEN = "a file that breaks off, or no file of weights"
# By the class that a diffusers folder names.
FOLDERS = {"StableVideoDiffusionPipeline": "Stable Video Diffusion", "LTX2Pipeline": "LTX-2"}

_kinds: dict[tuple, str] = {}


def keys_of(path: Path, size: int) -> list[str]:
    """The names of a file's tensors. Raises ValueError where it breaks off or is none of weights, and OSError.

    Read here, since safetensors keeps all of Python waiting while it opens a file, which on a network may take long.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size, MAX_HEADER_BYTES):
            raise ValueError("it has no header")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if max((it["data_offsets"][1] for it in header.values()), default=0) + 8 + length > size:
        raise ValueError("it breaks off")
    return list(header)


def kind_of(path: Path) -> str:
    """What a file of weights, or a folder of them, looks like; a changed file is looked at anew. Raises OSError."""
    if path.is_dir():
        index = path / paths.PIPELINE
        name = json.loads(index.read_bytes()).get("_class_name") if index.is_file() else None
        weights = [it for it in model_files(str(path)) if it.suffix == ".safetensors" and it.is_file()]
        return FOLDERS.get(name, "") or next((kind for kind in map(kind_of, weights) if kind != BROKEN), BROKEN)
    # A pipe would be waited for.
    if not path.is_file() or path.suffix.lower() != ".safetensors":
        return BROKEN
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in _kinds:
        try:
            _kinds[key] = looks_like(keys_of(path, status.st_size))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            _kinds[key] = BROKEN
    return _kinds[key]


def of_kind(
    wanted: Iterable[str], names: Iterable[str], path_of: Callable[[str], str]
) -> tuple[list[Path], dict[str, str]]:
    """The files of these kinds among these names; and what each name looks like."""
    found, kinds = [], {}
    for name in names:
        try:
            path = Path(path_of(name))
            kinds[name] = kind_of(path)
        # A link that leads nowhere, a file that was just deleted, a folder whose description is none.
        except (ModelFileMissing, OSError, ValueError, AttributeError):
            continue
        if kinds[name] in wanted:
            found.append(path)
    return found, kinds


def of_files(
    mode: str, wanted_kinds: tuple[str, ...], model: str, wanted: str, check: Callable[[], None] = lambda: None
) -> State:
    """The state of a local model. wanted_kinds: what kind_of() calls its files. wanted: the one that people download.

    model: what docker/download_models.sh calls it. check: looks for what else it needs, and raises ModelFileMissing.
    """
    found, kinds = of_kind(wanted_kinds, paths.checkpoint_names(), lambda name: paths.checkpoint_path(name, model))
    try:
        if not found and wanted in kinds:
            reason = "it has other tensors, or not all"
            raise WrongModelFile(file=wanted, wanted=wanted_kinds[0], reason=reason, found=kinds[wanted])
        if not found:
            folders = " or ".join(paths.model_folders("checkpoints"))
            raise ModelFileMissing(file=wanted, folder=folders, model=model)
        check()
    except (ModelFileMissing, WrongModelFile) as failure:
        return of_failure(mode, FILES_MISSING, failure)
    loaded = {Path(path): size for path, size in memory.loaded().items() if Path(path) in found}
    path = next(iter(loaded), found[0])
    size = sum(it.stat().st_size for it in model_files(str(path)) if it.is_file())
    if loaded:
        return State(mode, LOADED, str(path), size, loaded[path], f"{path.name} is loaded")
    more = f", or another of {len(found)}" if len(found) > 1 else ""
    return State(mode, AVAILABLE, str(path), size, what=f"{path.name}{more} will be loaded when it is used")
