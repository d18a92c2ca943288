"""Our own videos: one JSON line each in the user folder. A file is ours when path, bytes and mtime match its line."""

import json
import os
from pathlib import Path


def origin(prompt: dict, node_id: str) -> dict:
    """Mode, seed and prompt of the video that arrives at a node, read from the prompt that is being executed.

    mode is the class of the nearest of our nodes upstream that has a seed, or what Generate Video was set to. A value
    is None when no node has it, or when it comes from a link.
    """
    found = {}
    seen, waiting = set(), [node_id]
    while waiting:
        node = prompt.get(waiting.pop(0))
        if node is None:
            continue
        inputs = node["inputs"]
        if node["class_type"].startswith("Xavi9"):
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
    values = {key: found.get(key) for key in ("mode", "seed", "prompt")}
    return {key: None if isinstance(value, list) else value for key, value in values.items()}


def add(index: Path, video: Path, **facts):
    """Append a video's line: its path, bytes, mtime (seconds) and the facts given (seconds, codec, size, mode, ...)."""
    status = video.stat()
    line = {"path": str(video), "bytes": status.st_size, "mtime": status.st_mtime, **facts}
    # One write in append mode: two servers on one folder cannot tear each other's lines.
    descriptor = os.open(index, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
