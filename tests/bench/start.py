"""Starts ComfyUI up to --quick-test-for-ci: `start.py COMFYUI BASE` writes a pack's load time to BASE/seconds."""

import runpy
import sys
import time
from pathlib import Path

comfyui, base = sys.argv[1:]
# In place of this script's folder, where the names of our files could hide those of the host.
sys.path[0] = comfyui
sys.argv = [f"{comfyui}/main.py", "--cpu", "--use-pytorch-cross-attention", "--base-directory", base,
            "--database-url", f"sqlite:///{base}/comfyui.db", "--disable-auto-launch", "--quick-test-for-ci"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import nodes  # noqa: E402

load_custom_node = nodes.load_custom_node


async def timed(path, *arguments, **keywords):
    # What ComfyUI's "Import times" measure, which it prints with one decimal only. Its own nodes come this way too.
    began = time.perf_counter()
    loaded = await load_custom_node(path, *arguments, **keywords)
    seconds = time.perf_counter() - began
    if loaded and Path(path).parent == Path(base, "custom_nodes"):
        Path(base, "seconds").write_text(str(seconds))
    return loaded


nodes.load_custom_node = timed
runpy.run_path(sys.argv[0], run_name="__main__")
