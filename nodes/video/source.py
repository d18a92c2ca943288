"""The frames and the sound of any VIDEO, a few at a time: the one door for pictures between the rooms."""

import io
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorTrc
from comfy_api.latest import Input, InputImpl

from ..errors import VideoUnreadable
from .formats import PICTURES
from .lazy import LazyVideo
from .matroska import HEAD_BYTES, exact_rate, promised
from .shape import at_rate, shaped
from .sound import LAYOUTS, SLACK_SECONDS, Sound, silence, sound_frame
from .tensors import NO_ALPHA, TensorSource, keeps_alpha

__all__ = ["FileSource", "LazyVideo", "Source", "TensorSource", "at_rate", "open_end", "open_source", "shaped"]

# Less than this is the inexact clock of a container.
GAP_SECONDS = 0.05
# Pictures come in order, but for broken times of neighbours.
RESTART_SECONDS = 0.25
# Microseconds, and longer than any file.
WHOLE = 10**15
# Beyond it a file's own guess is its clock's and not its pictures'.
MOST_STEADY = 240


class FileSource:
    """A VIDEO that is a file, its trim window honoured with the host's own rounding; decoded as it is read."""

    def __init__(
        self,
        file: str | io.BytesIO,
        start: float,
        duration: float,
        poll: Callable[[], None],
        alpha: bool = False,
        options: dict[str, str] = {},
    ):
        self.file, self.start, self.duration, self.poll = file, start, duration, poll
        self.alpha, self.options = alpha, options
        try:
            self.version = self.version_now()
        except OSError as error:
            raise self.unreadable(error) from error
        self.bytes = self.version[0]
        container = self.open_file()
        if not container.streams.video[0].codec_context.pix_fmt:
            # FFmpeg looks at 5 MB and 5 seconds of a file, and sound may fill them.
            container.close()
            self.options = options | {"probesize": str(self.bytes), "analyzeduration": str(WHOLE)}
            container = self.open_file()
        self.unread = [container]
        # It and its streams hold one another: by itself it would stay open for long.
        weakref.finalize(self, container.close)
        video = container.streams.video[0]
        self.rate = exact_rate(video.average_rate or video.guessed_rate or Fraction(1))
        # Of a file whose frames do not last equally long, the rate where they are shortest.
        guessed = exact_rate(video.guessed_rate or self.rate)
        self.steady_rate = guessed if self.rate < guessed <= MOST_STEADY else self.rate
        self.time_base = video.time_base
        self.width, self.height = video.width, video.height
        self.pixel_aspect = self.upright_aspect = video.sample_aspect_ratio or Fraction(1)
        self.container = container.format.name
        self.brand = container.metadata.get("major_brand", "")
        self.codec = video.codec.canonical_name
        self.pixel_format = video.codec_context.pix_fmt or "yuv420p"
        # FFmpeg writes it in capitals beside the element of that name, and shows the last that it reads.
        alpha = {key.lower(): value for key, value in video.metadata.items()}.get("alpha_mode") == "1"
        self.hides_alpha = self.codec in ("vp8", "vp9") and alpha
        self.hdr = video.codec_context.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
        self.promised = promised(self.head()) if "matroska" in self.container else 0
        self.audio_codecs = [it.codec.canonical_name for it in container.streams.audio if it.codec_context]
        others = len(container.streams) - 1 - len(self.audio_codecs)
        left_out = f"{others} of its tracks, further pictures, subtitles or data, were left out"
        self.left_out = [left_out] * bool(others)
        hidden = [it.is_discard for it in video.index_entries]
        # An edit list can hide the end too, which a copied file would show again; a hidden start it keeps hidden.
        self.hides_its_end = True in hidden[hidden.index(False) :] if False in hidden else False
        # The container's own duration is that of its longest stream, which may be the sound.
        whole = Fraction(container.duration or 0, av.time_base)
        if video.duration:
            whole = video.duration * video.time_base
        # A Matroska file's is the time when it ends.
        begins = (container.start_time or 0) / av.time_base if "matroska" in self.container else 0
        length = float(whole) - max(start, begins)
        self.seconds = min(length, duration) if duration else length
        self.count = max(round(self.seconds * self.rate), 1)
        self.lasts = 1 / self.rate
        self.early = Fraction(0)  # seconds of sound before the first picture
        self.first = int(start / video.time_base)
        self.end = int((start + duration) / video.time_base) if duration else None
        self.origin = self.first  # the pts that becomes 0, for the sound too; the first frame decoded corrects it

    def version_now(self) -> tuple[int, int]:
        """Bytes of the file, and what else tells it from a later one of its name."""
        if isinstance(self.file, io.BytesIO):
            return self.file.getbuffer().nbytes, 0
        path = Path(self.file)
        # A folder of pictures is read by a pattern, which is no file.
        found = (path.parent if path.name == PICTURES else path).stat()
        return found.st_size, found.st_mtime_ns

    def check_version(self):
        """Raise VideoUnreadable where the file is another now: pictures and sound would be of both."""
        # One that is gone is still there for who has opened it.
        with suppress(OSError):
            if self.version_now() != self.version:
                raise VideoUnreadable(reason=f"{self.name} has changed while it was read; run the workflow again")

    def head(self) -> bytes:
        if isinstance(self.file, io.BytesIO):
            return bytes(self.file.getbuffer()[:HEAD_BYTES])
        with open(self.file, "rb") as file:
            return file.read(HEAD_BYTES)

    @property
    def trimmed(self) -> bool:
        return bool(self.start or self.duration)

    def open_file(self) -> av.container.InputContainer:
        file = io.BytesIO(self.file.getbuffer()) if isinstance(self.file, io.BytesIO) else self.file
        try:
            container = av.open(file, options=self.options)
        except (av.FFmpegError, OSError) as error:
            raise self.unreadable(error) from error
        try:
            self.check_version()
            if not container.streams.video:
                raise VideoUnreadable(reason="it has no picture")
            if not container.streams.video[0].codec_context:
                raise VideoUnreadable(reason=f"{self.name}: there is no decoder for its pictures")
        except VideoUnreadable:
            container.close()
            raise
        return container

    @contextmanager
    def open(self) -> Iterator[av.container.InputContainer]:
        """The file, to be read from its beginning. Raises VideoUnreadable."""
        # Picture and sound are read side by side, each in a thread and with a position of its own.
        try:
            container = self.unread.pop()
        except IndexError:
            container = self.open_file()
        with container:
            yield container
        self.check_version()

    def packets(self, container: av.container.InputContainer, streams: list[av.stream.Stream]) -> Iterator[av.Packet]:
        """The packets of these streams from the keyframe of the first before the trim. Raises VideoUnreadable."""
        first, found, begun = streams[0], 0, -math.inf
        try:
            if self.start:
                container.seek(int(self.start / first.time_base), stream=first)
            for packet in container.demux(streams):
                self.poll()
                if packet.stream is first and packet.size:
                    begun = begun if found else packet.dts
                    # One that is cut off is marked so.
                    found += not packet.is_corrupt
                yield packet
        except (av.FFmpegError, OSError) as error:
            raise self.unreadable(error) from error
        # A download that stopped between two packets ends without an error. An MP4's index, unlike its count of frames,
        # holds just the packets that its edit list leaves.
        if "mp4" in self.container:
            known = sum(it.timestamp >= begun for it in first.index_entries)
            if found < known:
                raise VideoUnreadable(reason=f"{self.name} breaks off after {found} of {known} frames")
        if self.bytes < self.promised:
            raise VideoUnreadable(reason=f"{self.name} breaks off after {self.bytes} of {self.promised} bytes")

    def decoded(
        self,
        container: av.container.InputContainer,
        stream: av.stream.Stream,
        decoder: av.CodecContext | None = None,
    ) -> Iterator[av.frame.Frame]:
        for packet in self.packets(container, [stream]):
            try:
                yield from decoder.decode(packet) if decoder else packet.decode()
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
            # FFmpeg's own decoders of VP8 and VP9 leave out the transparency.
            name = f"libvpx{'-vp9' * (self.codec == 'vp9')}"
            decoder = av.CodecContext.create(name, "r") if self.alpha and self.hides_alpha else None
            steady, last, shift, usual = self.is_steady(), None, 0, 1
            for frame in self.decoded(container, video, decoder):
                if frame.pts is None:
                    frame.pts = self.first if last is None else last + 1
                elif last is not None and frame.pts + shift < last - RESTART_SECONDS / self.time_base:
                    # Recordings put one behind the other begin to count again.
                    shift = last + usual - frame.pts
                frame.pts += shift
                if self.end is not None and frame.pts >= self.end:
                    return
                if frame.pts < self.first:
                    continue
                if last is None:
                    self.origin = frame.pts
                    if round(frame.rotation / 90) % 2:
                        self.upright_aspect = 1 / self.pixel_aspect
                # A muxer takes rising times only, and broken files repeat some; no frame is dropped for that.
                before, last = last, frame.pts if last is None else max(frame.pts, last + 1)
                usual = last - before if before is not None else usual
                frame.pts, frame.time_base = last - self.origin, self.time_base
                if steady:
                    frame.pts = round(frame.pts * self.time_base * self.rate)
                    frame.time_base = 1 / self.rate
                until = last + (frame.duration or 0)
                yield frame
            if last is not None and not self.hides_its_end:
                until = (video.start_time or 0) + video.duration if video.duration else until
                until = min(until, self.end) if self.end is not None else until
                self.lasts = max((until - last) * self.time_base, 1 / self.rate)

    def is_steady(self) -> bool:
        """Whether the pictures of a Matroska file or WebM stand where its rate says, but for the coarse clock there."""
        if "matroska" not in self.container:
            return False
        with self.open() as container:
            packets = self.packets(container, [container.streams.video[0]])
            times = sorted(it.pts for it in packets if it.pts is not None)
        steps = [(it - times[0]) * self.time_base * self.rate for it in times]
        most = self.time_base * self.rate * 3 / 2
        places = [round(it) for it in steps]
        return len(set(places)) == len(places) and all(
            abs(it - place) <= most for it, place in zip(steps, places, strict=True)
        )

    def notes(self) -> list[str]:
        has_alpha = self.hides_alpha or keeps_alpha(self.pixel_format)
        early = f"its sound began {float(self.early):.2f} s before its first picture: that was left out"
        late = self.early > SLACK_SECONDS and not self.start
        return self.left_out + [NO_ALPHA] * (has_alpha and not self.alpha) + [early] * late

    def sound(self) -> Sound | None:
        if not self.audio_codecs:
            return None
        with self.open() as container:
            stream = next(it for it in container.streams.audio if it.codec_context)
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
        layout = LAYOUTS.get(channels, "stereo")
        return Sound(rate, layout, self.sound_frames(rate, layout), others=len(self.audio_codecs) - 1)

    def sound_frames(self, rate: int, layout: str) -> Iterator[av.AudioFrame]:
        first = round(self.origin * self.time_base * rate)
        end = round((self.start + self.duration) * rate) if self.duration else None
        with self.open() as container:
            stream = next(it for it in container.streams.audio if it.codec_context)
            resampler = coming = position = None
            for decoded in self.decoded(container, stream):
                begins = round(decoded.pts * decoded.time_base * rate) if decoded.pts is not None else None
                if position is None:
                    position = begins or 0
                    self.early = Fraction(first - position, rate)
                elif begins is not None and begins > position + GAP_SECONDS * rate:
                    # Some cameras and editors write no sound where there is none.
                    yield from silence(max(position, first) - first, begins - first, rate, layout)
                    position = begins
                # Television changes it between two programmes.
                if coming != (kind := (decoded.format.name, decoded.layout.name, decoded.sample_rate)):
                    resampler, coming = av.AudioResampler(format="flt", layout=layout, rate=rate), kind
                for frame in resampler.resample(decoded):
                    low = max(first - position, 0)
                    high = frame.samples if end is None else min(end - position, frame.samples)
                    if low < high:
                        samples = frame.to_ndarray().reshape(frame.samples, -1)[low:high]
                        yield sound_frame(samples, rate, layout, position + low - first)
                    position += frame.samples
                if end is not None and position is not None and position >= end:
                    return


