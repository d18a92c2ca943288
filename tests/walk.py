"""`tests/walk [URL]`: the plan's eight verifications, each done and told in one line.

Without URL: on a real ComfyUI in a fresh folder, with tiny local models, whose videos are small, and the loopback NIM.
With it: on a ComfyUI that runs there, over HTTP only, with its own models and NIM and at the shipped sizes.
Exit status 1 if something that can be seen here was not.
"""

import argparse
import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path

import httpx
import lint
from comfy_host import ComfyHost
from demo import WORKFLOWS, facts, shipped_size, stage
from editor import Editor
from graphs import mapped, memory_of
from PIL import Image
from samples import PHOTOGRAPH
from setup_host import REPO
from tiny.models import lowered

NODES = sorted(path.stem for path in (REPO / "web" / "docs").glob("*.md"))
# Of Generate Video: the shipped graph whose model's node it takes the place of, that node, and what the video must be
# where the graph does not say it.
MODES = {
    "Cosmos Text2World": ("cosmos_text2world", "Xavi9CosmosText2World", ("1280x720x121", "1280x704x121")),
    "Cosmos Video2World": ("cosmos_image2world", "Xavi9CosmosVideo2World", ("1280x720x121", "1280x704x121")),
    "LTX-2 (FP8)": ("generate_video", "Xavi9GenerateVideo", ()),
    "SVD-XT": ("svd_xt_image_to_video", "Xavi9SVDImageToVideo", ()),
}
WORKING = ("ready", "available", "loaded")
PICTURE = "xavi9-walk.jpg"
PANEL = ".xavi9-panel"
MB = 1e6
RUN_SECONDS, FREE_SECONDS = 3600, 30
log = logging.getLogger(__name__)


class Needs(Exception):
    """It cannot be seen here: what it takes, and what was seen instead."""

    def __init__(self, what: str, instead: str):
        super().__init__(instead)
        self.what = what


class Running(ComfyHost):
    """A ComfyUI that somebody else has started, at url."""

    def __init__(self, url: str):
        self.url, self.client_id = url.rstrip("/"), uuid.uuid4().hex

    def __enter__(self) -> "Running":
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self

    def __exit__(self, *exception) -> None:
        self.http.close()

    def _check_alive(self) -> None:
        pass

    def _log_tail(self) -> str:
        return "(its log is on its own machine)"


