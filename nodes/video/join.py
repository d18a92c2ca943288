"""Two videos, one after the other, as one that is made while it is read."""

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
from .source import Source, at_rate, open_source, shaped

DEEP = "rgb48le"  # holds what a source of up to 16 bits has
LONGEST_OVERLAP = 1000


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
    if overlap >= other.count:
        raise OutOfRange(name="overlap", given=overlap, lowest=0, highest=other.count - 1)
    # Which side is up is known with the first picture.
    picture = next(shaped(one.frames(), DEEP), None)
    if picture is None:
        raise VideoEmpty(reason="none lies inside its trim")
    box = (round(picture.width * one.upright_aspect), picture.height)
    left_out = Fraction(overlap) / other.rate
    counts = one.count, max(round((other.count / other.rate - left_out) * one.rate), 1)

    def frames() -> Iterator[torch.Tensor]:
        for source, skipped, count in ((one, 0, counts[0]), (other, overlap, counts[1])):
            steady = at_rate(after(source, skipped), source.rate, one.rate, hold=True)
            for frame in islice(shaped(steady, DEEP, box, source.pixel_aspect), count):
                yield torch.from_numpy(frame.to_ndarray(format=DEEP).astype(np.float32) / 65535)[None]

    def sound() -> Input.Audio | None:
        tracks = [(one.sound(), Fraction(0)), (other.sound(), left_out)]
        heard = [it for it, _ in tracks if it]
        if not heard:
            return None
        rate = max(it.rate for it in heard)
        layout = max((it.layout for it in heard), key=lambda it: av.AudioLayout(it).nb_channels)
        waves = [
            wave(track, start, count / one.rate, rate, layout)
            for (track, start), count in zip(tracks, counts, strict=True)
        ]
        return {"waveform": torch.from_numpy(np.concatenate(waves).T.copy())[None], "sample_rate": rate}

    return LazyVideo(frames, sound, (sum(counts), box[1], box[0]), one.rate)


def after(source: Source, skipped: int) -> Iterator[av.VideoFrame]:
    """The frames after so many, with times from 0."""
    begins = None
    for frame in islice(source.frames(), skipped, None):
        begins = frame.pts if begins is None else begins
        frame.pts -= begins
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
