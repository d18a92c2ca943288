"""A node pack for tests: Linux seems to have no memory left while a file `no-memory` lies in the input folder."""

from pathlib import Path

import folder_paths
import psutil

real = psutil.virtual_memory


def virtual_memory():
    short = (Path(folder_paths.get_input_directory()) / "no-memory").exists()
    return real()._replace(available=1_000_000) if short else real()


psutil.virtual_memory = virtual_memory
NODE_CLASS_MAPPINGS = {}
