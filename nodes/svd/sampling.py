"""Denoising SVD-XT with diffusers' own pipeline, on components that the host loads."""

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from functools import cache

import PIL.Image
import torch

from ..checks import check_finite
from ..host import memory
from ..pictures import extended, fitted
from .attention import prepared
from .checkpoint import SCHEDULE, SVD

GRID = 8  # pixels of one latent in each direction


@dataclass
class Shot:
    """What was asked for. image: the host's IMAGE of one picture, of which `picture` is kept; width, height in pixels.

    guidance: that of the first and of the last frame, between which it changes evenly; 1 is none.
    """

    image: InitVar[torch.Tensor]
    width: int
    height: int
    frames: int
    fps: int
    motion_bucket_id: int
    noise_aug_strength: float
    guidance: tuple[float, float]
    picture: PIL.Image.Image = field(init=False)

    def __post_init__(self, image: torch.Tensor):
        # At the size of the grid: what decoding cuts off again repeats its edge.
        self.picture = extended(fitted(image, (self.width, self.height)), self.grid_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """width, height rounded up to what the model makes."""
        width, height = (-(-side // GRID) * GRID for side in (self.width, self.height))
        return width, height

    @property
    def guided(self) -> bool:
        """Whether any frame has guidance: then the video without the image is computed beside the other."""
        return max(self.guidance[: self.frames]) > 1


@cache
def classes() -> tuple[type, type]:
    """diffusers' pipeline, which has the host load each component before it is used, and its scheduler."""
    from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline

    class OnHost(StableVideoDiffusionPipeline):
        """load(name) is called before the component of that name computes."""

        @property
        def _execution_device(self):
            return self.device_of_host

        @property
        def do_classifier_free_guidance(self):
            # The stock one asks the last frame at first, and all of them later.
            return self.guided

        def _encode_image(self, *args):
            self.load("image_encoder")
            return super()._encode_image(*args)

        def _encode_vae_image(self, *args, **inputs):
            self.load("vae")
            return super()._encode_vae_image(*args, **inputs)

        def prepare_latents(self, *args):
            self.load("unet")
            return super().prepare_latents(*args)

    class KeepsClean(EulerDiscreteScheduler):
        """clean: what the last step took the picture to be, without noise."""

        def step(self, *args, **inputs):
            found = super().step(*args, **inputs)
            self.clean = found.pred_original_sample
            return found

    return OnHost, KeepsClean


def activation_bytes(model: SVD, shot: Shot) -> dict[str, int]:
    """The most that each component holds beside its weights, in bytes, while it computes.

    Live tensors of the published sizes on the meta device: 29 values for each latent and channel of the U-Net's first
    level, 5 for each pixel and channel of the encoder's.
    """
    width, height = shot.grid_size
    latents = (2 if shot.guided else 1) * shot.frames * width * height // GRID**2
    return {
        "unet": 30 * latents * model.unet.module.config.block_out_channels[0] * model.dtype.itemsize,
        "vae": 6 * width * height * model.vae.module.config.block_out_channels[0] * torch.float32.itemsize,
        # A few megabytes for one picture of 224x224.
        "image_encoder": 10**8,
    }


def denoise(model: SVD, shot: Shot, steps: int, seed: int, step: Callable[[int, torch.Tensor], None]) -> torch.Tensor:
    """Latents [frames, 4, h, w] of a video, scaled, on the CPU.

    step(index, clean) is called after each step with the clean latents [1, 4, h, w] of the frame in the middle. Raises
    NotEnoughMemory or NotFinite; ComfyUI's interrupt passes through.
    """
    from transformers import CLIPImageProcessor

    pipeline, scheduler = classes()
    pipe = pipeline(
        vae=model.vae.module, image_encoder=model.image_encoder.module, unet=model.unet.module,
        scheduler=scheduler(**SCHEDULE), feature_extractor=CLIPImageProcessor(),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.device_of_host, pipe.guided = model.unet.patcher.load_device, shot.guided
    needed = activation_bytes(model, shot)
    what = f"SVD-XT at {shot.width}x{shot.height}, {shot.frames} frames"
    pipe.load = lambda name: memory.load([getattr(model, name)], needed[name], what)

    def after(pipe, index, timestep, found):
        step(index, pipe.scheduler.clean[:, shot.frames // 2])
        return {}

    width, height = shot.grid_size
    first, last = shot.guidance
    with prepared(model.unet.module):
        made = pipe(
            shot.picture, width=width, height=height, num_frames=shot.frames, num_inference_steps=steps,
            min_guidance_scale=first, max_guidance_scale=last, fps=shot.fps,
            motion_bucket_id=shot.motion_bucket_id, noise_aug_strength=shot.noise_aug_strength,
            generator=torch.Generator("cpu").manual_seed(seed), output_type="latent", callback_on_step_end=after,
        ).frames  # fmt: skip
    check_finite(made, "the latents")
    return made[0].cpu()


def latents(model: SVD, shot: Shot, steps: int, seed: int, step: Callable[[int, torch.Tensor], None]) -> torch.Tensor:
    """The same, or what the model made last where nothing is different: then only the decoding is."""
    asked = (shot, steps, seed)
    if not model.made or model.made[0] != asked:
        model.made = (asked, denoise(model, *asked, step))
    return model.made[1]
