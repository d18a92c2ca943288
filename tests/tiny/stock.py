"""Stock diffusers on the weights of a tiny single file: the oracle of our own loading and sampling."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny import configs, svd, svd_names
from tiny.names import to_diffusers


def dequantized(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Plain float32 tensors; an FP8 weight is its value times its scale."""
    plain = {}
    for key, value in tensors.items():
        if not key.endswith(("weight_scale", "input_scale")):
            scale = tensors.get(key + "_scale")
            plain[key] = value.float() if scale is None else value.float() * scale
    return plain


def components(checkpoint: Path, version: str = "2.0") -> dict[str, torch.nn.Module]:
    """transformer, connectors, vae, audio_vae and vocoder of stock diffusers, float32."""
    import diffusers
    from diffusers.pipelines import ltx2

    described = configs.diffusers_config(version)
    parts = {name: {} for name in described}
    for key, value in dequantized(load_file(checkpoint)).items():
        if place := to_diffusers(key):
            parts[place[0]][place[1]] = value
    made = {}
    for name, config in described.items():
        kind = getattr(diffusers, config["_class_name"], None) or getattr(ltx2, config["_class_name"])
        made[name] = kind.from_config(config).eval()
        made[name].load_state_dict(parts[name])
    return made


def pipeline(checkpoint: Path, kind: str, scheduler: dict | None = None, version: str = "2.0"):
    """kind: the name of diffusers' pipeline class. scheduler: its config, {} for the distilled one."""
    import diffusers

    made = diffusers.FlowMatchEulerDiscreteScheduler(**(configs.SCHEDULER if scheduler is None else scheduler))
    pipe = getattr(diffusers, kind)(
        scheduler=made, text_encoder=None, tokenizer=None, **components(checkpoint, version))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def svd_components(checkpoint: Path) -> dict[str, torch.nn.Module]:
    """unet, vae and image_encoder of stock diffusers, float32, from a tiny SVD-XT file in the published layout."""
    import diffusers
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    made = {}
    for name, tensors in svd_names.components(dequantized(load_file(checkpoint))).items():
        config = svd.TINY[name]
        if name == "image_encoder":
            made[name] = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
        else:
            made[name] = getattr(diffusers, config["_class_name"]).from_config(config).eval()
        made[name].load_state_dict(tensors)
        # torch multiplies a strided input another way when the weight wants a gradient, and rounds otherwise.
        made[name].requires_grad_(False)
    return made


def svd_pipeline(checkpoint: Path):
    """Stock StableVideoDiffusionPipeline on svd_components(), with the published schedule."""
    import diffusers
    from transformers import CLIPImageProcessor

    pipe = diffusers.StableVideoDiffusionPipeline(
        scheduler=diffusers.EulerDiscreteScheduler.from_config(svd.SCHEDULER), feature_extractor=CLIPImageProcessor(),
        **svd_components(checkpoint))
    pipe.set_progress_bar_config(disable=True)
    return pipe
