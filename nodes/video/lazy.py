"""A VIDEO whose frames are made when they are asked for, a few at a time: a long clip never exists as one tensor."""

import io
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import torch
from comfy_api.latest import Input, Types

from ..checks import check_finite
from ..host import paths, progress


class LazyVideo(Input.Video):
    """frames() makes all frames anew, in pieces [n, height, width, 3] of 0..1; sound() the AUDIO of all, or None.

    shape: frames, height, width of what is shown, from frame `first` on; rate: frames per second.
    """

    def __init__(
        self,
        frames: Callable[[], Iterator[torch.Tensor]],
        sound: Callable[[], Input.Audio | None],
        shape: tuple[int, int, int],
        rate: Fraction,
        first: int = 0,
    ):
        self.frames, self.sound, self.shape, self.rate, self.first = frames, sound, shape, Fraction(rate), first

    def images(self) -> Iterator[torch.Tensor]:
        """The frames shown, one by one, [height, width, 3] of 0..1. Raises NotFinite, and what frames() raises."""
        return islice(self.every_image(), self.first, self.first + self.shape[0])

    def every_image(self) -> Iterator[torch.Tensor]:
        for piece in self.frames():
            check_finite(piece, "the frames")
            yield from piece

    def audio(self) -> Input.Audio | None:
        """The sound of the frames shown, where there is any."""
        sound = self.sound()
        if sound is None:
            return None
        start, end = (round(frame / self.rate * sound["sample_rate"]) for frame in (self.first, self.last))
        return {**sound, "waveform": sound["waveform"][..., start:end]}

    @property
    def last(self) -> int:
        return self.first + self.shape[0]

    def get_components(self) -> Types.VideoComponents:
        count, height, width = self.shape
        images, made = torch.empty(count, height, width, 3), 0
        for made, image in enumerate(self.images(), 1):
            images[made - 1] = image
        return Types.VideoComponents(images=images[:made], audio=self.audio(), frame_rate=self.rate)

    def as_trimmed(self, start_time=None, duration=None, strict_duration=False) -> "LazyVideo | None":
        """The part from start_time on, in seconds (negative: from the end), whole frames; None where there is none."""
        count = self.shape[0]
        start = round((start_time or 0) * self.rate)
        start = max(start + count, 0) if start < 0 else start
        # A moment shorter than a frame still shows one.
        wanted = max(round(duration * self.rate), 1) if duration else count - start
        if start >= count or (duration or 0) < 0 or (strict_duration and wanted > count - start):
            return None
        shape = (min(wanted, count - start), *self.shape[1:])
        return LazyVideo(self.frames, self.sound, shape, self.rate, self.first + start)

    def save_to(self, path, format="auto", codec="auto", metadata=None, bit_depth=None, crf=None):
        """An H.264 MP4 at `path`, a name or a binary file, made a few frames at a time."""
        from .encode import encode
        from .formats import all_formats
        from .source import open_source

        tags = {key: json.dumps(value) for key, value in (metadata or {}).items()}
        options = {"bit_depth": str(bit_depth or 8), "crf": None if crf is None else round(crf)}
        format = all_formats()["mp4-h264"]
        settings = format.settings(options)
        source = open_source(self, settings.pixel_format)
        into_memory = isinstance(path, io.IOBase)
        part = paths.temp_file(".mp4") if into_memory else Path(path).with_name(f".{Path(path).name}.part")
        step = progress.frame_steps(source.count)
        try:
            encode(source, part, format, settings, tags, source.sound, step)
            if into_memory:
                path.write(part.read_bytes())
            else:
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def get_dimensions(self) -> tuple[int, int]:
        return self.shape[2], self.shape[1]

    def get_duration(self) -> float:
        return float(self.shape[0] / self.rate)

    def get_frame_count(self) -> int:
        return self.shape[0]

    def get_frame_rate(self) -> Fraction:
        return self.rate

    def get_container_format(self) -> str:
        return "mp4"
