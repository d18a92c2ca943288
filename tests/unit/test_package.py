"""What the registry publishes: the package that comfy-cli makes of every file that git has or could add."""

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from lint import BIN, files
from PIL import Image
from setup_host import REPO

PUBLISHED = {"__init__.py", "nodes", "web", "locales", "workflows", "subgraphs", "docker", "docs", "assets",
             "requirements.txt", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
NEVER = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx)$|(^|/)\.env$")
LIMIT = 2_000_000
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))


def run(folder: Path, *command: str | Path, **options) -> subprocess.CompletedProcess:
    """A command of git or comfy-cli in a folder, with a HOME of its own."""
    # A git hook's GIT_DIR would lead git from the copy to the real repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, cwd=folder, env={**env, "HOME": str(folder.parent)}, capture_output=True, text=True,
                          **options)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A repository of its own with our files, and node.zip in it."""
    folder = tmp_path_factory.mktemp("published") / "checkout"
    for path in files():
        copy = folder / path.relative_to(REPO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    run(folder, "git", "init", "--quiet", check=True)
    run(folder, "git", "add", "--force", ".", check=True)
    run(folder, BIN / "comfy", "--skip-prompt", "--no-enable-telemetry", "node", "pack", check=True)
    return folder


@pytest.fixture(scope="module")
def names(checkout) -> set[str]:
    with zipfile.ZipFile(checkout / "node.zip") as package:
        return set(package.namelist())


def test_it_is_all_of_what_users_need_and_nothing_else(names):
    ours = {path.relative_to(REPO).as_posix() for path in files()}
    assert names == {name for name in ours if name.split("/")[0] in PUBLISHED}
    assert {name.split("/")[0] for name in names} == PUBLISHED


def test_no_weights_no_settings_and_nothing_that_git_ignores(checkout, names):
    assert [name for name in names if NEVER.search(name)] == []
    ignored = run(checkout, "git", "check-ignore", "--no-index", "--stdin", input="\n".join(names))
    assert (ignored.returncode, ignored.stdout) == (1, "")  # 1: none of them


def test_it_is_small(checkout):
    assert (checkout / "node.zip").stat().st_size <= LIMIT


def test_the_readme_links_to_nothing_that_is_left_out(names):
    links = re.findall(r"\]\(([^)#]+)", (REPO / "README.md").read_text(encoding="utf-8"))
    inside = {link for link in links if "://" not in link}
    assert inside and inside <= names


def test_a_real_server_has_the_same_nodes_from_it(checkout, tmp_path):
    from xavi9videos.nodes.extension import open_rooms

    with zipfile.ZipFile(checkout / "node.zip") as package:
        package.extractall(tmp_path / "xavi9videos")
    with ComfyHost(tmp_path / "base", packs=[tmp_path / "xavi9videos"]) as host:
        found = {name for name in host.object_info() if name.startswith("Xavi9")}
        templates = host.http.get("/workflow_templates").json()
        log = host.log()
    assert found == {node.GET_SCHEMA().node_id for node in open_rooms()[0]}, log
    assert set(templates["xavi9videos"]) == {path.stem for path in (REPO / "workflows").glob("*.json")}


def test_the_registry_finds_its_pictures_in_their_sizes():
    raw = PYPROJECT["project"]["urls"]["Repository"].replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
    sizes = {}
    for kind in ("Icon", "Banner"):
        before, path = PYPROJECT["tool"]["comfy"][kind].split(raw)
        assert before == "" and (REPO / path).stat().st_size < 100_000
        with Image.open(REPO / path) as picture:
            sizes[kind] = picture.size
    # Of docs.comfy.org/registry/specifications: a square of at most 400, and 21:9.
    assert sizes["Icon"][0] == sizes["Icon"][1] <= 400
    assert sizes["Banner"][0] * 9 == sizes["Banner"][1] * 21


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## \[(.+)\] - \d{4}-\d\d-\d\d\n\n### ", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == PYPROJECT["project"]["version"]
