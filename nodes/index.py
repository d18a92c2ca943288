"""Our own videos: one JSON line each in the user folder. A file is ours when path, bytes and mtime match its line."""

import json
import os
from pathlib import Path


def origin(prompt: dict, node_id: str) -> dict:
    """Mode, seed and prompt of the video that arrives at a node, read from the prompt that is being executed.

    mode is the class of the nearest of our nodes upstream that has a seed; each value is None when there is none.
    """
    found = {"mode": None, "seed": None, "prompt": None}
    seen, waiting = set(), [node_id]
    while waiting:
        node = prompt.get(waiting.pop(0))
        if node is None:
            continue
        inputs = node["inputs"]
        if node["class_type"].startswith("Xavi9"):
            if isinstance(inputs.get("seed"), int) and found["seed"] is None:
                found |= {"mode": node["class_type"], "seed": inputs["seed"]}
            if isinstance(inputs.get("prompt"), str) and found["prompt"] is None:
                found["prompt"] = inputs["prompt"]
        links = [it[0] for it in inputs.values() if isinstance(it, list) and len(it) == 2 and it[0] not in seen]
        seen.update(links)
        waiting += links
    return found


def add(index: Path, video: Path, **facts):
    """Append a video's line: its path, bytes, mtime (seconds) and the facts given (seconds, codec, size, mode, ...)."""
    status = video.stat()
    line = {"path": str(video), "bytes": status.st_size, "mtime": status.st_mtime, **facts}
    # One write in append mode: two servers on one folder cannot tear each other's lines.
    descriptor = os.open(index, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line, ensure_ascii=False).encode() + b"\n")
    finally:
        os.close(descriptor)
