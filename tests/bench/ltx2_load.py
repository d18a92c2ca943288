"""LTX-2 from a file of more than two gigabytes: how fast it is there, and what memory it takes."""

import gc
import logging
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import median

import conftest  # noqa: F401  the host's modules, and the pack as xavi9videos
import torch
from bench import ltx2_models as models
from bench.row import Row, compared, paired
from comfy import model_management
from xavi9videos.nodes.host import memory
from xavi9videos.nodes.ltx2 import attention
from xavi9videos.nodes.ltx2.checkpoint import LTX2

# The published width, and few of the blocks: a tensor's size decides what reading and casting it costs.
HEADS, LAYERS, TEXT = 32, 4, 960
SMALLEST = 2e9
log = logging.getLogger("bench")


@cache
def folder() -> tempfile.TemporaryDirectory:
    """A folder with the FP8 checkpoint in it, which goes when the bench ends."""
    found = tempfile.TemporaryDirectory(prefix="xavi9-bench-")
    began = time.monotonic()
    models.write_checkpoint(file_in(found.name), models.config(HEADS, LAYERS, TEXT), "fp8")
    size = file_in(found.name).stat().st_size
    log.info("A checkpoint of %.1f GB written in %.0f s", size / 1e9, time.monotonic() - began)
    assert size >= SMALLEST
    return found


def file_in(name: str) -> Path:
    return Path(name, "ltx-2-19b-distilled-fp8.safetensors")


def read_weights(modules) -> int:
    """Read every byte of the modules' tensors. Returns how many there were."""
    total = 0
    for module in modules:
        for value in [*module.parameters(), *module.buffers()]:
            # An FP8 weight is a quantized tensor around its bytes; its scale is a number.
            raw = getattr(value, "_qdata", value).detach().flatten().view(torch.uint8)
            words = len(raw) // 8 * 8
            raw[:words].view(torch.int64).sum()
            raw[words:].sum()
            total += len(raw)
    return total


def ours(path: Path) -> tuple[float, int]:
    """Seconds from the path to the last byte, and the bytes."""
    began = time.perf_counter()
    model = LTX2(str(path))
    memory.load(model.parts, 0, "LTX-2")
    count = read_weights(part.module for part in model.parts)
    seconds = time.perf_counter() - began
    for part in model.parts:
        memory.unload(part)
    return seconds, count


def peer(path: Path) -> tuple[float, int]:
    """The same by what ComfyUI's "Load Checkpoint" and "Load LTXV Audio VAE" do.

    It reads less: the text's projection belongs to ComfyUI's text encoder, which has a loader of its own.
    """
    import comfy.sd
    import comfy.utils

    began = time.perf_counter()
    transformer, _, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    prefixes = {"audio_vae.": "autoencoder.", "vocoder.": "vocoder."}
    tensors = comfy.utils.state_dict_prefix_replace(tensors, prefixes, filter_keys=True)
    patchers = [transformer, vae.patcher, comfy.sd.VAE(sd=tensors, metadata=metadata).patcher]
    model_management.load_models_gpu(patchers)
    count = read_weights(it.model for it in patchers)
    seconds = time.perf_counter() - began
    model_management.unload_all_models()
    return seconds, count


def timed(load, path: Path, smallest: float) -> float:
    gc.collect()
    with torch.inference_mode():
        seconds, count = load(path)
    assert count >= smallest
    return seconds


def ltx2_load() -> Row:
    """Seconds until every byte has been read once through the model; page cache warm, libraries imported."""
    path = file_in(folder().name)
    size = path.stat().st_size
    projection = TEXT * TEXT * models.TEXT_STATES * 2
    found = paired(5, partial(timed, ours, path, 0.99 * size), partial(timed, peer, path, 0.99 * size - projection))
    return compared("ltx2_load", *found, "s", "<=", 1.0)


def private_bytes() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def grown(path: str) -> int:
    """Bytes that RssAnon has grown by when the model is open and has made one step of a few tokens."""
    from diffusers import LTX2Pipeline  # noqa: F401  what the libraries take is no model's

    before = private_bytes()
    model = LTX2(path)
    memory.load([model.transformer], 0, "LTX-2")
    transformer = model.transformer.module
    text, mask = torch.zeros(1, 16, TEXT), torch.ones(1, 16, dtype=torch.int64)
    with torch.inference_mode(), attention.prepared(transformer):
        transformer(
            hidden_states=torch.zeros(1, 4, 128), audio_hidden_states=torch.zeros(1, 2, 128),
            encoder_hidden_states=text, audio_encoder_hidden_states=text, encoder_attention_mask=mask,
            audio_encoder_attention_mask=mask, timestep=torch.tensor([700.0]), sigma=torch.tensor([700.0]),
            num_frames=1, height=2, width=2, audio_num_frames=2, fps=25.0,
        )  # fmt: skip
        return private_bytes() - before


def ltx2_load_memory() -> Row:
    """Memory of the process's own over load and first use, as a share of the file; what is mapped is the file's."""
    path = file_in(folder().name)
    shares = []
    for _ in range(3):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            shares.append(apart.submit(grown, str(path)).result() / path.stat().st_size)
    share = median(shares)
    return Row("ltx2_load_memory", share, None, share, "of file", "<=", 0.15, share <= 0.15, len(shares))
