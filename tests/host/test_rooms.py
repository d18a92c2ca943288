"""Rooms: one that cannot load is named and left out, the others stay; what the pack imports, lists and explains."""

import ast
import asyncio
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from setup_host import REPO, host_path

HOST_MODULES = {"comfy", "comfy_extras", "folder_paths", "server", "execution", "nodes", "latent_preview"}
LTX2 = [f"Xavi9LTX2{it}" for it in ("Loader", "LoRA", "TextEncode", "Guidance", "Keyframe", "Extend", "Sampler",
                                     "Upscale", "Decode")]
SVD = [f"Xavi9SVD{it}" for it in ("Loader", "ImageToVideo")]
NODES = ["Xavi9CosmosText2World", "Xavi9CosmosVideo2World", *LTX2, *SVD, "Xavi9VideoJoin", "Xavi9VideoSave",
         "Xavi9GenerateVideo", "Xavi9ModelHealth"]
HEAVY = ("httpx", "diffusers", "transformers", "accelerate")
IMPORTS = '''
import sys
host, repo, heavy = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
sys.path.insert(0, host)
import utils  # as main.py does: ComfyUI 0.24 later puts comfy/utils.py before it
from comfy.cli_args import args
args.cpu, args.base_directory = True, sys.argv[4]
import asyncio, importlib.util, json
import server, comfy.model_management, comfy.utils, comfy_api.latest

# The host imports some of them itself: away with those, so that an import of ours shows.
for name in [it for it in sys.modules if it.split(".")[0] in heavy]:
    del sys.modules[name]
spec = importlib.util.spec_from_file_location("pack", repo + "/__init__.py", submodule_search_locations=[repo])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
at_door = [it for it in sys.modules if it.startswith("pack.")]
before = set(sys.modules)
extension = asyncio.run(sys.modules["pack"].comfy_entrypoint())
ids = [it.GET_SCHEMA().node_id for it in asyncio.run(extension.get_node_list())]
sys.stdout.write(json.dumps({"door": at_door, "new": sorted(set(sys.modules) - before), "ids": ids}))
'''
BREAKS = {
    "import": ("nodes.py", lambda text: f'raise ImportError("No module named \'nothing\'")\n{text}'),
    "import of many lines": ("nodes.py", lambda text: f'raise RuntimeError("failed:\\nlook up\\n\\tthere")\n{text}'),
    "syntax": ("client.py", lambda text: f"{text}\ndef broken(:\n"),
    "schema": ("nodes.py", lambda text: re.sub(
        r"(def define_schema\(cls\):\n)", r'\1        raise ValueError("no such widget")\n', text, count=1)),
    "no list": ("nodes.py", lambda text: text.replace("NODES = [", "OTHERS = [")),
}
SAID = {
    "import": ["No module named 'nothing'", "pip install -r", "requirements.txt"],
    "import of many lines": ["failed: look up there", "Update ComfyUI"],
    "syntax": ["invalid syntax", "client.py", "Update ComfyUI"],
    "schema": ["no such widget", "Update ComfyUI"],
    "no list": ["NODES", "Update ComfyUI"],
}


