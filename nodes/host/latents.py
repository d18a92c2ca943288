"""ComfyUI's own layout of LTX-2 latents, and the live preview of any."""

from collections.abc import Callable
from types import SimpleNamespace

import comfy.latent_formats
import latent_preview
import torch
from comfy import model_management
from comfy.nested_tensor import NestedTensor

from ..errors import LatentsNotUsable


def joined(video: torch.Tensor, audio: torch.Tensor) -> NestedTensor:
    """video [1, 128, frames, h, w] and audio [1, 8, length, 16], both normalized, as one value of the host."""
    return NestedTensor((video, audio))


def parted(samples: torch.Tensor | NestedTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of joined(). Raises LatentsNotUsable for anything else, and for a batch."""
    if not samples.is_nested or len(samples.tensors) != 2:
        raise LatentsNotUsable(reason="they are not picture and sound of LTX-2 together")
    video, audio = samples.unbind()
    if video.ndim != 5 or audio.ndim != 4 or video.shape[0] != 1 or audio.shape[0] != 1:
        raise LatentsNotUsable(reason=f"their shapes are {tuple(video.shape)} and {tuple(audio.shape)}")
    return video, audio


def step_callback(steps: int, latents: str) -> Callable[[int, torch.Tensor], None]:
    """For the node that is executing: give it the step that is done and the clean latents so far.

    It moves the bar and, where the host was told to, shows a preview of the first frame of [1, channels, frames, h, w],
    or of [1, channels, h, w]. latents: their class in comfy.latent_formats.
    """
    device = model_management.get_torch_device()
    model = SimpleNamespace(
        load_device=device, model=SimpleNamespace(latent_format=getattr(comfy.latent_formats, latents)())
    )
    show = latent_preview.prepare_callback(model, steps)
    return lambda step, clean: show(step, clean, None, steps)
