"""Checks every file that git knows or could add, by the linters of their kinds and the registry's own validation."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import playwright

REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NODE = Path(playwright.__file__).parent / "driver" / "node"
log = logging.getLogger(__name__)


def files(*patterns: str) -> list[Path]:
    """The files of these git patterns, tracked or not yet, without the ignored ones."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
                            cwd=REPO, check=True, capture_output=True, text=True)
    return [path for name in listed.stdout.split("\0") if name and (path := REPO / name).is_file()]


def unique(pairs: list[tuple[str, object]]) -> dict:
    """An object of json.loads. Raises ValueError for a repeated key, which JSON readers silently drop."""
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"repeated keys: {', '.join(repeated)}")
    return dict(pairs)


def complaints(program: str, *arguments: str | Path) -> list[str]:
    """What a program of the virtual environment has to say, run in the repository, if it fails."""
    done = subprocess.run([BIN / program, *arguments], cwd=REPO, capture_output=True, text=True)
    return [done.stdout + done.stderr] if done.returncode else []


def ruff() -> list[str]:
    return complaints("ruff", "check", "--quiet", ".")


def shell() -> list[str]:
    return complaints("shellcheck", *(path for path in files() if path.read_bytes().startswith(b"#!/usr/bin/env bash")))


def docker() -> list[str]:
    return [*complaints("hadolint", "docker/Dockerfile"),
            *complaints("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")]


def github() -> list[str]:
    return complaints("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files(".github/workflows"))


def json_files() -> list[str]:
    problems = []
    for path in files("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
        except ValueError as error:
            problems.append(f"{path.relative_to(REPO)}: {error}")
    return problems


def javascript() -> list[str]:
    problems = []
    for path in files("*.js", "*.mjs"):
        done = subprocess.run([NODE, "--check", path], capture_output=True, text=True)
        if done.returncode:
            problems.append(done.stderr)
    return problems


def registry() -> list[str]:
    # comfy-cli writes its telemetry choice under HOME: not into the developer's.
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run([BIN / "comfy", "--skip-prompt", "--no-enable-telemetry", "node", "validate"], cwd=REPO,
                              env={**os.environ, "HOME": home}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
    # Its warnings leave the exit status at 0.
    return [done.stdout] if done.returncode or "warning" in done.stdout.lower() else []


CHECKS = (ruff, json_files, javascript, shell, docker, github, registry)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    problems = [problem for check in CHECKS for problem in check()]
    for problem in problems:
        log.error("%s", problem.strip())
    if not problems:
        log.info("%s: all good", ", ".join(check.__name__ for check in CHECKS))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