def broken_pack(folder: Path, kind: str) -> Path:
    """A copy of the pack whose first room is broken."""
    for name in ("__init__.py", "pyproject.toml", "requirements.txt"):
        folder.mkdir(exist_ok=True)
        shutil.copy(REPO / name, folder)
    for name in ("nodes", "web"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    file, change = BREAKS[kind]
    path = folder / "nodes" / "cosmos" / file
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    return folder


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_first_room_is_told_in_one_line_and_the_others_stay(tmp_path, monkeypatch, caplog, kind):
    name = f"broken_{kind.replace(' ', '_')}"
    folder = broken_pack(tmp_path / name, kind)
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    monkeypatch.setitem(sys.modules, name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[name])
    extension = asyncio.run(sys.modules[name].comfy_entrypoint())
    with caplog.at_level(logging.INFO):
        nodes = asyncio.run(extension.get_node_list())
    assert [it.GET_SCHEMA().node_id for it in nodes] == NODES[2:]
    [record] = [it for it in caplog.records if it.levelno >= logging.INFO and it.name.startswith(name)]
    message = record.getMessage()
    assert record.levelno == logging.ERROR and record.exc_info is None
    assert "\n" not in message and message.count("'cosmos'") == 1
    for said in SAID[kind]:
        assert said in message


def test_all_rooms_open_here():
    from xavi9videos.nodes.extension import ROOMS, open_rooms

    nodes, failed = open_rooms()
    assert failed == {}
    assert set(ROOMS) == {it.parent.name for it in (REPO / "nodes").glob("*/nodes.py")}
    assert [it.GET_SCHEMA().node_id for it in nodes] == NODES


def test_a_real_server_shows_the_rooms_that_work(tmp_path):
    pack = broken_pack(tmp_path / "pack", "schema")
    with ComfyHost(tmp_path / "base", packs=[pack]) as host:
        info = host.object_info()
        log = host.log()
    assert "Xavi9VideoSave" in info and "Xavi9CosmosText2World" not in info
    [line] = [it for it in log.splitlines() if "'cosmos'" in it]
    assert "ERROR" in line and "no such widget" in line and "Update ComfyUI" in line


def test_importing_the_pack_is_cheap_and_the_door_imports_nothing(tmp_path):
    command = [sys.executable, "-c", IMPORTS, host_path(), REPO, ",".join(HEAVY), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{"):])
    assert found["door"] == []
    assert found["ids"] == NODES
    assert [it for it in found["new"] if it.split(".")[0] in HEAVY] == []


def imported(path: Path) -> set[str]:
    """The top packages of the absolute imports of a file, wherever they stand in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {it.name.split(".")[0] for it in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "__import__"):
            # A name that is computed cannot be judged; the pack has one, and it begins with a dot.
            text = ast.unparse(node.args[0]).strip("'\"").removeprefix("f'")
            found |= set() if text.startswith(".") else {text.split(".")[0]}
    return found


@pytest.mark.parametrize("path", sorted((REPO / "nodes").rglob("*.py")), ids=lambda it: str(it.relative_to(REPO)))
def test_only_the_host_room_touches_the_host(path):
    inside = path.is_relative_to(REPO / "nodes" / "host")
    assert inside or not imported(path) & HOST_MODULES


def test_rooms_do_not_import_each_others_insides():
    rooms = {it.parent.name for it in (REPO / "nodes").glob("*/nodes.py")}
    for path in (REPO / "nodes").glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
                room = node.module.split(".")[0]
                doors = {"video.source", "video.look"} if path.parent.name == "studio" else {"video.source"}
                assert room not in rooms - {path.parent.name} or node.module in doors, path


def test_requirements_are_those_of_the_project():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = [it for it in (REPO / "requirements.txt").read_text().splitlines() if it.strip()]
    assert lines == project
    assert not any(re.match("torch", it) for it in lines)


def described(inputs: dict, trail: str) -> dict[str, str | None]:
    """Tooltips of the inputs of one node, those inside the options of a DynamicCombo included."""
    found = {}
    for name, (kind, *options) in ((name, it) for part in inputs.values() for name, it in part.items()):
        given = options[0] if options else {}
        found[f"{trail}.{name}"] = given.get("tooltip")
        if "DYNAMICCOMBO" in str(kind):
            for option in given["options"]:
                found |= described(option["inputs"], f"{trail}.{name}.{option['key']}")
    return found


def test_every_input_and_output_explains_itself_and_every_node_has_a_page(server):
    ours = {name: it for name, it in server.object_info().items() if name.startswith("Xavi9")}
    assert set(ours) == set(NODES)
    for name, info in ours.items():
        shown = {part: it for part, it in info["input"].items() if part != "hidden"}
        tooltips = described(shown, name)
        assert "Xavi9VideoSave.format.mp4-h264.crf" in tooltips or name != "Xavi9VideoSave"
        assert [trail for trail, text in tooltips.items() if not text] == []
        assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])
        assert info["category"].startswith("Xavi9Videos") and info["description"] and info["display_name"]
        page = REPO / "web" / "docs" / f"{name}.md"
        assert page.is_file() and len(page.read_text()) > 200