class Walk:
    """The verifications, in the plan's order. Each returns what was seen; raises what speaks against it, or Needs."""

    def __init__(self, host: ComfyHost):
        self.host, self.ours = host, not isinstance(host, Running)
        self.seeds = count(int(time.time()))  # a seed that ran before would come out of the host's cache
        self.made: dict[str, bool] = {}  # the videos, by id, and whether an editor's workflow is inside
        self.empty = 0
        picture = {"image": (PICTURE, PHOTOGRAPH.read_bytes())}
        host.http.post("/upload/image", files=picture, data={"overwrite": "true"}).raise_for_status()

    def shipped(self, name: str) -> dict:
        """A shipped graph in API format, ready to run here."""
        prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
        prompt = lowered(prompt) if self.ours else prompt
        for node in prompt.values():
            if node["class_type"] == "LoadImage":
                node["inputs"]["image"] = PICTURE
        return prompt

    def run(self, prompt: dict, workflow: str = "") -> dict:
        """Runs a graph with a seed of its own. Returns its video's entry in the history."""
        for node in prompt.values():
            if "seed" in node["inputs"]:
                node["inputs"]["seed"] = next(self.seeds)
        file = workflow and json.loads((WORKFLOWS / f"{workflow}.json").read_text(encoding="utf-8"))
        entry = self.host.run(prompt, file, RUN_SECONDS)
        if error := self.host.error(entry):
            raise RuntimeError(error["exception_message"])
        video = self.videos(1)[0]
        assert video["id"] not in self.made, "the history does not begin with the new video"
        self.made[video["id"]] = bool(workflow)
        return video

    def videos(self, size: int) -> list[dict]:
        return self.host.http.get("/xavi9/videos", params={"size": size}).raise_for_status().json()["videos"]

    def content(self, video: dict) -> bytes:
        """A video as the browser downloads it."""
        place = {key: video[key] for key in ("filename", "subfolder", "type")}
        return self.host.http.get("/view", params=place).raise_for_status().content

    def health(self) -> dict:
        time.sleep(2.1)  # the server keeps its last answer for two seconds
        return self.host.http.get("/xavi9/health").raise_for_status().json()

    def held(self) -> int:
        """Bytes of memory: private to the server's process, or, of a server elsewhere, in use on its device."""
        if self.ours:
            return memory_of(self.host)[0]
        machine = self.health()["machine"]
        return machine["total"] - machine["free"]

    def see_loaded(self, *modes: str) -> int:
        """Waits until these models are loaded and no others. Returns the memory held then."""
        limit = time.monotonic() + FREE_SECONDS
        while (found := [it["mode"] for it in self.health()["modes"] if it["state"] == "loaded"]) != list(modes):
            assert time.monotonic() < limit, f"loaded: {', '.join(found) or 'nothing'}"
        return self.held()

    def free(self) -> int:
        """Unloads all models. Returns the memory held then."""
        self.host.free(unload_models=True, free_memory=True)
        return self.see_loaded()

    def compose(self) -> str:
        problems = lint.docker()
        assert not problems, problems
        checked = "hadolint and the Compose schema find nothing wrong in docker/"
        if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
            raise Needs("an engine", f"no Docker engine answers; {checked}")
        done = subprocess.run(["docker", "compose", "-f", REPO / "docker/compose.yaml", "config", "-q"],
                              capture_output=True, text=True)
        assert not done.returncode, done.stderr
        raise Needs("a person", f"to build gigabytes; docker compose config takes docker/compose.yaml, {checked}")

    def editor(self) -> str:
        nodes = sorted(name for name in self.host.object_info() if name.startswith("Xavi9"))
        assert nodes == NODES, f"the server has {nodes}"
        if not self.ours:
            assert "<title>ComfyUI" in self.host.http.get("/").raise_for_status().text, "no editor at /"
            scripts = self.host.http.get("/extensions").raise_for_status().json()
            assert any(it.endswith("/xavi9.js") for it in scripts), f"no xavi9.js among {scripts}"
            return f"the page, the script of the sidebar's tab, {len(nodes)} nodes"
        with Editor(self.host, vue=True) as editor:
            editor.page.locator(".xavi9videos-tab-button").click()
            editor.page.locator(PANEL).get_by_text("LTX-2").first.wait_for()
            known = editor.page.evaluate("Object.keys(LiteGraph.registered_node_types)")
            missing = set(NODES) - set(known)
            assert not missing and not editor.errors, f"missing {missing}; in the console: {editor.errors}"
        return f"in Chromium: the tab Xavi9 in the sidebar, its panel, {len(nodes)} nodes, no error in the console"

    def ready(self) -> str:
        states = {it["mode"]: it["state"] for it in self.health()["modes"]}
        [report] = self.host.run({"1": {"class_type": "Xavi9ModelHealth", "inputs": {}}})["outputs"]["1"]["text"]
        said = ", ".join(f"{mode} {state}" for mode, state in states.items())
        assert all(state in WORKING for state in states.values()), report
        assert report.count("\n") > len(states), f"the node says only: {report}"
        return f"the node and GET /xavi9/health: {said}"

    def generate(self) -> str:
        seen = []
        for mode, (name, kind, sizes) in MODES.items():
            prompt = self.shipped(name)
            [node] = [it for it in prompt.values() if it["class_type"] == kind]
            if kind != "Xavi9GenerateVideo":
                # The links to what loads a model have no place in it; it finds the files by itself.
                inputs = {f"model.{key}": it for key, it in node["inputs"].items() if key != "model"}
                own = {key: inputs.pop(f"model.{key}", "") for key in ("prompt", "seed")}
                node |= {"class_type": "Xavi9GenerateVideo", "inputs": {**own, "model": mode, **inputs}}
            content = self.content(self.run(prompt, name if kind == "Xavi9GenerateVideo" else ""))
            with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
                file.write(content)
                file.flush()
                size, seconds, codecs = facts(Path(file.name))
            assert size in (sizes or [shipped_size(prompt)]), f"{mode} made {size}"
            sound = "+" in codecs
            assert sound == mode.startswith("LTX-2"), f"{mode} made {codecs}"
            seen.append(f"{mode} {size} {codecs.partition(',')[0]}")
        return "; ".join(seen)

    def swap(self) -> str:
        self.empty = self.free()
        seen = [f"before {self.empty / MB:.0f} MB"]
        for mode, name in (("ltx2", "ltx2_text_to_video"), ("svd", "svd_xt_image_to_video"),
                           ("ltx2", "ltx2_text_to_video")):
            self.run(self.shipped(name), name)
            seen.append(f"then {mode} alone loaded {self.see_loaded(mode) / MB:.0f} MB")
        return ", ".join(seen)

    def download(self) -> str:
        videos = self.videos(len(self.made))
        for video in videos:
            content = self.content(video)
            assert len(content) == video["bytes"], f"{video['name']}: {len(content)} of {video['bytes']} bytes"
            if self.ours:
                file = self.host.base / video["type"] / video["subfolder"] / video["filename"]
                assert content == file.read_bytes(), f"{video['name']} is not the file"
        alike = "equal to the files" if self.ours else "of the size that the history tells"
        return f"{len(videos)} videos by GET /view, {sum(it['bytes'] for it in videos) / MB:.1f} MB, {alike}"

    def history(self) -> str:
        videos = self.videos(len(self.made))
        assert {it["id"] for it in videos} == set(self.made), "GET /xavi9/videos lacks some of them"
        for video in videos:
            about = f"/xavi9/videos/{video['id']}"
            Image.open(BytesIO(self.host.http.get(f"{about}/poster").raise_for_status().content)).verify()
            inside = self.host.http.get(f"{about}/workflow").raise_for_status().json()
            assert inside["prompt"] and bool(inside["workflow"]) == self.made[video["id"]], f"{video['name']}: {inside}"
        return (f"all {len(videos)} in GET /xavi9/videos, each with its poster and the prompt inside, and the "
                f"{sum(self.made.values())} that had one with the editor's workflow")

    def memory(self) -> str:
        loaded, files = self.held(), mapped(self.host) if self.ours else set()
        left = self.free()
        figures = f"{loaded / MB:.0f} MB, then {left / MB:.0f}, before loading {self.empty / MB:.0f}"
        # What repeated runs leave in the allocator is not the models.
        assert left < 1.2 * self.empty, figures
        if not self.ours:
            return f"POST /free: nothing loaded; memory in use {figures}"
        assert files and not mapped(self.host), f"mapped before: {files}, still: {mapped(self.host)}"
        return (f"POST /free: nothing loaded, {', '.join(sorted(files))} not mapped any more, private memory {figures} "
                "(on the CPU weights are only mapped; nvidia-smi needs a GPU)")


