"""Parts of a model, loaded by the host in ways that this machine's memory would never make it choose."""

import torch

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
