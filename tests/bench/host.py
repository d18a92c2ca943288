"""What the pack costs everyone who has it, whether they use it or not."""

import shutil
import subprocess
from pathlib import Path

from bench.row import Row, compared
from comfy_host import clean_environment
from setup_host import HOSTS, PYTHON, REPO, host_path

# What the start-up line of VideoHelperSuite shows.
PEER_SECONDS = 0.2


def import_time() -> Row:
    """Seconds of the start-up line "Import times for custom nodes"."""
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": str(HOSTS / "pycache")}
    # A user's second start finds compiled bytecode, and so do all of these but the first: it is found by a file's full
    # path, which is therefore the same each time.
    base, seconds = HOSTS / "start", []
    for _ in range(5):
        shutil.rmtree(base, ignore_errors=True)
        packs = base / "custom_nodes"
        packs.mkdir(parents=True)
        (packs / "xavi9videos").symlink_to(REPO)
        subprocess.run([PYTHON, Path(__file__).with_name("start.py"), host_path(), base], check=True,
                       env=environment, cwd=base, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(float((base / "seconds").read_text()))
    shutil.rmtree(base)
    return compared("import_time", seconds, [PEER_SECONDS] * len(seconds), "s", "<=", 0.75)
