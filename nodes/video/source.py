"""The frames and the sound of any VIDEO, a few at a time: the one door for pictures between the rooms."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from comfy_api.latest import Input, InputImpl

from ..errors import AudioNotUsable, VideoEmpty, VideoUnreadable
from .lazy import LazyVideo

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
SOUND_CHUNK_SECONDS = 1
# So much of a frame stays in the processor's cache: a 1080p frame takes 4 ms instead of 33, and no thread of torch
# competes with the encoder's.
STRIP_ROWS = 40
TRANSPOSE = {1: [("transpose", "cclock")], 2: [("hflip", None), ("vflip", None)], 3: [("transpose", "clock")]}


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
        for start in range(0, length, rate * SOUND_CHUNK_SECONDS):
            part = waveform[0, :, start : min(start + rate * SOUND_CHUNK_SECONDS, length)]
            yield sound_frame(part.T.float().cpu().numpy(), rate, layout, start)

    return Sound(rate, layout, frames()) if length else None


class TensorSource:
    """A VIDEO whose frames are float tensors [height, width, 3 or 4], values 0..1; alpha is left out.

    images() and audio() are asked for them when they are needed, so that a VIDEO can make them then.
    """

    def __init__(
        self,
        images: Callable[[], Iterable[torch.Tensor]],
        shape: tuple[int, int, int],
        rate: Fraction,
        audio: Callable[[], Input.Audio | None],
        ten_bit: bool,
    ):
        self.images, self.audio = images, audio
        self.count, self.height, self.width = shape
        if not self.count:
            raise VideoEmpty(reason="its image batch is empty")
        # CreateVideo makes its Fraction from a float: 29.97002997 must become 30000/1001 again.
        self.rate = Fraction(rate).limit_denominator(1001)
        if self.rate <= 0:
            raise VideoUnreadable(reason=f"its frame rate is {rate}")
        self.time_base = 1 / self.rate
        self.pixel_aspect = Fraction(1)
        self.format, self.scale, self.dtype = (
            ("rgb48le", 65535, np.uint16) if ten_bit else ("rgb24", 255, np.uint8)
        )

    def frames(self) -> Iterator[av.VideoFrame]:
        strip = np.empty((STRIP_ROWS, self.width, 3), np.float32)
        for index, image in enumerate(self.images()):
            values = image[..., :3].float().cpu().numpy()
            frame = av.VideoFrame(self.width, self.height, self.format)
            lines = np.frombuffer(frame.planes[0], self.dtype).reshape(self.height, -1)
            pixels = lines[:, : 3 * self.width].reshape(values.shape)
            for top in range(0, self.height, STRIP_ROWS):
                part = strip[: min(STRIP_ROWS, self.height - top)]
                np.clip(values[top : top + STRIP_ROWS], 0, 1, out=part)
                np.multiply(part, self.scale, out=part)
                np.add(part, 0.5, out=part)
                np.copyto(pixels[top : top + STRIP_ROWS], part, casting="unsafe")
            frame.pts = index
            frame.time_base = self.time_base
            yield frame

    def sound(self) -> Sound | None:
        audio = self.audio()
        return tensor_sound(audio, self.count / self.rate) if audio else None


class FileSource:
    """A VIDEO that is a file, its trim window honoured with the host's own rounding; decoded as it is read."""

    def __init__(self, file: str | io.BytesIO, start: float, duration: float, poll: Callable[[], None]):
        self.file, self.start, self.duration, self.poll = file, start, duration, poll
        with self.open() as container:
            video = container.streams.video[0]
            self.rate = video.average_rate or video.guessed_rate or Fraction(1)
            self.time_base = video.time_base
            self.width, self.height = video.width, video.height
            self.pixel_aspect = video.sample_aspect_ratio or Fraction(1)
            self.container = container.format.name
            self.brand = container.metadata.get("major_brand", "")
            self.codec = video.codec.canonical_name
            self.audio_codecs = [it.codec.canonical_name for it in container.streams.audio if it.codec_context]
            hidden = [it.is_discard for it in video.index_entries]
            # An edit list can hide the end too, which a copied file would show again; a hidden start it keeps hidden.
            self.hides_its_end = True in hidden[hidden.index(False) :] if False in hidden else False
            # The container's own duration is that of its longest stream, which may be the sound.
            whole = Fraction(container.duration or 0, av.time_base)
            if video.duration:
                whole = video.duration * video.time_base
            length = float(whole) - start
            self.seconds = min(length, duration) if duration else length
            self.count = max(round(self.seconds * self.rate), 1)
            self.first = int(start / video.time_base)
            self.end = int((start + duration) / video.time_base) if duration else None
            self.origin = self.first  # the pts that becomes 0, for the sound too; the first frame decoded corrects it
        self.bytes = file.getbuffer().nbytes if isinstance(file, io.BytesIO) else Path(file).stat().st_size

    @property
    def trimmed(self) -> bool:
        return bool(self.start or self.duration)

    @contextmanager
    def open(self) -> Iterator[av.container.InputContainer]:
        """The file, to be read. Raises VideoUnreadable."""
        # Picture and sound are read side by side, each with its own position.
        file = io.BytesIO(self.file.getbuffer()) if isinstance(self.file, io.BytesIO) else self.file
        try:
            container = av.open(file)
        except (av.FFmpegError, OSError) as error:
            raise self.unreadable(error) from error
        with container:
            if not container.streams.video:
                raise VideoUnreadable(reason="it has no picture")
            yield container

    def packets(self, container: av.container.InputContainer, streams: list[av.stream.Stream]) -> Iterator[av.Packet]:
        """The packets of these streams from the keyframe of the first before the trim. Raises VideoUnreadable."""
        first, found = streams[0], 0
        try:
            if self.start:
                container.seek(int(self.start / first.time_base), stream=first)
            for packet in container.demux(streams):
                self.poll()
                found += packet.stream is first and packet.size > 0
                yield packet
        except (av.FFmpegError, OSError) as error:
            raise self.unreadable(error) from error
        # A download that stopped between two packets ends without an error. An MP4's index, unlike its count of frames,
        # holds just the packets that its edit list leaves.
        if "mp4" in self.container and not self.trimmed and found < (known := len(first.index_entries)):
            raise VideoUnreadable(reason=f"{self.name} breaks off after {found} of {known} frames")

    def decoded(self, container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator[av.frame.Frame]:
        for packet in self.packets(container, [stream]):
            try:
                yield from packet.decode()
            except (av.FFmpegError, OSError) as error:
                raise self.unreadable(error) from error

    @property
    def name(self) -> str:
        return self.file if isinstance(self.file, str) else "the data"

    def unreadable(self, error: Exception) -> VideoUnreadable:
        if isinstance(error, FileNotFoundError):
            return VideoUnreadable(reason=f"{self.name} is gone; change an input of the node that made it")
        return VideoUnreadable(reason=f"{self.name}: {getattr(error, 'strerror', None) or error}")

    def inside(self, pts: int) -> bool:
        return pts >= self.first and (self.end is None or pts < self.end)

    def frames(self) -> Iterator[av.VideoFrame]:
        with self.open() as container:
            video = container.streams.video[0]
            video.thread_type = "AUTO"
            last = None
            for frame in self.decoded(container, video):
                if frame.pts is None:
                    frame.pts = self.first if last is None else last + 1
                if self.end is not None and frame.pts >= self.end:
                    return
                if frame.pts < self.first:
                    continue
                if last is None:
                    self.origin = frame.pts
                # A muxer takes rising times only, and broken files repeat some; no frame is dropped for that.
                last = frame.pts if last is None else max(frame.pts, last + 1)
                frame.pts = last - self.origin
                frame.time_base = self.time_base
                yield frame

    def sound(self) -> Sound | None:
        if not self.audio_codecs:
            return None
        with self.open() as container:
            stream = next(it for it in container.streams.audio if it.codec_context)
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
        layout = LAYOUTS.get(channels, "stereo")
        return Sound(rate, layout, self.sound_frames(rate, layout))

    def sound_frames(self, rate: int, layout: str) -> Iterator[av.AudioFrame]:
        first = round(self.origin * self.time_base * rate)
        end = round((self.start + self.duration) * rate) if self.duration else None
        with self.open() as container:
            stream = next(it for it in container.streams.audio if it.codec_context)
            resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
            position = None
            for decoded in self.decoded(container, stream):
                for frame in resampler.resample(decoded):
                    if position is None:
                        position = round(frame.pts * frame.time_base * rate) if frame.pts is not None else 0
                    low = max(first - position, 0)
                    high = frame.samples if end is None else min(end - position, frame.samples)
                    if low < high:
                        samples = frame.to_ndarray().reshape(frame.samples, -1)[low:high]
                        yield sound_frame(samples, rate, layout, position + low - first)
                    position += frame.samples
                if end is not None and position is not None and position >= end:
                    return


Source = TensorSource | FileSource


def open_source(video: Input.Video, ten_bit: bool = False, poll: Callable[[], None] = lambda: None) -> Source:
    """The frames of any VIDEO of the host; ten_bit keeps 16 bits of a float tensor.

    poll is called for each packet that is read, from whatever thread; what it raises ends the reading: a cut far from a
    keyframe reads for a long time before its first frame. Raises VideoUnreadable or VideoEmpty.
    """
    if isinstance(video, InputImpl.VideoFromFile):
        return FileSource(video.get_stream_source(), *video.get_active_trim_window(), poll)
    if isinstance(video, LazyVideo):
        return TensorSource(video.images, video.shape, video.rate, video.audio, ten_bit)
    it = video.get_components()
    return TensorSource(lambda: it.images, it.images.shape[:3], it.frame_rate, lambda: it.audio, ten_bit)


def fitting(width: int, height: int, box: tuple[int, int]) -> list[tuple[str, str]]:
    """Filters that scale a picture into `box` (width, height; both even), keeping its shape, on black."""
    if (width, height) == box:
        return []
    scale = min(box[0] / width, box[1] / height)
    inner = [max(2 * round(side * scale / 2), 2) for side in (width, height)]
    left, top = ((outer - it) // 2 for outer, it in zip(box, inner, strict=True))
    return [("scale", f"{inner[0]}:{inner[1]}"), ("pad", f"{box[0]}:{box[1]}:{left}:{top}"), ("setsar", "1")]


def evened(width: int, height: int) -> list[tuple[str, str]]:
    """Filters that repeat the last row or column where 4:2:0 needs an even size."""
    right, bottom = width % 2, height % 2
    if not (right or bottom):
        return []
    return [
        ("pad", f"{width + right}:{height + bottom}"),
        ("fillborders", f"right={right}:bottom={bottom}:mode=smear"),
    ]


def shaping(source: Source, frame: av.VideoFrame, box: tuple[int, int] | None) -> av.filter.Graph | None:
    """What turns frames like this one upright and gives them the size of shaped(); None when nothing has to be done."""
    turns = round(frame.rotation / 90) % 4
    width, height = frame.width, frame.height
    if box:
        width = round(width * source.pixel_aspect)
    if turns % 2:
        width, height = height, width
    steps = TRANSPOSE.get(turns, []) + (fitting(width, height, box) if box else evened(width, height))
    if not steps:
        return None
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        *(graph.add(*step) for step in steps),
        graph.add("buffersink"),
    ).configure()
    return graph


def shaped(
    source: Source, frames: Iterator[av.VideoFrame], pixel_format: str, box: tuple[int, int] | None = None
) -> Iterator[av.VideoFrame]:
    """Frames of `source`, upright and in an encoder's 4:2:0 pixel format; RGB becomes limited-range BT.709.

    With `box` (width, height) they are scaled into it with square pixels, else only made even.
    """
    graph = size = None
    for index, frame in enumerate(frames):
        if index == 0:
            graph = shaping(source, frame, box)
        pts, time_base, rgb = frame.pts, frame.time_base, frame.format.is_rgb
        if graph:
            graph.push(frame)
            frame = graph.pull()
        size = size or (frame.width, frame.height)
        frame = frame.reformat(
            *size,
            format=pixel_format,
            dst_colorspace=Colorspace.ITU709 if rgb else None,
            dst_color_range=ColorRange.MPEG,
        )
        if rgb:
            frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
            frame.color_primaries, frame.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        frame.pts, frame.time_base = pts, time_base
        # The source's own picture types would force the encoder's.
        frame.pict_type = 0
        yield frame
