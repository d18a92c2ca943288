"""The loaded local model: who owns it, and how the host loads, offloads and frees its parts."""

import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence

import comfy.model_patcher
import psutil
import torch
from comfy import model_management
from comfy.patcher_extension import CallbacksMP

from ..errors import NotEnoughMemory
from ..settings import local
from . import pages
from .layers import Mapped, place_strays

log = logging.getLogger(__name__)

GB = 1e9
SECONDS_TO_UNLOAD = 1


class Holder(Mapped, torch.nn.Module):
    """What the host sees of a module: it sets `device`, which diffusers and transformers forbid on their own."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.diffusion_model = module
        self.device = model_management.unet_offload_device()
        # The host adds to the size of an offloaded layer what it takes when it is cast.
        self.manual_cast_dtype = module.compute_dtype


class Part:
    """One heavy module, the file it comes from, and the host's ModelPatcher for it.

    `patcher` is `base`, or a clone of it with LoRAs.
    """

    def __init__(self, module: torch.nn.Module, path: str):
        self.module, self.path = module, path
        # The host's log names the class.
        holder = type(type(module).__name__, (Holder,), {})(module)
        # Looked up at each call: the host puts its dynamic patcher there on NVIDIA.
        self.base = self.patcher = comfy.model_patcher.CoreModelPatcher(
            holder, model_management.get_torch_device(), model_management.unet_offload_device()
        )
        self.base.add_callback(CallbacksMP.ON_LOAD, lambda patcher, device, *_: place_strays(patcher.model, device))
        self.base.add_callback(CallbacksMP.ON_DETACH, lambda *_: drop_unused_later())

    @property
    def entries(self) -> list[int]:
        """Where the host's list of loaded models has it, the last place first."""
        models = [loaded.model for loaded in model_management.current_loaded_models]
        places = [index for index, it in enumerate(models) if it is not None and it.model is self.base.model]
        return places[::-1]


def on_unified_memory(device: torch.device) -> bool:
    """True where the GPU's memory is the system's, as on a DGX Spark: CUDA's own figure misleads there."""
    return device.type == "cuda" and bool(torch.cuda.get_device_properties(device).is_integrated)


def free_bytes(device: torch.device) -> int:
    if device.type == "cpu" or on_unified_memory(device):
        return psutil.virtual_memory().available
    return int(model_management.get_free_memory(device))


def room(parts: Sequence[Part]) -> int:
    """Bytes left for computing when these parts are loaded and all others have left, whatever is loaded now."""
    device = model_management.get_torch_device()
    free = free_bytes(device)
    if device.type != "cpu":
        # There, loaded weights are memory of the device; on the CPU they are the mapped file.
        loaded = [it.model for it in model_management.current_loaded_models if it.model is not None]
        free += sum(it.loaded_size() for it in loaded)
    return free - sum(part.patcher.model_size() for part in parts)


def load(parts: Sequence[Part], activations: int, what: str):
    """Have the host load `parts`, whole or in part, with `activations` bytes left for computing. Call before each use.

    Other models leave the device as far as needed. Raises NotEnoughMemory before anything is loaded when it cannot
    work: on unified memory weights, activations and reserve must fit; elsewhere the activations, since the host keeps
    weights that do not fit off the device.
    """
    device = model_management.get_torch_device()
    patchers = [part.patcher for part in parts]
    unified = on_unified_memory(device)
    weights = sum(part.patcher.model_size() - part.patcher.loaded_size() for part in parts)
    reserve = local().xavi9_memory_reserve_gb * GB if unified else 0
    needed = activations + reserve + (weights if unified else 0)
    if free_bytes(device) < needed:
        ours = [it for it in model_management.current_loaded_models if it.model in patchers]
        model_management.free_memory(needed, device, keep_loaded=ours)
        gc.collect()
    free = free_bytes(device)
    if free < needed:
        hint = f"{reserve / GB:.0f} GB are kept free by XAVI9_MEMORY_RESERVE_GB" if reserve else "look at nvidia-smi"
        raise NotEnoughMemory(what=what, needed=needed / GB, free=free / GB, hint=hint)
    if not unified and free < weights + activations:
        log.info("%s: %.1f of %.1f GB fit; the host keeps a part off the device.", what, free / GB, weights / GB)
    # The host trusts CUDA's figure, which on unified memory leaves out what the page cache would give back.
    model_management.load_models_gpu(patchers, memory_required=activations, force_full_load=unified)
    if unified and weights:
        pages.forget(file for part in parts for file in pages.model_files(part.path))


def unload(part: Part):
    """Take a part off the device now, and out of the host's list."""
    for index in part.entries:
        model_management.current_loaded_models[index].model_unload()
        model_management.current_loaded_models.pop(index)
    model_management.soft_empty_cache()


def identity(*paths: str) -> tuple:
    """What tells one set of files from another, and a file from its changed self."""
    found = [(str(file), file.stat()) for path in paths for file in pages.model_files(path)]
    return tuple((name, facts.st_size, facts.st_mtime_ns) for name, facts in found)


class Handle:
    """What a loader node hands out: it opens the model when it is asked for, and again if it was freed meanwhile.

    identity: a hashable of the files and options; handles with the same one share the model. build() opens it and
    returns an object with `parts`, a list of Part.
    """

    def __init__(self, identity: tuple, build: Callable):
        self.identity, self.build = identity, build
        with _lock:
            _handles.add(self)
        weakref.finalize(self, drop_unused_later)

    @property
    def model(self):
        """The open model. With XAVI9_ONE_LOCAL_MODEL every other one is freed first."""
        with _lock:
            if self.identity not in _models:
                if local().xavi9_one_local_model:
                    for other in list(_models):
                        free(other)
                _models[self.identity] = self.build()
            return _models[self.identity]


_models: dict[tuple, object] = {}
_handles: weakref.WeakSet[Handle] = weakref.WeakSet()
# A finalizer may run in the middle of anything, in its thread.
_lock = threading.RLock()
_timer: threading.Timer | None = None


def free(identity: tuple):
    """Forget a model: its parts leave the device, and with the last reference its files are closed."""
    model = _models.pop(identity, None)
    if model:
        for part in model.parts:
            unload(part)
        # Modules and patchers know each other, so that only the collector frees them.
        del model, part
        gc.collect()
        log.info("Freed %s", os.path.basename(str(identity[0][0])))


def loaded() -> dict[str, int]:
    """The models that are open, by the path of their checkpoint: bytes of them that are on the device now."""
    # Without the lock, which is held for as long as a model is being opened.
    models = list(_models.values())
    return {it.parts[0].path: sum(part.patcher.loaded_size() for part in it.parts) for it in models}


def drop_unused():
    """Close the files of models that no handle asks for and that the host has not loaded.

    That is how "free model and node cache" reaches us: the host unloads the models, then drops the loaders' results.
    """
    with _lock:
        wanted = {handle.identity for handle in _handles}
        unused = [
            it for it, model in _models.items() if it not in wanted and not any(part.entries for part in model.parts)
        ]
        for it in unused:
            del _models[it]
    if unused:
        gc.collect()


def drop_unused_later():
    """The same, when the host is done: while it unloads a model it needs it, or its worker dies with an error."""
    global _timer
    # At the very end a patcher detaches once more, and a thread that starts then never does.
    if sys.is_finalizing():
        return
    with _lock:
        if _timer:
            _timer.cancel()
        _timer = threading.Timer(SECONDS_TO_UNLOAD, drop_unused)
        _timer.daemon = True
        _timer.start()