Source = TensorSource | FileSource


def open_source(video: Input.Video, pixel_format: str = "yuv420p", poll: Callable[[], None] = lambda: None) -> Source:
    """The frames of any VIDEO of the host, with all of them that this pixel format can hold.

    poll is called for each packet that is read, from whatever thread; what it raises ends the reading: a cut far from a
    keyframe reads for a long time before its first frame. Raises VideoUnreadable or VideoEmpty.
    """
    if isinstance(video, InputImpl.VideoFromFile):
        return FileSource(video.get_stream_source(), *video.get_active_trim_window(), poll, keeps_alpha(pixel_format))
    if isinstance(video, LazyVideo):
        return TensorSource(video.images, video.shape, video.rate, video.audio, pixel_format)
    if not isinstance(video, Input.Video):
        raise VideoUnreadable(reason=f"it is no VIDEO but {video!r}")
    it = video.get_components()
    if it.images.ndim != 4 or it.images.shape[-1] not in (1, 3, 4) or 0 in it.images.shape[1:]:
        size = "x".join(map(str, it.images.shape))
        raise VideoUnreadable(reason=f"its pictures are {size}, and not frames x height x width x 1, 3 or 4")
    has_alpha = it.images.shape[-1] == 4
    shape = it.images.shape[:3]
    return TensorSource(lambda: it.images, shape, it.frame_rate, lambda: it.audio, pixel_format, has_alpha)


def open_end(video: Input.Video, seconds: float, poll: Callable[[], None]) -> Source:
    """The same, of which a file begins so many seconds and a frame before its end: what lies before is not decoded."""
    source = open_source(video, poll=poll)
    seconds += 1 / float(source.steady_rate)
    if isinstance(source, FileSource) and (skipped := source.seconds - seconds) > 0:
        duration = source.duration and source.duration - skipped
        return FileSource(source.file, source.start + skipped, duration, poll)
    return source
