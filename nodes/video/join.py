"""Two videos, one after the other, as one that is made while it is read."""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice

import av
import numpy as np
import torch
from comfy_api.latest import Input, io

from ..checks import check_numbers
from ..errors import OutOfRange, VideoEmpty
from ..host import progress
from .lazy import LazyVideo
from .sound import Sound
from .source import FileSource, Source, at_rate, open_source, shaped
from .tensors import is_deep

DEEP = "rgb48le"  # holds what a source of up to 16 bits has; of 8 bits FFmpeg makes white one level darker
LONGEST_OVERLAP = 1000
FADE_SECONDS = 0.005


class VideoJoin(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Xavi9VideoJoin",
            display_name="Video Join",
            category="Xavi9Videos/Video",
            description="One video after the other, with their sound. The second gets the first one's size and frame "
            "rate. Frames are made while they are saved.",
            search_aliases=["concatenate videos", "append video", "merge videos", "combine", "extend video"],
            inputs=[
                io.Video.Input("first", tooltip="Any VIDEO. Its size, shape and frame rate stay."),
                io.Video.Input("second", tooltip="Comes after it, on black where its shape is another one."),
                io.Int.Input(
                    "overlap",
                    default=0,
                    min=0,
                    max=LONGEST_OVERLAP,
                    tooltip="How many of the second one's first frames repeat the end of the first: they are left out, "
                    "with their sound. After LTX-2 Extend the same number as there.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="Both as one. To Video Save.")],
        )

    @classmethod
    def execute(cls, first: Input.Video, second: Input.Video, overlap: int) -> io.NodeOutput:
        check_numbers(cls, locals())
        return io.NodeOutput(joined(first, second, overlap))


def joined(first: Input.Video, second: Input.Video, overlap: int) -> LazyVideo:
    """A VIDEO of both. Raises VideoUnreadable, VideoEmpty, and OutOfRange where nothing of the second is left."""
    one, other = (open_source(it, DEEP, progress.stop_if_interrupted) for it in (first, second))
    rate, left_out = one.steady_rate, Fraction(overlap) / other.steady_rate
    lengths = [it.count / it.rate for it in (one, other)]
    if left_out >= lengths[1]:
        highest = math.ceil(lengths[1] * other.steady_rate) - 1
        raise OutOfRange(name="overlap", given=overlap, lowest=0, highest=highest)
    # Of both: with its first picture a file knows where its sound begins.
    box, _ = map(size_of, (one, other))
    counts = round(lengths[0] * rate), max(round((lengths[1] - left_out) * rate), 1)

    def frames() -> Iterator[torch.Tensor]:
        for source, skipped, count in ((one, 0, counts[0]), (other, overlap, counts[1])):
            steady = at_rate(after(source, skipped), source.steady_rate, rate, hold=True)
            form = DEEP if is_deep(source.pixel_format) else "rgb24"
            for frame in islice(shaped(steady, form, box, source.pixel_aspect), count):
                values = frame.to_ndarray(format=form)
                yield torch.from_numpy(values.astype(np.float32) / np.iinfo(values.dtype).max)[None]

    def sound() -> Input.Audio | None:
        tracks = [(one.sound(), Fraction(0)), (other.sound(), left_out)]
        heard = [it for it, _ in tracks if it]
        if not heard:
            return None
        samples = max(it.rate for it in heard)
        layout = max((it.layout for it in heard), key=lambda it: av.AudioLayout(it).nb_channels)
        waves = [
            wave(track, start, count / rate, samples, layout)
            for (track, start), count in zip(tracks, counts, strict=True)
        ]
        # Where two unrelated sounds meet, a step would be heard as a click.
        fade = np.linspace(0, 1, min(round(FADE_SECONDS * samples), *map(len, waves)), dtype=np.float32)[:, None]
        waves[0][len(waves[0]) - len(fade) :] *= fade[::-1]
        waves[1][: len(fade)] *= fade
        return {"waveform": torch.from_numpy(np.concatenate(waves).T.copy())[None], "sample_rate": samples}

    return LazyVideo(frames, sound, (sum(counts), box[1], box[0]), rate)


def size_of(source: Source) -> tuple[int, int]:
    """width, height as a source is seen, upright and with square pixels. Raises VideoUnreadable and VideoEmpty.

    A file's first picture says which side is up, and where its sound begins.
    """
    if not isinstance(source, FileSource):
        return source.width, source.height
    picture = next(shaped(source.frames(), DEEP), None)
    if picture is None:
        raise VideoEmpty(reason="none lies inside its trim")
    return round(picture.width * source.upright_aspect), picture.height


def after(source: Source, skipped: int) -> Iterator[av.VideoFrame]:
    """The frames after so many, with times from 0; where they last differently long, those seen at a steady rate."""
    steady = at_rate(source.frames(), source.steady_rate, source.steady_rate, hold=False)
    for index, frame in enumerate(islice(steady, skipped, None)):
        frame.pts, frame.time_base = index, 1 / source.steady_rate
        yield frame


def wave(sound: Sound | None, start: Fraction, seconds: Fraction, rate: int, layout: str) -> np.ndarray:
    """[samples, channels] of a sound from `start` on, silent where it has none."""
    made = np.zeros((round(seconds * rate), av.AudioLayout(layout).nb_channels), np.float32)
    if sound is None:
        return made
    # Of one channel FFmpeg makes two that are quieter by 3 dB; the same on both sides it is as loud as before.
    same = (sound.layout, layout) == ("mono", "stereo")
    resampler = av.AudioResampler(format="flt", layout=sound.layout if same else layout, rate=rate)
    at = None
    for given in chain(sound.take(start + seconds), [None]):
        if at is None and given:
            at = round((Fraction(given.pts, sound.rate) - start) * rate)
        for frame in resampler.resample(given):
            samples = frame.to_ndarray().reshape(frame.samples, -1)
            low, high = max(at, 0), min(at + frame.samples, len(made))
            if low < high:
                made[low:high] = samples[low - at : high - at]
            at += frame.samples
    return made
