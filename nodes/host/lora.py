"""LoRAs by the host's own patching, whatever a trainer calls the layers."""

from collections.abc import Mapping
from pathlib import Path

import comfy.lora
import comfy.lora_convert

from ..errors import LoRANotUsable
from ..weights import looks_like
from . import layers
from .memory import Part

# Lightricks' trainer, diffusers, DiffSynth (bare) and kohya, which has dots as underscores.
PREFIXES = ("diffusion_model.", "transformer.", "")
KOHYA = "lora_unet_"


def spellings(name: str) -> list[str]:
    return [*(prefix + name for prefix in PREFIXES), KOHYA + name.replace(".", "_")]


def check_shapes(file: str, part: Part, patches: Mapping):
    """Raise LoRANotUsable where a layer has another shape: the host would leave it out and go on."""
    unlike = []
    for key, patch in patches.items():
        name = key.removeprefix("diffusion_model.").removesuffix(".weight")
        layer = part.module.get_submodule(name)
        if getattr(patch, "name", "") == "lora":
            up, down = patch.weights[:2]
            if (len(up), down[0].numel()) != (layer.out_features, layer.in_features):
                unlike.append(name)
    if unlike:
        reason = f"{len(unlike)} of its layers have another shape ({unlike[0]}): it is for another version of the model"
        raise LoRANotUsable(file=file, reason=reason)


def apply(parts: list[tuple[Part, Mapping[str, str]]], loras: tuple[tuple[str, float], ...]):
    """Have these LoRAs, (file, strength) in their order, and no others on the parts; the next load patches the weights.

    With each part come its layers: our name -> the name in published files. Raises ModelFileBroken, and LoRANotUsable
    when a file changes none of them.
    """
    for part, _ in parts:
        part.patcher = part.base.clone() if loras else part.base
    for path, strength in loras:
        tensors = comfy.lora_convert.convert_lora(layers.read(path)[0])
        found = 0
        for part, names in parts:
            targets = {
                spelling: f"diffusion_model.{ours}.weight"
                for ours, published in names.items()
                for name in (published, ours)
                for spelling in spellings(name)
            }
            patches = comfy.lora.load_lora(tensors, targets, log_missing=False)
            check_shapes(Path(path).name, part, patches)
            found += len(part.patcher.add_patches(patches, strength))
        if not found:
            example = next(iter(tensors), "nothing")
            reason = f"none of its layers is one of LTX-2's ({example}). It looks like {looks_like(tensors)}"
            raise LoRANotUsable(file=Path(path).name, reason=reason)
