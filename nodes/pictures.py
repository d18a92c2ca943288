"""One picture out of an IMAGE, checked and made to fit."""

import numpy as np
import torch
from comfy_api.latest import Input
from PIL import Image, ImageOps

from .errors import ImageNotUsable


def check_image(image: Input.Image):
    """Raise ImageNotUsable for an IMAGE that is not one picture of finite values."""
    if not isinstance(image, torch.Tensor) or image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        shape = tuple(getattr(image, "shape", ()))
        raise ImageNotUsable(reason=f"it is no picture of 1, 3 or 4 channels ({type(image).__name__} {shape})")
    if image.shape[0] > 1:
        raise ImageNotUsable(reason=f"it is a batch of {image.shape[0]}")
    if not image.numel():
        raise ImageNotUsable(reason=f"it has no pixels (its shape is {tuple(image.shape)})")
    if not torch.isfinite(image).all():
        raise ImageNotUsable(reason="some of its values are NaN or infinite; the node that made it failed")


def fitted(image: Input.Image, size: tuple[int, int]) -> Image.Image:
    """An IMAGE [1, height, width, 1, 3 or 4], values 0..1, as an RGB picture of `size` (width, height).

    What its shape has too much is cut off evenly at two sides; what is transparent lies on black.
    """
    pixels = (image[0].float().cpu() * 255).round_().clamp_(0, 255).byte().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    # Resized before it is flattened, with the colours weighted by alpha: what is transparent must not bleed.
    picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", size, "black"), picture)
    return picture.convert("RGB")


def extended(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`picture` at the top left of one of `size` (width, height), whose rest repeats its right and lower edges."""
    right, bottom = size[0] - picture.width, size[1] - picture.height
    return Image.fromarray(np.pad(np.asarray(picture), ((0, bottom), (0, right), (0, 0)), mode="edge"))
