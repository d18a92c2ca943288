"""SVD-XT's latents as a VIDEO that is decoded while it is read."""

from collections.abc import Iterator
from fractions import Fraction

import torch

from ..host import memory
from ..video.source import LazyVideo
from .checkpoint import SVD
from .sampling import Shot


def needed_bytes(model: SVD, frames: int, height: int, width: int) -> int:
    """What decoding so many frames of so many pixels together holds beside the weights.

    Live tensors of the published size on the meta device: 8 values for each pixel and channel of the last level.
    """
    return 9 * frames * height * width * model.vae.module.config.block_out_channels[0] * model.dtype.itemsize


def pictures(model: SVD, latents: torch.Tensor, shot: Shot, chunk: int) -> Iterator[torch.Tensor]:
    """All frames in pieces [n, height, width, 3] of 0..1, float32, on its device, cropped to what was asked for.

    latents: as denoise() gives them. chunk: how many frames the temporal decoder sees together. Raises NotEnoughMemory;
    ComfyUI's interrupt passes through.
    """
    module, device = model.vae.module, model.vae.patcher.load_device
    width, height = shot.grid_size
    for piece in latents.split(chunk):
        count = len(piece)
        what = f"Decoding {count} frames of {shot.width}x{shot.height} together (decode_chunk sets how many)"
        memory.load([model.vae], needed_bytes(model, count, height, width), what)
        piece = 1 / module.config.scaling_factor * piece.to(device, model.dtype)
        found = module.decode(piece, num_frames=count).sample[..., : shot.height, : shot.width]
        yield (found.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def video_of(handle, latents: torch.Tensor, shot: Shot, chunk: int) -> LazyVideo:
    """A VIDEO of latents. handle: opens the model, which may have been freed when the frames are asked for."""
    return LazyVideo(
        frames=lambda: pictures(handle.model, latents, shot, chunk),
        sound=lambda: None,
        shape=(shot.frames, shot.height, shot.width),
        rate=Fraction(shot.fps),
    )
