"""The Cosmos room against the tools of a shell."""

import asyncio
import multiprocessing
import shlex
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import conftest  # noqa: F401  the pack as xavi9videos
from bench.row import Row, compared, paired
from nim.loopback import LoopbackNIM
from xavi9videos.nodes.cosmos.client import Address, Client, run_apart
from xavi9videos.nodes.cosmos.families import Job
from xavi9videos.nodes.settings import CosmosSettings

# Whole quanta of base64, because /raw has no padding: both files then have this size.
SIZE = 64_000_002
MEMORY_MB = 32
# Small, and the same each time: the NIM draws it once, and its `free` box makes up the rest of SIZE.
JOB = Job("A bench by the sea", "", "16:9", "256", 25, 24, 10, 5.0, 0, False)


def serve(pipe):
    with LoopbackNIM() as nim:
        nim.payload_bytes = SIZE
        pipe.send(nim.url)
        pipe.recv()


def resident_mb(field: str) -> float:
    """VmRSS, or since /proc/self/clear_refs its peak VmHWM."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024 / 1e6


def receive(url: str, path: Path) -> tuple[float, float]:
    """One video as the node gets it, from the first question to the finished file: seconds, MB grown meanwhile."""
    path.unlink(missing_ok=True)
    client = Client(Address(url, "COSMOS_NIM_URL", "cosmos3"), CosmosSettings(_env_file=None, cosmos_family="auto"))
    Path("/proc/self/clear_refs").write_text("5")
    idle, began = resident_mb("VmRSS"), time.perf_counter()
    asyncio.run(run_apart(client.generate(JOB, path), lambda: None))
    return time.perf_counter() - began, resident_mb("VmHWM") - idle


def cosmos_reply() -> Row:
    """Seconds for a video of SIZE, from the question to the file; the peer fetches and decodes its base64 alone."""
    spawn = multiprocessing.get_context("spawn")
    pipe, far_end = spawn.Pipe()
    nim = spawn.Process(target=serve, args=(far_end,), daemon=True)
    nim.start()
    url = pipe.recv()
    grown = []
    with ProcessPoolExecutor(1, mp_context=spawn) as apart, tempfile.TemporaryDirectory() as folder:
        saved, plain = Path(folder, "ours.mp4"), Path(folder, "peer.mp4")
        command = (f"curl --silent --noproxy '*' '{url}/raw?bytes={SIZE // 3 * 4}' "
                   f"| base64 -d > {shlex.quote(str(plain))}")

        def ours() -> float:
            seconds, megabytes = apart.submit(receive, url, saved).result()
            grown.append(megabytes)
            return seconds

        def peer() -> float:
            plain.unlink(missing_ok=True)
            began = time.perf_counter()
            subprocess.run(command, shell=True, check=True)
            return time.perf_counter() - began

        row = compared("cosmos_reply", *paired(7, ours, peer), "s", "<=", 1.3)
        assert saved.stat().st_size == plain.stat().st_size == SIZE
    pipe.send("enough")
    nim.join()
    # The largest is the first, which also loads the HTTP library.
    row.more["memory_mb"] = max(grown)
    row.holds &= max(grown) <= MEMORY_MB
    return row
