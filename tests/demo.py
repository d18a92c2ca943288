"""`make demo`: every shipped workflow through POST /prompt of a real ComfyUI. `make run`: the editor, left open.

The NIM is the loopback stand-in, since the real one needs an NVIDIA GPU and a download of tens of gigabytes.
"""

import argparse
import contextlib
import json
import logging
import signal
import sys
import time
from pathlib import Path

import av
from comfy_host import ComfyHost
from nim.loopback import LoopbackNIM
from samples import put_samples
from setup_host import REPO

log = logging.getLogger(__name__)

WORKFLOWS = REPO / "workflows"
FAMILIES = ("cosmos3", "predict1")
ROW = "{:<20} {:<9} {:<36} {:>10} {:>6} {:>7} {:>6}  {}"


def facts(path: Path) -> tuple:
    """Of a saved video: size, frames, seconds, codec and whether the workflow is inside, read with PyAV."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        inside = "workflow" in container.metadata and "prompt" in container.metadata
        codec = f"{video.codec.canonical_name}, workflow {'inside' if inside else 'MISSING'}"
        return f"{video.width}x{video.height}", frames, f"{float(container.duration) / av.time_base:.2f}", codec


def run_workflow(host: ComfyHost, name: str, family: str) -> str:
    """Run one shipped workflow as the editor would post it. Returns its row of the table; raises on failure."""
    prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    started = time.monotonic()
    entry = host.run(prompt, workflow)
    if error := host.error(entry):
        raise RuntimeError(f"{name} on {family}: {error['exception_message']}")
    [path] = host.files(entry)
    size, frames, seconds, codec = facts(path)
    took = f"{time.monotonic() - started:.1f} s"
    return ROW.format(name, family, str(path.relative_to(REPO)), size, frames, seconds, took, codec)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--open", action="store_true", help="leave the editor open until Ctrl-C, and run nothing")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    log.info("Starting ComfyUI on the CPU, and a stand-in for each Cosmos NIM ...")
    put_samples(REPO / ".demo")
    with LoopbackNIM() as text, LoopbackNIM() as video, contextlib.ExitStack() as stack:
        video.mode = "video2world"  # of Predict1, which has a container for each
        addresses = {"COSMOS_TEXT2WORLD_URL": text.url, "COSMOS_VIDEO2WORLD_URL": video.url}
        # Without a cache the same graph runs anew on the second family.
        host = stack.enter_context(ComfyHost(REPO / ".demo", env=addresses, args=["--cache-none"]))
        log.info("ComfyUI %s is up.", host.http.get("/system_stats").json()["system"]["comfyui_version"])
        if arguments.open:
            log.info("The editor is at %s - the workflows are under Templates. Ctrl-C ends it.", host.url)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return
        rows = []
        for path in sorted(WORKFLOWS.glob("*.json")):
            for family in FAMILIES:
                text.family = video.family = family
                log.info("Running %s on %s ...", path.stem, family)
                rows.append(run_workflow(host, path.stem, family))
    log.info("\n%s", ROW.format("workflow", "family", "file", "size", "frames", "seconds", "took", "codec"))
    for row in rows:
        log.info("%s", row)
    log.info(
        "\nA stand-in drew these pictures, or slid over the photograph or clip that it was sent; all else is real "
        "(ComfyUI,\nthe nodes, the HTTP exchange, the files). Drop a file on the editor (make run) to get its workflow "
        "back."
    )


if __name__ == "__main__":
    main()
