"""Parts of a model, loaded by the host in ways that this machine's memory would never make it choose."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, META = torch.device("cpu"), torch.device("meta")


def distance(one, other):
    return float((one - other).norm() / other.norm())


def load_part_of(part, share):
    """As the host does on a card that has room for so much of it."""
    part.patcher.partially_load(CPU, extra_memory=int(part.patcher.model_size() * share))


def on_meta(part, share):
    """A dry run: the part on a load device without memory, so that everything left behind shows by its device."""
    part.patcher.load_device = META
    part.patcher.partially_load(META, extra_memory=int(part.patcher.model_size() * share))
    return [
        f"{name}.{key}"
        for name, it in part.module.named_modules()
        for key, value in [*it._parameters.items(), *it._buffers.items()]
        # A host's layer that is not loaded is cast at each call.
        if value is not None and value.device != META and not getattr(it, "comfy_cast_weights", False)
    ]


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors made under it: `now` and at `peak`."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        for storage in (each.untyped_storage() for each in tree_leaves(made) if isinstance(each, torch.Tensor)):
            if id(storage) not in given and id(storage) not in self.storages:
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                self.storages[id(storage)] = weakref.ref(storage, self.gone(id(storage), storage.nbytes()))
        return made

    def gone(self, key: int, size: int):
        def forget(_):
            self.now -= size
            del self.storages[key]

        return forget
