"""`make demo`: every shipped workflow through POST /prompt of a real ComfyUI. `make run`: the editor, left open.

The real models need an NVIDIA GPU and downloads of tens of gigabytes: the NIM is the loopback stand-in, and the local
models are tiny ones in the real file formats, with random weights, at a size that two cores can run.
"""

import argparse
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
from comfy_host import ComfyHost
from nim.loopback import LoopbackNIM
from PIL import Image
from samples import put_samples
from setup_host import REPO
from tiny.models import lowered, put_models

log = logging.getLogger(__name__)

WORKFLOWS = REPO / "workflows"
FAMILIES = ("cosmos3", "predict1")
TINY = "tiny weights"
FORMAT_ROW = "{:<11} {:<48} {:>9} {:>7} {:>6}  {}"
ROW = "{:<21} {:<12} {:<36} {:>14} {:>13} {:>7} {:>6}  {}"


@contextlib.contextmanager
def stage(base: Path, *args: str) -> Iterator[tuple[ComfyHost, LoopbackNIM, LoopbackNIM]]:
    """A ComfyUI in base, with tiny models and samples, and the NIM of each Cosmos mode: of text, of picture or clip.

    args: more ComfyUI flags.
    """
    put_samples(base)
    put_models(base / "models")
    with LoopbackNIM() as text, LoopbackNIM() as video:
        video.mode = "video2world"  # of Predict1, which has a container for each
        # Two threads that wait for each other at every tiny tensor are slower than one.
        env = {"COSMOS_TEXT2WORLD_URL": text.url, "COSMOS_VIDEO2WORLD_URL": video.url, "OMP_NUM_THREADS": "1"}
        with ComfyHost(base, env=env, args=args) as host:
            yield host, text, video


def shipped_size(prompt: dict) -> str:
    """What a graph in API format asks a local model for: width x height x frames."""
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    kinds = ("Xavi9SVDImageToVideo", "Xavi9LTX2Sampler", "Xavi9GenerateVideo")
    asked = {key.removeprefix("model."): it for kind in kinds for key, it in inputs.get(kind, {}).items()}
    times = 2 if "Xavi9LTX2Upscale" in inputs else 1
    return f"{times * asked['width']}x{times * asked['height']}x{asked['frames']}"


def facts(path: Path) -> tuple:
    """Of a saved video: size with frames, seconds, codecs and whether the workflow is inside, read with PyAV."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        inside = "workflow" in container.metadata and "prompt" in container.metadata
        codecs = " + ".join(it.codec.canonical_name for it in (*container.streams.video, *container.streams.audio))
        seconds = f"{float(container.duration) / av.time_base:.2f}"
        return (f"{video.width}x{video.height}x{frames}", seconds,
                f"{codecs}, workflow {'inside' if inside else 'MISSING'}")


def run_workflow(host: ComfyHost, name: str, family: str) -> str:
    """Run one shipped workflow as the editor would post it. Returns its row of the table; raises on failure."""
    prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    started = time.monotonic()
    entry = host.run(lowered(prompt), workflow)
    if error := host.error(entry):
        raise RuntimeError(f"{name} on {family}: {error['exception_message']}")
    [path] = host.files(entry)
    size, seconds, codecs = facts(path)
    took = f"{time.monotonic() - started:.1f} s"
    shipped = shipped_size(prompt) if family == TINY else size
    return ROW.format(name, family, str(path.relative_to(REPO)), shipped, size, seconds, took, codecs)


def looked_at(path: Path) -> tuple[int, str]:
    """How many pictures a saved file or folder really holds, and as what, by Pillow or PyAV."""
    if path.is_dir() or path.suffix == ".webp":
        with Image.open(path / "00001.png" if path.is_dir() else path) as image:
            return len(list(path.iterdir())) if path.is_dir() else image.n_frames, f"{image.format}, {image.mode}"
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return sum(1 for _ in container.decode(video)), f"{video.codec.canonical_name}, {video.codec_context.pix_fmt}"


def run_format(host: ComfyHost, key: str) -> str:
    """Save half a second of the clip in one format of Video Save. Returns its row; raises on failure."""
    entry = host.run({
        "load": {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}},
        "cut": {"class_type": "Video Slice", "inputs": {
            "video": ["load", 0], "start_time": 0.0, "duration": 0.5, "strict_duration": False}},
        "save": {"class_type": "Xavi9VideoSave", "inputs": {
            "video": ["cut", 0], "filename_prefix": f"formats/{key}", "format": key}}})  # fmt: skip
    if error := host.error(entry):
        raise RuntimeError(f"{key}: {error['exception_message']}")
    [record] = entry["outputs"]["save"]["xavi9_video"]
    path = host.base / record["folder"] / record["path"]
    frames, found = looked_at(path)
    size, took = f"{record['bytes'] / 1e3:.0f} kB", f"{record['took']:.1f} s"
    return FORMAT_ROW.format(key, str(path.relative_to(REPO)), size, frames, took, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--open", action="store_true", help="leave the editor open until Ctrl-C, and run nothing")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    log.info("Starting ComfyUI on the CPU, with tiny models and a stand-in for each Cosmos NIM ...")
    # Without a cache the same graph runs anew on the second family.
    with stage(REPO / ".demo", "--cache-none") as (host, text, video):
        log.info("ComfyUI %s is up.", host.http.get("/system_stats").json()["system"]["comfyui_version"])
        if arguments.open:
            log.info("The editor is at %s - the workflows are under Templates. Ctrl-C ends it.", host.url)
            log.info("LTX-2 and SVD-XT have tiny random weights here and make noise. Before you run them, set 256x160 "
                     "and 17 frames, or 256x144 and 2 steps.")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return
        rows = []
        for path in sorted(WORKFLOWS.glob("*.json")):
            for family in FAMILIES if path.stem.startswith("cosmos") else [TINY]:
                if family != TINY:
                    text.family = video.family = family
                log.info("Running %s on %s ...", path.stem, family)
                rows.append(run_workflow(host, path.stem, family))
        log.info("Saving half a second of a clip in each format ...")
        offered = host.object_info()["Xavi9VideoSave"]["input"]["required"]["format"][1]["options"]
        formats = [run_format(host, it["key"]) for it in offered if it["key"] != "auto"]
    log.info("\n%s", ROW.format("workflow", "family", "file", "shipped as", "run as", "seconds", "took", "codecs"))
    for row in rows:
        log.info("%s", row)
    log.info("\n%s", FORMAT_ROW.format("format", "file", "size", "frames", "took", "codec and pixels"))
    for row in formats:
        log.info("%s", row)
    log.info(
        "\nCosmos: a stand-in drew these pictures, or slid over the photograph or clip that it was sent. LTX-2 and "
        "SVD-XT: tiny\nmodels with random weights ran at a small size, so picture and sound are noise. All else is "
        "real (ComfyUI, the nodes,\nthe HTTP exchange, the model files' formats, the videos). Drop a file on the "
        "editor (make run) to get its workflow back."
    )


if __name__ == "__main__":
    main()
