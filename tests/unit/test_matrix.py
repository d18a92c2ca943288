"""A cell of the matrix has libraries of its own over those of .venv, and its line tells what really ran."""

import json
import os
import subprocess
import sys
import zipfile

import matrix
import pytest
from packaging.requirements import Requirement
from setup_host import REPO, VENV, SetupError, pip

FOUND = """
import importlib.metadata, importlib.util, json, sys
import diffusers
json.dump([diffusers.__version__, importlib.metadata.version("diffusers"), importlib.util.find_spec("torch").origin,
           sys.executable], sys.stdout)
"""
SERVER = """
import sys
from pathlib import Path
from comfy_host import ComfyHost
ComfyHost._wait_until_ready = lambda self: None
with ComfyHost(sys.argv[1], packs=()) as host:
    sys.stdout.write(Path(f"/proc/{host.process.pid}/cmdline").read_text().split(chr(0))[0])
"""
TESTS = """
import pytest

@pytest.fixture(scope="session", autouse=True)
def server(record_testsuite_property):
    record_testsuite_property("diffusers", "0.1.2")

@pytest.fixture
def broken():
    raise OSError

def test_good(): pass
def test_good_too(): pass
def test_bad(): assert False
def test_skipped(): pytest.skip()
def test_error(broken): pass
"""


def wheel(folder):
    """Another diffusers, of one line."""
    path = folder / "diffusers-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        about = "diffusers-0.0.1.dist-info"
        file.writestr("diffusers/__init__.py", "__version__ = '0.0.1'")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: diffusers\nVersion: 0.0.1\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def cell(tmp_path):
    return matrix.lay_over(tmp_path / "cell")


def test_what_a_cell_installs_lies_over_venv_and_changes_nothing_there(cell, tmp_path):
    [packages] = VENV.glob("lib/*/site-packages")
    before = sorted(packages.glob("diffusers*"))
    pip("install", "--no-index", "--no-deps", wheel(tmp_path), python=cell)
    found = json.loads(subprocess.run([cell, "-c", FOUND], check=True, capture_output=True, text=True).stdout)
    assert found == ["0.0.1", "0.0.1", str(packages / "torch" / "__init__.py"), str(cell)]
    assert before == sorted(packages.glob("diffusers*"))


def test_a_server_runs_in_the_interpreter_of_its_cell(cell, tmp_path):
    done = subprocess.run([cell, "-c", SERVER, tmp_path / "base"], check=True, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPO / "tests")})
    assert done.stdout == str(cell)


def test_a_line_has_what_pytest_counted_and_what_the_server_told(tmp_path):
    (tmp_path / "test_all.py").write_text(TESTS)
    subprocess.run([sys.executable, VENV / "bin" / "pytest", "--rootdir", tmp_path, f"--junitxml={tmp_path}/report",
                    tmp_path], stdout=subprocess.DEVNULL)
    assert matrix.row("0.27.0-newest", tmp_path / "report", "log").split() == [
        "0.27.0-newest", "-", "0.1.2", "-", "2", "2", "0", "log"]
    assert "no test ran: log" in matrix.row("0.27.0-newest", tmp_path / "nothing", "log")


@pytest.mark.parametrize(("words", "cells"), [
    ("", list(matrix.CELLS)), ("0.24.1-oldest", ["0.24.1-oldest"]), ("0.27.0", ["0.27.0-oldest", "0.27.0-newest"]),
    ("0.24.1-newest 0.30.0", ["0.24.1-newest", "0.30.0-oldest", "0.30.0-newest"]),
])  # fmt: skip
def test_words_choose_cells(words, cells):
    assert matrix.chosen(words) == cells


def test_a_word_of_no_cell_is_refused():
    with pytest.raises(SetupError, match=r"no cell has latest in its name. The cells are 0\.24\.1-oldest, "):
        matrix.chosen("0.27.0 latest")


def test_the_oldest_libraries_are_of_the_first_minor_release_that_we_allow():
    for oldest, allowed in zip(matrix.LIBRARIES["oldest"], matrix.LIBRARIES["newest"], strict=True):
        [bound] = Requirement(oldest).specifier
        allowed = Requirement(allowed).specifier
        assert bound.operator == "~=" and bound.version.count(".") == 2
        major, minor, _ = map(int, bound.version.split("."))
        assert bound.version in allowed and f"{major}.{minor - 1}.9" not in allowed
