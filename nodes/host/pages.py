"""The page cache of weight files: on unified memory, what lies on the GPU and in the cache counts twice."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def model_files(path: str) -> list[Path]:
    """A file itself; of a folder the weights and descriptions in it, links followed."""
    if not Path(path).is_dir():
        return [Path(path)]
    found = (Path(place, name) for place, _, names in os.walk(path, followlinks=True) for name in names)
    return sorted(it for it in found if it.suffix in (".safetensors", ".json"))


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
