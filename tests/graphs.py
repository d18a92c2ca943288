"""Graphs for POST /prompt, what they save, and what a server's process holds meanwhile."""

import copy
import json
import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from clips import probe
from comfy_host import ComfyHost, PromptRejected

LTX2_FILE, SVD_FILE = "ltx-2-19b-distilled-fp8.safetensors", "svd_xt.safetensors"
GEMMA_FILE = "gemma_3_12B_it_fp8_scaled.safetensors"
# The smallest that is still a video, of each local model.
LTX2 = {
    "load": {"class_type": "Xavi9LTX2Loader", "inputs": {
        "checkpoint": LTX2_FILE, "text_encoder": GEMMA_FILE, "weights": "auto"}},
    "text": {"class_type": "Xavi9LTX2TextEncode", "inputs": {
        "model": ["load", 0], "prompt": "A red fox runs through snow.", "negative_prompt": ""}},
    "sample": {"class_type": "Xavi9LTX2Sampler", "inputs": {
        "model": ["load", 0], "conditioning": ["text", 0], "width": 96, "height": 64, "frames": 9, "fps": 25,
        "schedule": "distilled", "steps": 0, "guidance_scale": 0.0, "seed": 1}},
    "decode": {"class_type": "Xavi9LTX2Decode", "inputs": {
        "model": ["load", 0], "latents": ["sample", 0], "tiling": "auto"}},
    "save": {"class_type": "Xavi9VideoSave", "inputs": {
        "video": ["decode", 0], "filename_prefix": "ltx2/video", "format": "auto", "save_to": "output"}},
}  # fmt: skip
SVD = {
    "svd": {"class_type": "Xavi9SVDLoader", "inputs": {"model": SVD_FILE}},
    "picture": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "animate": {"class_type": "Xavi9SVDImageToVideo", "inputs": {
        "model": ["svd", 0], "image": ["picture", 0], "width": 128, "height": 64, "frames": 5, "fps": 7, "steps": 2,
        "motion_bucket_id": 127, "noise_aug_strength": 0.02, "min_guidance": 1.0, "max_guidance": 3.0, "seed": 1,
        "decode_chunk": 2}},
    "write": {"class_type": "Xavi9VideoSave", "inputs": {
        "video": ["animate", 0], "filename_prefix": "svd/video", "format": "auto", "save_to": "output"}},
}  # fmt: skip


def changed(graph: dict, *more: dict, **inputs) -> dict:
    """A copy of a graph with these inputs, as node_input=value, and with more nodes."""
    made = copy.deepcopy(graph)
    for nodes in more:
        made |= nodes
    for name, value in inputs.items():
        node, _, key = name.partition("_")
        made[node]["inputs"][key] = value
    return made


def run(host: ComfyHost, prompt: dict) -> Path:
    """The file that a graph saves. Fails with the node's error."""
    entry = host.run(prompt)
    assert not (error := host.error(entry)), error["exception_message"]
    [path] = host.files(entry)
    return path


NAMES = (f"dump{number}" for number in count())


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def carried(host: ComfyHost, graph: dict, *links: str | list) -> list:
    """Runs a graph on a server with core_pack, and gives what these links carried, as the pack's plain() makes it."""
    names = {next(NAMES): [link, 0] if isinstance(link, str) else link for link in links}
    dumps = {name: node("TestDump", value=link, name=name) for name, link in names.items()}
    entry = host.run({**graph, **dumps})
    assert host.error(entry) is None, host.error(entry)
    return [torch.load(host.base / "output" / f"{name}.pt", weights_only=True) for name in names]


def fails(host: ComfyHost, prompt: dict) -> str:
    """The words that a graph dies with, where it runs at all."""
    error = host.error(host.run(prompt))
    assert error
    return error["exception_message"]


def refused(host: ComfyHost, prompt: dict) -> str:
    """The answer to a graph that is not queued, in HTTP 400."""
    with pytest.raises(PromptRejected) as caught:
        host.post(prompt)
    assert caught.value.status == 400
    return json.dumps(caught.value.body)


def picture(path: Path) -> tuple[int, int, int, int]:
    """Width, height, frames and frames per second, by ffprobe."""
    video = probe(path)["video"]
    return video["width"], video["height"], int(video["nb_read_frames"]), int(video["r_frame_rate"].removesuffix("/1"))


def until(found: Callable, seconds: float = 60):
    """Wait for what found() gives. Fails when it does not come."""
    limit = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.02)
    return value


def opened(host: ComfyHost) -> int:
    """How many weight files have been opened, by the log."""
    return host.log().count("Opening ")


def index(host: ComfyHost) -> list[dict]:
    """The lines of our index of saved videos."""
    file = host.base / "user" / "__xavi9videos" / "videos.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def encoders(host: ComfyHost) -> int:
    """How often a text encoder has been loaded, by the log."""
    return host.log().count("Requested to load Gemma3TextModel")


def memory_of(host: ComfyHost) -> tuple[int, int]:
    """RssAnon and RssFile of the server, in bytes."""
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1024 for name in ("RssAnon", "RssFile"))


def mapped(host: ComfyHost) -> set[str]:
    """The weight files that the server has mapped."""
    names = re.findall(r"\S+\.safetensors", Path(f"/proc/{host.process.pid}/maps").read_text())
    return {Path(name).name for name in names}


def settle(host: ComfyHost):
    """The host frees after a prompt, before the next one: run one that needs no model."""
    image = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": time.time_ns()
                                                    % 1000}}  # fmt: skip
    host.run({"1": image, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})


def all_closed(host: ComfyHost) -> bool:
    """Whether no weight file is mapped any more within ten seconds: models are dropped in a thread of their own."""
    limit = time.monotonic() + 10
    while mapped(host) and time.monotonic() < limit:
        time.sleep(0.2)
    return not mapped(host)


def check_unloading(host: ComfyHost, prompt: dict, file: str):
    """What a graph's checkpoint takes goes when it is unloaded, and its file is closed with the loader's result.

    Fails too where another weight file stays open after the graph has run.
    """
    run(host, prompt)
    assert mapped(host) == {file}
    loaded, _ = memory_of(host)
    weights = (host.base / "models" / "checkpoints" / file).stat().st_size
    host.free(unload_models=True)
    settle(host)
    assert memory_of(host)[0] <= loaded + 0.05 * weights
    assert mapped(host) == {file}, "a loader's result still asks for it"
    host.free(unload_models=True, free_memory=True)
    assert all_closed(host)