PLAN: dict[str, Callable[[Walk], str]] = {
    "docker compose up --build": Walk.compose,
    "the editor at its address": Walk.editor,
    "Model Health": Walk.ready,
    "a video by each model": Walk.generate,
    "LTX-2, SVD-XT, LTX-2": Walk.swap,
    "download": Walk.download,
    "history": Walk.history,
    "memory after unloading": Walk.memory,
}


@contextlib.contextmanager
def server(url: str | None) -> Iterator[ComfyHost]:
    if url:
        with Running(url) as host:
            yield host
        return
    with tempfile.TemporaryDirectory(prefix="xavi9-walk-") as base, stage(Path(base)) as (host, _, _):
        yield host


def told(step: Callable[[Walk], str], walk: Walk) -> tuple[str, str]:
    """What became of a verification, and what was seen."""
    try:
        return "seen", step(walk)
    except Needs as error:
        return f"needs {error.what}", str(error)
    # One that fails must not hide the others.
    except Exception as error:
        return "not seen", f"{type(error).__name__}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", help="a ComfyUI that runs, such as http://spark:8188; else one of its own")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    failed = False
    log.info("Going to %s", arguments.url or "a ComfyUI that starts now, with tiny models ...")
    try:
        with server(arguments.url) as host:
            version = host.http.get("/system_stats").raise_for_status().json()["system"]["comfyui_version"]
            kind = "" if arguments.url else ", on the CPU with tiny random weights and a stand-in for the Cosmos NIM"
            log.info("ComfyUI %s at %s%s", version, host.url, kind)
            walk = Walk(host)
            for number, (title, step) in enumerate(PLAN.items(), 1):
                verdict, seen = told(step, walk)
                log.info("%d %-15s %s: %s", number, verdict, title, seen)
                failed |= verdict == "not seen"
    except httpx.HTTPError as error:
        sys.exit(f"No ComfyUI with this pack answers at {arguments.url}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    sys.exit(failed)


if __name__ == "__main__":
    main()
