"""What the pack costs everyone who has it, whether they use it or not."""

import subprocess
import tempfile
from pathlib import Path

from bench.row import Row, compared
from comfy_host import clean_environment
from setup_host import HOSTS, PYTHON, REPO, host_path

# What the start-up line of VideoHelperSuite shows.
PEER_SECONDS = 0.2


def import_time() -> Row:
    """Seconds of the start-up line "Import times for custom nodes"."""
    environment = {**clean_environment(), "PYTHONPYCACHEPREFIX": str(HOSTS / "pycache")}
    # A user's second start finds compiled bytecode, and so do all of these but the first.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as base:
            packs = Path(base, "custom_nodes")
            packs.mkdir()
            (packs / "xavi9videos").symlink_to(REPO)
            subprocess.run([PYTHON, Path(__file__).with_name("start.py"), host_path(), base], check=True,
                           env=environment, cwd=base, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds.append(float(Path(base, "seconds").read_text()))
    return compared("import_time", seconds, [PEER_SECONDS] * len(seconds), "s", "<=", 0.75)
