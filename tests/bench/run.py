"""Measures the rows of bench.json, all of them or those named: `python tests/bench/run.py cosmos_reply video_save`."""

import json
import logging
import os
import platform
import sys
import time
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from setup_host import REPO, host_path

# name: the module of the function that measures it. Imported when needed, because a row's child processes come by here.
ROWS = {
    "import_time": "bench.host",
    "cosmos_reply": "bench.cosmos",
    "video_save": "bench.video",
    "video_passthrough": "bench.video",
    "video_save_memory": "bench.video",
    "ltx2_step_640": "bench.ltx2",
    "ltx2_step_6144": "bench.ltx2",
    "ltx23_step_640": "bench.ltx2",
    "ltx23_step_6144": "bench.ltx2",
    "ltx2_text_encode": "bench.ltx2",
    "ltx2_load": "bench.ltx2_load",
    "ltx2_load_memory": "bench.ltx2_load",
    "ltx2_overhead": "bench.ltx2_run",
    "svd_step": "bench.svd",
    "svd_overhead": "bench.svd",
}
TABLE = "{:20} {:>10} {:>10} {:9} {:>7} {:>8}  {}"
log = logging.getLogger("bench")


def machine() -> dict:
    cpu = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
           if line.startswith("model name")]
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "comfyui": (host_path() / "comfyui_version.py").read_text().split('"')[-2],
        **{name: version(name) for name in ("torch", "av")},
    }


def main():
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    names = sys.argv[1:] or list(ROWS)
    if unknown := set(names) - set(ROWS):
        sys.exit(f"There is no row {', '.join(sorted(unknown))}; the rows are {', '.join(ROWS)}.")
    rows, found = [], []
    for name in names:
        began = time.monotonic()
        row = getattr(import_module(ROWS[name]), name)()
        log.info("%s measured in %.0f s: %.3f, to be %s %s",
                 name, time.monotonic() - began, row.ratio, row.sense, row.budget)
        rows.append(row)
        entry = asdict(row)
        del entry["sense"]
        found.append(entry | entry.pop("more"))
        # After each row, or a later one that fails would take them all along.
        (REPO / "bench.json").write_text(json.dumps({"machine": machine(), "rows": found}, indent=2) + "\n")
    log.info("\n" + TABLE.format("row", "ours", "peer", "", "ratio", "budget", ""))
    for row in rows:
        peer = "-" if row.peer is None else f"{row.peer:.3f}"
        verdict = "holds" if row.holds else "DOES NOT HOLD"
        more = "".join(f", {name} {value:.1f}" for name, value in row.more.items())
        log.info(TABLE.format(row.name, f"{row.ours:.3f}", peer, row.unit, f"{row.ratio:.3f}",
                              f"{row.sense} {row.budget}", verdict + more))


if __name__ == "__main__":
    main()
