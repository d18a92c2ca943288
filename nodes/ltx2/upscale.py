"""The official second stage: latents of twice the size, then three refining steps."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import WrongModelFile
from ..host import layers, memory
from ..host.memory import Part
from ..weights import check, looks_like, shapes
from .checkpoint import LTX2
from .sampling import denoise, denormalized, normalized, refining
from .shot import Shot
from .text_encoder import Conditioning

WANTED = "the spatial x2 upscaler of LTX-2"
BLOCKS = 4


@torch.inference_mode()
def open_upscaler(path: str) -> Part:
    """ltx-2-spatial-upscaler-x2-1.0.safetensors or LTX-2.3's, whose names are diffusers' own. Raises WrongModelFile."""
    from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel

    tensors, metadata = layers.read(path)
    file = Path(path).name
    try:
        given = json.loads(metadata.get("config") or "{}")
        first = tensors["initial_conv.weight"]
        scale = given.get("spatial_scale", 2.0)
        if given.get("temporal_upsample") or not given.get("spatial_upsample", True) or scale != 2:
            raise ValueError("it does not double width and height")
        with torch.device("meta"):
            module = LTX2LatentUpsamplerModel(
                in_channels=first.shape[1],
                mid_channels=first.shape[0],
                num_blocks_per_stage=given.get("num_blocks_per_stage", BLOCKS),
                dims=first.ndim - 2,
                rational_spatial_scale=scale,
                use_rational_resampler=given.get("rational_resampler", any("blur_down" in it for it in tensors)),
            )
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
        raise WrongModelFile(file=file, wanted=WANTED, reason=reason, found=looks_like(tensors)) from error
    check(file, WANTED, shapes(module.state_dict()), shapes(tensors), looks_like(tensors))
    return Part(layers.fill(module, tensors, layers.compute_dtype(first.dtype)), path)


def version_of(path: str) -> str:
    """The version that an upscaler belongs to: only LTX-2's blurs before it reduces (diffusers' conversion script)."""
    return "2.0" if any("blur_down" in it for it in layers.read(path)[0]) else "2.3"


def upscale(
    model: LTX2,
    conditioning: Conditioning,
    shot: Shot,
    latents: tuple[torch.Tensor, torch.Tensor],
    path: str,
    seed: int,
    step: Callable[[int, torch.Tensor], None],
) -> tuple[torch.Tensor, torch.Tensor, Shot]:
    """The refined latents (video, audio), normalized, and what they show. shot: what the latents given show.

    An odd half of the grid that the first stage rounded up to is cut off. Raises what denoise() raises.
    """
    video, audio = latents
    upscaler = open_upscaler(path)
    vae, dtype, device = model.vae.module, upscaler.module.compute_dtype, upscaler.patcher.load_device
    # The widest stage holds the doubled picture, four times as many latents, in the model's channels: four copies.
    activations = 16 * video[0, 0].numel() * upscaler.module.config.mid_channels * dtype.itemsize
    try:
        memory.load([upscaler], activations, "The latent upscaler")
        doubled = upscaler.module(denormalized(vae, video.to(device, dtype)))
        doubled = normalized(vae, doubled).float()
    finally:
        memory.unload(upscaler)
    larger = shot.doubled
    _, height, width = larger.latent_size
    doubled = doubled[..., :height, :width]
    made = denoise(model, conditioning, larger, refining(model.version), seed, step, (doubled, audio))
    return *made, larger
