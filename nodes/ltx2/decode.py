"""LTX-2's latents as a VIDEO that is decoded while it is read."""

import logging
from collections.abc import Iterator
from fractions import Fraction

import torch
from comfy_api.latest import Input

from ..errors import LatentsNotUsable
from ..host import memory, progress
from ..video.source import LazyVideo
from .checkpoint import LTX2
from .sampling import denormalized, denormalized_audio
from .shot import AUDIO_PER_SECOND, GRID, SCALE_T, Shot
from .sound import lasting
from .stream import decode_stream, needed_bytes

log = logging.getLogger(__name__)

# Latent pixels of a tile and of its overlap: 512 and 128 pixels of the picture.
TILES = (16, 4)
RATES = (24, 25, 30, 48, 50, 60)


def shot_of(video: torch.Tensor, audio: torch.Tensor) -> Shot:
    """What ComfyUI's own latents hold, which carry no size, length or rate: the rate is told from the sound's length.

    video: [1, 128, F, h, w], audio: [1, 8, L, 16].
    """
    frames = (video.shape[2] - 1) * SCALE_T + 1
    # ComfyUI rounds the sound's length up, diffusers to the nearest.
    rate = min(RATES, key=lambda fps: abs(frames / fps * AUDIO_PER_SECOND - audio.shape[2]))
    return Shot(video.shape[4] * GRID, video.shape[3] * GRID, frames, rate)


def check_latents(video: torch.Tensor, audio: torch.Tensor):
    """Raise LatentsNotUsable for latents of another model."""
    if video.shape[1] != 128 or (audio.shape[1], audio.shape[3]) != (8, 16):
        raise LatentsNotUsable(reason=f"their shapes are {tuple(video.shape)} and {tuple(audio.shape)}")


def shows(shot: Shot, video: torch.Tensor) -> bool:
    """False where a node in between has changed the size that the latents were made for."""
    return tuple(video.shape[2:]) == shot.latent_size


def tiles_for(model: LTX2, video: torch.Tensor, tiling: str) -> tuple[int, int] | None:
    """The tile and its overlap for these latents, or None: tiled in space only, where one chunk would not fit."""
    module, (height, width) = model.vae.module, video.shape[3:]
    whole = needed_bytes(module, height, width, model.dtype.itemsize)
    if tiling == "on" or (tiling == "auto" and whole > memory.room([model.vae])):
        log.info("Decoding in tiles of %d pixels: whole frames need %.1f GB.", TILES[0] * GRID, whole / memory.GB)
        return TILES
    return None


def pictures(model: LTX2, video: torch.Tensor, shot: Shot, tiling: str) -> Iterator[torch.Tensor]:
    """All frames in pieces [n, height, width, 3] of 0..1, float32, on its device, cropped to what was asked for.

    Raises NotEnoughMemory; ComfyUI's interrupt passes through.
    """
    module, device = model.vae.module, model.vae.patcher.load_device
    tiles = tiles_for(model, video, tiling)
    height, width = (min(side, tiles[0]) if tiles else side for side in video.shape[3:])
    what = f"Decoding {shot.width}x{shot.height}"
    memory.load([model.vae], needed_bytes(module, height, width, model.dtype.itemsize), what)
    latents = denormalized(module, video.to(device, model.dtype))
    left = shot.frames
    for piece in decode_stream(module, latents, tiles=tiles, poll=progress.stop_if_interrupted):
        piece = piece[:left, :, : shot.height, : shot.width].permute(0, 2, 3, 1)
        yield (piece.float() / 2 + 0.5).clamp(0, 1)
        left -= len(piece)
        if not left:
            return


def sound(model: LTX2, audio: torch.Tensor, shot: Shot) -> Input.Audio:
    """The AUDIO of the latents [1, 8, L, 16], cut where the picture ends, at the vocoder's own rate.

    A sound that was given, to be kept as it is, is that one: no vocoder could make it again.
    """
    if shot.sound_kept == 1:
        return lasting(shot.audio, shot.frames / shot.fps)
    module, device = model.audio_vae.module, model.audio_vae.patcher.load_device
    # Next to the picture's it is small: some hundred values for each sample that comes out.
    itemsize = model.vocoder.module.compute_dtype.itemsize
    memory.load([model.audio_vae, model.vocoder], 1000 * audio.shape[2] * 640 * itemsize, "The sound")
    latents = denormalized_audio(module, audio.to(device, model.dtype))
    mel = module.decode(latents, return_dict=False)[0]
    wave = model.vocoder.module(mel.to(model.vocoder.module.compute_dtype))
    rate = model.vocoder.module.config.output_sampling_rate
    return {"waveform": wave[..., : round(shot.frames / shot.fps * rate)].float().cpu(), "sample_rate": rate}


def video_of(handle, samples: tuple[torch.Tensor, torch.Tensor], shot: Shot, tiling: str) -> LazyVideo:
    """A VIDEO of normalized latents (video, audio).

    handle: opens the model, which may have been freed when the frames are asked for.
    """
    video, audio = samples
    return LazyVideo(
        frames=lambda: pictures(handle.model, video, shot, tiling),
        sound=lambda: sound(handle.model, audio, shot),
        shape=(shot.frames, shot.height, shot.width),
        rate=Fraction(shot.fps),
    )
