"""Our own videos: one JSON line each in the user folder. A file is ours when path, bytes and mtime match its line."""

import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

LOCK_SECONDS = 10

# Called with the index and the video, after its line was added.
after_add: list[Callable[[Path, Path], None]] = []


def origin(prompt: dict, node_id: str) -> dict:
    """Mode, seed and prompt of the video that arrives at a node, read from the prompt that is being executed.

    mode is the class of the nearest of our nodes upstream that has a seed, or what Generate Video was set to. A value
    is None when no node has it, or when it comes from a link.
    """
    found = {}
    seen, waiting = set(), [node_id]
    while waiting:
        name = waiting.pop(0)
        node = prompt.get(name)
        if node is None:
            continue
        inputs = node["inputs"]
        if node["class_type"].startswith("Xavi9") and name != node_id:
            if "seed" in inputs and "mode" not in found:
                # Other nodes have a link there.
                choice = inputs.get("model")
                found |= {"mode": choice if isinstance(choice, str) else node["class_type"], "seed": inputs["seed"]}
            if "prompt" in inputs:
                found.setdefault("prompt", inputs["prompt"])
        # The host keeps inputs that no node knows, whatever is in them.
        links = [it[0] for it in inputs.values() if isinstance(it, list) and it and isinstance(it[0], str)]
        waiting += [it for it in links if it not in seen]
        seen.update(links)
    # The host lets a request hold anything in place of a seed or a prompt.
    kinds = {"mode": str, "seed": int, "prompt": str}
    return {key: found.get(key) if isinstance(found.get(key), kind) else None for key, kind in kinds.items()}


def lock(index: Path) -> FileLock:
    """What a server holds while it writes the index, whichever shares the folder. Raises OSError after 10 s."""
    return FileLock(f"{index}.lock", timeout=LOCK_SECONDS)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def identity(path: Path) -> dict:
    """What tells a file from its changed self: bytes and mtime (seconds)."""
    status = path.stat()
    return {"bytes": status.st_size, "mtime": status.st_mtime}


def add(index: Path, video: Path, **facts):
    """Append a video's line: its path, bytes, mtime and the facts given (seconds, codec, size, mode, ...).

    poster: the identity of the JPEG beside it, where there is one. Raises OSError.
    """
    line = json.dumps({"path": str(video), **identity(video), **facts}).encode() + b"\n"
    with lock(index), open(index, "ab+", opener=private) as file:
        # A line that a full disk has cut short must not take this one with it.
        file.seek(max(file.tell() - 1, 0))
        whole = file.read(1) in (b"", b"\n")
        file.write(line if whole else b"\n" + line)
    for it in after_add:
        it(index, video)


def parsed(line: bytes) -> dict | None:
    """A line, or None for one that is broken or not ours."""
    try:
        # Browsers cannot read NaN.
        found = json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("path"), str) else None


def unchanged(path: str | Path, known: object) -> bool:
    """Whether there is a file, no link, that is still what `known`, its identity, says."""
    if not isinstance(known, dict):
        return False
    try:
        status = os.lstat(path)
    # A line that is not ours may hold what can be no path.
    except (OSError, ValueError):
        return False
    same = (status.st_size, status.st_mtime) == (known.get("bytes"), known.get("mtime"))
    return same and stat.S_ISREG(status.st_mode)


def lines_of(index: Path) -> list[bytes]:
    return index.read_bytes().splitlines(keepends=True) if index.exists() else []


def read(index: Path) -> list[dict]:
    """The lines whose files are unchanged, newest first; where several name one file, the last of them."""
    ours = {}
    for line in map(parsed, lines_of(index)):
        if line and unchanged(line["path"], line):
            ours[line["path"]] = line
    return sorted(reversed(ours.values()), key=lambda line: line["mtime"], reverse=True)


def remove(index: Path, choose: Callable[[list[dict]], Iterable[dict]]) -> tuple[list[dict], list[OSError]]:
    """Delete the files, posters and lines of those that choose() takes out of read().

    Returns the lines that are gone, and why others stayed. A server that is killed meanwhile leaves lines without a
    file, which no longer count. Raises OSError when the index cannot be written.
    """
    gone, errors = {}, []
    with lock(index):
        for line in choose(read(index)):
            video = Path(line["path"])
            poster = video.with_suffix(".jpg")
            try:
                if unchanged(poster, line.get("poster")):
                    poster.unlink()
                video.unlink(missing_ok=True)
                gone[line["path"]] = line
            except OSError as error:
                errors.append(error)
        if gone:
            # Lines that this version does not know stay.
            kept = [it for it in lines_of(index) if (line := parsed(it)) is None or line["path"] not in gone]
            part = index.with_suffix(".part")
            with open(part, "wb", opener=private) as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            part.replace(index)
    return list(gone.values()), errors
