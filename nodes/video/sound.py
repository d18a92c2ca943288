"""The sound of a VIDEO, a second at a time, and its track in a file."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from comfy_api.latest import Input

from ..errors import AudioNotUsable

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
CHUNK_SECONDS = 1
BITS_PER_CHANNEL = 96_000


@dataclass
class Sound:
    """Frames of interleaved float samples, pts in 1/rate seconds; `mended` counts NaN and infinite ones made silent."""

    rate: int
    layout: str
    frames: Iterator[av.AudioFrame]
    mended: int = 0

    def safe_frames(self) -> Iterator[av.AudioFrame]:
        for frame in self.frames:
            samples = frame.to_ndarray()
            good = np.isfinite(samples)
            if not good.all():
                self.mended += int(samples.size - np.count_nonzero(good))
                frame = sound_frame(np.where(good, samples, 0), self.rate, self.layout, frame.pts)
            yield frame


def sound_frame(samples: np.ndarray, rate: int, layout: str, pts: int) -> av.AudioFrame:
    """samples: [n, channels] of float, or the same in one row. Interleaved, since PyAV fails on eight planes."""
    row = np.ascontiguousarray(samples, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(row, format="flt", layout=layout)
    frame.sample_rate = rate
    frame.pts = pts
    frame.time_base = Fraction(1, rate)
    return frame


def tensor_sound(audio: Input.Audio, seconds: Fraction | None = None) -> Sound | None:
    """The host's AUDIO, cut to `seconds` when given; None when it has no samples. Raises AudioNotUsable."""
    waveform, rate = audio["waveform"], int(audio["sample_rate"])
    if waveform.ndim != 3 or waveform.shape[0] != 1:
        raise AudioNotUsable(reason=f"its shape is {tuple(waveform.shape)}, not [1, channels, samples]")
    if waveform.shape[1] not in LAYOUTS:
        raise AudioNotUsable(reason=f"it has {waveform.shape[1]} channels")
    if not 8000 <= rate <= 384_000:
        raise AudioNotUsable(reason=f"its sample rate is {rate} Hz")
    length = waveform.shape[2] if seconds is None else min(waveform.shape[2], -int(-seconds * rate // 1))
    layout = LAYOUTS[waveform.shape[1]]

    def frames():
        for start in range(0, length, rate * CHUNK_SECONDS):
            part = waveform[0, :, start : min(start + rate * CHUNK_SECONDS, length)]
            yield sound_frame(part.T.float().cpu().numpy(), rate, layout, start)

    return Sound(rate, layout, frames()) if length else None


class Soundtrack:
    """Sound that is encoded into `output` beside the picture, never more than a packet ahead of it."""

    def __init__(self, output: av.container.OutputContainer, encoder: str, sound: Sound):
        rates = av.Codec(encoder, "w").audio_rates
        rate = sound.rate if rates is None or sound.rate in rates else 48_000
        self.output, self.sound, self.heard = output, sound, -math.inf
        self.stream = output.add_stream(encoder, rate=rate, layout=sound.layout)
        self.stream.bit_rate = BITS_PER_CHANNEL * self.stream.layout.nb_channels
        self.packets = self.encoded()

    def encoded(self) -> Iterator[av.Packet]:
        for frame in self.sound.safe_frames():
            yield from self.stream.encode(frame)
        yield from self.stream.encode(None)

    def up_to(self, seconds: float, tick: Callable[[], None]):
        while self.heard <= seconds and (packet := next(self.packets, None)):
            tick()
            self.heard = float(packet.pts * packet.time_base)
            self.output.mux(packet)
