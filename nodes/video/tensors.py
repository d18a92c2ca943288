"""The frames of a VIDEO that is tensors."""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache

import av
import numpy as np
import torch
from comfy_api.latest import Input

from ..errors import VideoEmpty, VideoUnreadable
from .planes import BITS, frame_of
from .shape import PALETTE
from .sound import Sound, tensor_sound

# So much of a frame stays in the processor's cache: a 1080p frame takes 4 ms instead of 33, and no thread of torch
# competes with the encoder's.
STRIP_ROWS = 40
# What the format of the new file cannot hold, where the pictures have it at all.
NO_ALPHA = "its transparency, where it has any, was left out"


def keeps_alpha(pixel_format: str) -> bool:
    return pixel_format == PALETTE or any(it.is_alpha for it in av.VideoFormat(pixel_format).components)


def is_deep(pixel_format: str) -> bool:
    """Whether it holds more than 8 bits of a value."""
    return max(it.bits for it in av.VideoFormat(pixel_format).components) > 8


def is_elsewhere(image: torch.Tensor) -> bool:
    """Whether it has to be fetched before the processor can read it."""
    return image.device.type != "cpu"


class TensorSource:
    """A VIDEO whose frames are float tensors [height, width, 1, 3 or 4], values 0..1, on any device.

    images() and audio() are asked for them when they are needed, so that a VIDEO can make them then. pixel_format: the
    encoder's, which says how many bits of a value are kept, and whether a fourth channel is; has_alpha: there is one.
    """

    def __init__(
        self,
        images: Callable[[], Iterable[torch.Tensor]],
        shape: tuple[int, int, int],
        rate: Fraction,
        audio: Callable[[], Input.Audio | None],
        pixel_format: str = "yuv420p",
        has_alpha: bool = False,
    ):
        # A repeated sound is asked for again and again.
        self.images, self.audio = images, cache(audio)
        self.count, self.height, self.width = shape
        if not self.count:
            raise VideoEmpty(reason="its image batch is empty")
        if rate <= 0:
            raise VideoUnreadable(reason=f"its frame rate is {rate}")
        # CreateVideo makes its Fraction from a float: 29.97002997 must become 30000/1001 again.
        rate = Fraction(rate)
        self.rate = rate.limit_denominator(1001) if rate >= 1 else 1 / (1 / rate).limit_denominator(1001)
        self.steady_rate = self.rate
        self.time_base = self.lasts = 1 / self.rate
        self.pixel_aspect = self.upright_aspect = Fraction(1)
        self.mended, self.hdr = 0, False
        self.pixel_format = pixel_format
        self.channels = 4 if has_alpha and keeps_alpha(pixel_format) else 3
        self.alpha_lost = has_alpha and self.channels == 3
        deep = is_deep(pixel_format)
        self.scale, self.dtype = (65535, np.uint16) if deep else (255, np.uint8)
        self.format = {3: ("rgb24", "rgb48le"), 4: ("rgba", "rgba64le")}[self.channels][deep]

    def frames(self) -> Iterator[av.VideoFrame]:
        """The frames; those of a GPU already in the encoder's pixel format, where that is one of BITS."""
        channels, self.mended = self.channels, 0
        strip = np.empty((STRIP_ROWS, self.width, channels), np.float32)
        for index, image in enumerate(self.images()):
            image = image[..., :channels].float()
            if image.shape[-1] == 1:
                image = image.expand(-1, -1, channels)
            if self.pixel_format in BITS and is_elsewhere(image):
                self.mended += int(image.isnan().sum())
                frame = frame_of(image.nan_to_num(0).clamp(0, 1), self.pixel_format)
                frame.pts, frame.time_base = index, self.time_base
                yield frame
                continue
            values = image.cpu().numpy()
            frame = av.VideoFrame(self.width, self.height, self.format)
            lines = np.frombuffer(frame.planes[0], self.dtype).reshape(self.height, -1)
            pixels = lines[:, : channels * self.width].reshape(values.shape)
            for top in range(0, self.height, STRIP_ROWS):
                part = strip[: min(STRIP_ROWS, self.height - top)]
                np.clip(values[top : top + STRIP_ROWS], 0, 1, out=part)
                if np.isnan(part.max()):
                    self.mended += int(np.isnan(part).sum())
                    np.nan_to_num(part, copy=False)
                np.multiply(part, self.scale, out=part)
                np.add(part, 0.5, out=part)
                np.copyto(pixels[top : top + STRIP_ROWS], part, casting="unsafe")
            frame.pts = index
            frame.time_base = self.time_base
            yield frame

    def sound(self) -> Sound | None:
        audio = self.audio()
        return tensor_sound(audio) if audio else None

    def notes(self) -> list[str]:
        """What is to be said of its pictures."""
        mended = f"{self.mended} values of its pictures were NaN and are black"
        return [NO_ALPHA] * self.alpha_lost + [mended] * bool(self.mended)
