"""The sound of a VIDEO, a second at a time, and its track in a file."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from comfy_api.latest import Input

from ..checks import check_audio

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
CHUNK_SECONDS = 1
BITS_PER_CHANNEL = 96_000
# Encoders pad their last packet; less than this nobody hears.
SLACK_SECONDS = Fraction(1, 10)


class Sound:
    """Frames of interleaved float samples, read once and in order.

    rate: samples a second, the unit of the frames' pts. layout: FFmpeg's name of the channels. end: the second up to
    which it has been read. mended: how many samples were NaN or infinite, and are silent now. endless: it is repeated.
    others: how many further tracks of its file are left out.
    """

    def __init__(self, rate: int, layout: str, frames: Iterator[av.AudioFrame], endless: bool = False, others: int = 0):
        self.rate, self.layout, self.frames, self.endless, self.others = rate, layout, frames, endless, others
        self.end, self.mended = Fraction(0), 0
        self.waiting: deque[av.AudioFrame] = deque()

    def goes_beyond(self, seconds: Fraction) -> bool:
        """Whether it has a sample after this moment."""
        while self.end <= seconds:
            frame = next(self.frames, None)
            if frame is None:
                return False
            self.end = Fraction(frame.pts + frame.samples, self.rate)
            self.waiting.append(self.mend(frame))
        return True

    def take(self, seconds: Fraction) -> Iterator[av.AudioFrame]:
        """What it has before this moment and has not been taken yet."""
        self.goes_beyond(seconds)
        limit = math.ceil(seconds * self.rate)
        while self.waiting and self.waiting[0].pts < limit:
            frame = self.waiting.popleft()
            left = limit - frame.pts
            if left < frame.samples:
                samples = frame.to_ndarray().reshape(frame.samples, -1)
                self.waiting.appendleft(sound_frame(samples[left:], self.rate, self.layout, limit))
                frame = sound_frame(samples[:left], self.rate, self.layout, frame.pts)
            yield frame

    def mend(self, frame: av.AudioFrame) -> av.AudioFrame:
        samples = frame.to_ndarray()
        good = np.isfinite(samples)
        if good.all():
            return frame
        self.mended += int(samples.size - np.count_nonzero(good))
        return sound_frame(np.where(good, samples, 0), self.rate, self.layout, frame.pts)


def sound_frame(samples: np.ndarray, rate: int, layout: str, pts: int) -> av.AudioFrame:
    """samples: [n, channels] of float, or the same in one row. Interleaved, since PyAV fails on eight planes."""
    row = np.ascontiguousarray(samples, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(row, format="flt", layout=layout)
    frame.sample_rate = rate
    frame.pts = pts
    frame.time_base = Fraction(1, rate)
    return frame


def tensor_sound(audio: Input.Audio) -> Sound | None:
    """The host's AUDIO; None when it has no samples. Raises AudioNotUsable."""
    check_audio(audio)
    waveform, rate = audio["waveform"], int(audio["sample_rate"])
    layout = LAYOUTS[waveform.shape[1]]

    def frames():
        for start in range(0, waveform.shape[2], rate * CHUNK_SECONDS):
            part = waveform[0, :, start : start + rate * CHUNK_SECONDS]
            yield sound_frame(part.T.float().cpu().numpy(), rate, layout, start)

    return Sound(rate, layout, frames()) if waveform.shape[2] else None


def silence(start: int, end: int, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    """From one sample to another."""
    for at in range(start, end, rate):
        samples = np.zeros((min(rate, end - at), av.AudioLayout(layout).nb_channels))
        yield sound_frame(samples, rate, layout, at)


@dataclass
class Cycle:
    """After how many seconds the pictures begin again, known when all have been seen once; and how long one lasts."""

    picture: Fraction
    seconds: Fraction | None = None


def pieces(frame: av.AudioFrame, most: int, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    """A frame in parts of at most so many samples."""
    samples = frame.to_ndarray().reshape(frame.samples, -1)
    for at in range(0, frame.samples, most):
        yield sound_frame(samples[at : at + most], rate, layout, frame.pts + at)


def unbroken(sound: Sound) -> Iterator[av.AudioFrame]:
    """All its frames, with silence before them and wherever it has none."""
    end = 0
    for frame in sound.frames:
        yield from silence(end, frame.pts, sound.rate, sound.layout)
        yield frame
        end = frame.pts + frame.samples


def repeated(make: Callable[[], Sound | None], cycle: Cycle) -> Sound | None:
    """The sound again and again, without an end, and with each cycle from its beginning; None where there is none."""
    first = make()
    if first is None:
        return None
    rate, layout = first.rate, first.layout
    # No more at a time than one picture lasts: with it the cycle may end, which is known with the next.
    most = max(int(cycle.picture * rate), 1)

    def stop_of(cycles: int) -> float:
        return round((cycles + 1) * cycle.seconds * rate) if cycle.seconds else math.inf

    def frames():
        sound, start, cycles = first, 0, 0
        while sound:
            end = start
            for piece in (piece for frame in unbroken(sound) for piece in pieces(frame, most, rate, layout)):
                begin, stop = start + piece.pts, stop_of(cycles)
                if begin + piece.samples > stop:
                    if begin < stop:
                        piece.pts = begin
                        yield next(pieces(piece, stop - begin, rate, layout))
                    end = stop
                    break
                piece.pts, end = begin, begin + piece.samples
                yield piece
            # A track without a sample would be read for ever.
            if end == start:
                return
            stop = stop_of(cycles)
            # Too short to be heard again: an encoder's padding is missing.
            if 0 < stop - end < SLACK_SECONDS * rate:
                yield from silence(end, stop, rate, layout)
                end = stop
            cycles += end == stop
            sound, start = make(), end

    return Sound(rate, layout, frames(), endless=True, others=first.others)


class Soundtrack:
    """A sound that is encoded into `output` beside the picture."""

    def __init__(self, output: av.container.OutputContainer, encoder: str, sound: Sound):
        rates = av.Codec(encoder, "w").audio_rates
        rate = sound.rate if rates is None or sound.rate in rates else 48_000
        self.output, self.sound = output, sound
        self.stream = output.add_stream(encoder, rate=rate, layout=sound.layout)
        self.stream.bit_rate = BITS_PER_CHANNEL * self.stream.layout.nb_channels

    def up_to(self, seconds: Fraction, tick: Callable[[], None]):
        """Write what is heard before this moment; tick is called now and then."""
        for frame in self.sound.take(seconds):
            tick()
            self.output.mux(self.stream.encode(frame))

    def end_at(self, seconds: Fraction, tick: Callable[[], None]):
        self.up_to(seconds, tick)
        self.output.mux(self.stream.encode(None))
