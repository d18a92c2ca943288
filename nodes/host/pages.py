"""The page cache of weight files: on unified memory, what lies on the GPU and in the cache counts twice."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def weight_files(path: str) -> list[Path]:
    """A file itself; of a folder the .safetensors in it."""
    return sorted(Path(path).rglob("*.safetensors")) if Path(path).is_dir() else [Path(path)]


def forget(files: Iterable[Path]):
    """Give these files' pages back to the system. They stay mapped: a page that is touched again is read again."""
    names = {os.path.realpath(it) for it in files}
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, _, *name = line.split(maxsplit=5)
        if name and name[0] in names:
            # The kernel keeps pages in its cache for as long as a process has them in its table.
            start, end = (int(it, 16) for it in addresses.split("-"))
            LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(mmap.MADV_DONTNEED))
    for name in names:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
