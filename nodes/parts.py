"""Files on their way: removed when something fails, and at the next start where a killed server left them."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from .host import paths

log = logging.getLogger(__name__)

# A prefix may hold a line break.
NAME = re.compile(r"\..+-[0-9a-f]{32}\.part", re.DOTALL)


def remove(path: Path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def part_in(folder: Path, stem: str) -> Iterator[Path]:
    """A hidden name in `folder` for a file or a folder, which is gone at the end if it is still there."""
    part = folder / f".{stem}-{uuid4().hex}.part"
    with noted(part):
        try:
            yield part
        finally:
            remove(part)


@contextmanager
def noted(part: Path):
    """While the block runs, a line in our user folder names the part, locked, so that no other server sweeps it."""
    try:
        line = paths.own_folder("parts") / uuid4().hex
        lock = FileLock(f"{line}.lock")
        lock.acquire()
        line.write_bytes(os.fsencode(part))
    except OSError as error:
        # The video is worth more than a clean folder after a crash.
        log.warning("%s cannot be noted, and would stay if the server were killed: %s", part, error)
        yield
        return
    try:
        yield
    finally:
        line.unlink(missing_ok=True)
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def sweep():
    """Remove what servers that no longer run have left on the way into the host's output and temp folders."""
    try:
        lines = [it for it in paths.own_folder("parts").iterdir() if it.is_file() and not it.suffix]
    except OSError as error:
        log.warning("What a killed server may have left is not looked for: %s", error)
        return
    for line in lines:
        lock = FileLock(f"{line}.lock")
        try:
            with lock.acquire(timeout=0):
                sweep_one(Path(os.fsdecode(line.read_bytes())))
                line.unlink()
            Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            continue
        # A line that is not ours may hold no path at all, or one that leads in a circle.
        except (OSError, ValueError, RuntimeError) as error:
            log.warning("%s cannot be looked after: %s", line, error)


def sweep_one(part: Path):
    if NAME.fullmatch(part.name) and paths.inside(part) and part.exists():
        remove(part)
        log.info("Removed %s, which a server that was killed had left", part)
