"""`make matrix`: the tests on every known ComfyUI, with the oldest and with the newest libraries that we allow.

Settings (environment): CELLS = the cells to run, by words of their names ("0.24.1", "oldest 0.27.0-newest");
MATRIX_TESTS = the tests, as pytest takes them, else those in which ComfyUI and these libraries have the largest part
("tests/unit tests/host" takes hours). A cell is a virtual environment in .host/matrix that lies over .venv: it
has what differs, and finds all else there. .venv stays as it is.
"""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from setup_host import CONSTRAINTS, HOSTS, KNOWN_HOSTS, PYTHON, REPO, VENV, SetupError, fetch_comfyui, pip, run

MATRIX = HOSTS / "matrix"
TESTS = ("tests/unit/test_ltx2_text.py tests/unit/test_ltx2_sampling.py tests/host/test_rooms.py "
         "tests/host/test_ltx2.py tests/host/test_svd.py")
# What a cell has in place of .venv's, by the beginnings of their lines in constraints.txt.
REPLACED = ("diffusers", "transformers", "huggingface")
RANGES = [it for it in (REPO / "requirements.txt").read_text().splitlines() if it.startswith(REPLACED)]
LIBRARIES = {
    # Of ">=4.57,<6" the last of 4.57.
    "oldest": [f"{it.partition(',')[0].replace('>=', '~=')}.0" for it in RANGES],
    "newest": RANGES,
}
CELLS = {f"{comfyui}-{libraries}": (release, libraries)
         for release, (comfyui, _) in reversed(KNOWN_HOSTS.items()) for libraries in LIBRARIES}
ROW = "{:<15} {:<9} {:<10} {:<13} {:>6} {:>6} {:>7}  {}"
HEAD = ("cell", "ComfyUI", "diffusers", "transformers", "passed", "failed", "seconds", "output")
log = logging.getLogger(__name__)


def chosen(words: str) -> list[str]:
    """The cells whose names have one of these words, all for none. Raises SetupError for a word that is in no name."""
    for word in words.split():
        if not any(word in name for name in CELLS):
            raise SetupError(f"CELLS={words}: no cell has {word} in its name. The cells are {', '.join(CELLS)}.")
    return [name for name in CELLS if not words or any(word in name for word in words.split())]


def lay_over(home: Path) -> Path:
    """Makes a virtual environment at home that finds in .venv what it has not itself. Returns its interpreter."""
    [packages] = VENV.glob("lib/*/site-packages")
    run(PYTHON, "-m", "venv", "--without-pip", home)
    (home / packages.relative_to(VENV) / "venv.pth").write_text(f"{packages}\n")
    return home / "bin" / "python"


def make(name: str) -> Path:
    """Brings a cell to its ComfyUI's requirements and its libraries. Returns its interpreter."""
    release, libraries = CELLS[name]
    log.info("Environment of %s", name)
    fetch_comfyui(release)
    python = lay_over(MATRIX / name)
    constraints = MATRIX / "constraints.txt"
    lines = CONSTRAINTS.read_text().splitlines()
    constraints.write_text("\n".join(line for line in lines if not line.startswith(REPLACED)))
    # In two steps, because --upgrade takes the newest of all that it is given.
    pip("install", "--upgrade", *LIBRARIES[libraries], "-c", constraints, python=python)
    pip("install", "-r", HOSTS / release / "ComfyUI" / "requirements.txt", "-r", REPO / "requirements.txt",
        *LIBRARIES[libraries], "-c", constraints, python=python)
    return python


def row(name: str, report: Path, output: str) -> str:
    """A cell's line in the table, from pytest's report; the versions in it are those of the tests' own server."""
    if not report.is_file():
        return ROW.format(name, *"------", f"no test ran: {output}")
    suite = ElementTree.parse(report).find("testsuite")
    count = {it: int(suite.get(it)) for it in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    found = {it.get("name"): it.get("value") for it in suite.iterfind("properties/property")}
    return ROW.format(name, *(found.get(it, "-") for it in ("ComfyUI", "diffusers", "transformers")),
                      count["tests"] - failed - count["skipped"], failed, f"{float(suite.get('time')):.0f}", output)


def tested(name: str, python: Path, tests: str) -> tuple[bool, str]:
    """Runs the tests in a cell. Returns whether they all passed, and its line in the table."""
    output, report = MATRIX / f"{name}.log", MATRIX / f"{name}.xml"
    log.info("Tests of %s, told in %s ...", name, output.relative_to(REPO))
    report.unlink(missing_ok=True)
    with output.open("wb") as file:
        done = subprocess.run([python, VENV / "bin" / "pytest", *tests.split(), f"--junitxml={report}"], cwd=REPO,
                              env={**os.environ, "HOST": CELLS[name][0], "COMFYUI_PATH": ""},
                              stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    return done.returncode == 0, row(name, report, output.relative_to(REPO) if done.returncode else "")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        pythons = {name: make(name) for name in chosen(os.environ.get("CELLS", ""))}
        tests = os.environ.get("MATRIX_TESTS") or TESTS
        # Two at a time: a cell keeps hardly more than one core busy.
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda it: tested(*it, tests), pythons.items()))
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted. The environments are kept, and the next run begins with the tests.")
    log.info("\n%s", ROW.format(*HEAD))
    for _, line in results:
        log.info("%s", line)
    sys.exit(not all(passed for passed, _ in results))


if __name__ == "__main__":
    main()
