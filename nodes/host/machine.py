"""The device that models run on, and what is installed."""

import platform
from importlib.metadata import PackageNotFoundError, version

import comfyui_version
import psutil
import torch
from comfy import model_management

from . import memory

PACKAGES = {
    "diffusers": "diffusers",
    "transformers": "transformers",
    "av": "PyAV",
    "comfyui-frontend-package": "frontend",
}


def facts() -> dict:
    """device ("cuda:0"), name, unified (whether its memory is the system's), total and free bytes, really free.

    On unified memory and on the CPU that is what the system has available; CUDA's own figure leaves out what the page
    cache would give back.
    """
    device = model_management.get_torch_device()
    unified = memory.on_unified_memory(device)
    shared = unified or device.type == "cpu"
    whole = psutil.virtual_memory().total if shared else model_management.get_total_memory(device)
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "unified": unified,
        "total": int(whole),
        "free": memory.free_bytes(device),
    }


def versions() -> dict[str, str]:
    """Of ComfyUI, Python, torch and what the pack needs; one that is not installed is left out."""
    found = {"ComfyUI": comfyui_version.__version__, "Python": platform.python_version(), "torch": torch.__version__}
    for package, name in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found
