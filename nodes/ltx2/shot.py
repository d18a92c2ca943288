"""What was asked for: its size and length, and the pictures and the sound that it starts from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import PIL.Image
import torch
from comfy_api.latest import Input

from ..checks import check_number
from ..errors import KeyframesClash, OverlapTooLong
from ..pictures import extended, fitted

GRID = 32  # pixels of one latent in each direction
SCALE_T = 8  # frames of one latent, after the first
AUDIO_PER_SECOND = 25  # latents of the sound: 16000 Hz / a hop of 160 / a compression of 4


def whole(frames: int) -> int:
    """The most frames of whole latents, 8k + 1, that are not more."""
    return max(frames - 1, 0) // SCALE_T * SCALE_T + 1


@dataclass(frozen=True)
class Keyframe:
    """Pictures that are seen from a frame on: one anywhere, or a clip of 8k + 1 at the start.

    pictures: [n, height, width, 1, 3 or 4], the host's IMAGE of 0..1, or bytes; frame: negative ones count from the
    end, -1 is the last; strength: 1 keeps the pictures, less lets the model change them, 0 is none.
    """

    pictures: torch.Tensor
    frame: int = 0
    strength: float = 1.0

    def at(self, fps: int) -> "Keyframe":
        """Itself, whatever the rate: a frame is counted, not timed."""
        return self


@dataclass(frozen=True)
class Shot:
    """What was asked for. width, height in pixels.

    audio: the host's AUDIO; audio_strength: 1 keeps it, less lets the model change it. It travels with the latents,
    whose grid is a little larger: Decode crops it back.
    """

    width: int
    height: int
    frames: int
    fps: int
    keyframes: tuple[Keyframe, ...] = ()
    audio: Input.Audio | None = None
    audio_strength: float = 1.0

    @property
    def grid_size(self) -> tuple[int, int]:
        """width, height rounded up to what the model makes, two latents at least: the decoder mirrors at the edges."""
        width, height = (max(-(-side // GRID), 2) * GRID for side in (self.width, self.height))
        return width, height

    @property
    def grid_frames(self) -> int:
        """frames rounded up to 8k + 1, and to where the sound has one latent at least."""
        frames = -(-(self.frames - 1) // SCALE_T) * SCALE_T + 1
        return frames if round(frames / self.fps * AUDIO_PER_SECOND) else frames + SCALE_T

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """frames, height, width of the latents."""
        width, height = self.grid_size
        return (self.grid_frames - 1) // SCALE_T + 1, height // GRID, width // GRID

    @property
    def audio_latents(self) -> int:
        """How many latents the sound has, as diffusers rounds it."""
        return round(self.grid_frames / self.fps * AUDIO_PER_SECOND)

    @cached_property
    def shown(self) -> list[Keyframe]:
        """The keyframes that count, frames from the start. Raises OutOfRange, OverlapTooLong or KeyframesClash."""
        found, taken = [], set()
        for it in self.keyframes:
            check_number("frame", it.frame, -self.frames, self.frames - 1)
            frame, count = it.frame % self.frames, len(it.pictures)
            if count > 1 and count >= self.frames:
                raise OverlapTooLong(given=count, frames=self.frames, allowed=whole(self.frames - 1))
            if not it.strength:
                continue
            frames = set(range(frame, frame + count))
            if both := taken & frames:
                raise KeyframesClash(frame=min(both))
            taken |= frames
            found.append(replace(it, frame=frame))
        return found

    @property
    def sound_kept(self) -> float:
        """How much of a given sound is kept: 0 without one."""
        return self.audio_strength if self.audio else 0.0

    def images(self, keyframe: Keyframe) -> Iterator[PIL.Image.Image]:
        """The pictures of a keyframe at the size of the grid: what Decode cuts off again repeats its edge."""
        for it in keyframe.pictures:
            values = it / 255 if it.dtype == torch.uint8 else it
            yield extended(fitted(values[None], (self.width, self.height)), self.grid_size)

    @property
    def doubled(self) -> "Shot":
        """What the second stage makes of it."""
        return replace(self, width=2 * self.width, height=2 * self.height)
