"""Files on their way: removed when something fails, and at the next start where a killed server left them."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from .host import paths

log = logging.getLogger(__name__)

NAME = re.compile(r"\..+-[0-9a-f]{32}\.part")


def remove(path: Path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def part_in(folder: Path, stem: str) -> Iterator[Path]:
    """A hidden name in `folder` for a file or a folder, which is gone at the end if it is still there.

    While the block runs, a line in our user folder says so, locked by this server, so that no other takes it for left.
    """
    part = folder / f".{stem}-{uuid4().hex}.part"
    line = paths.own_folder("parts") / uuid4().hex
    lock = FileLock(f"{line}.lock")
    with lock:
        line.write_text(str(part))
        try:
            yield part
        finally:
            remove(part)
            line.unlink()
            Path(lock.lock_file).unlink(missing_ok=True)


def sweep():
    """Remove what servers that no longer run have left on the way into the host's output and temp folders."""
    for line in [it for it in paths.own_folder("parts").iterdir() if not it.suffix]:
        lock = FileLock(f"{line}.lock")
        try:
            with lock.acquire(timeout=0):
                part = Path(line.read_text())
                if NAME.fullmatch(part.name) and paths.inside(part) and part.exists():
                    remove(part)
                    log.info("Removed %s, which a server that was killed had left", part)
                line.unlink()
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            continue
        except OSError as error:
            log.warning("%s cannot be looked after: %s", line, error)
