"""A VIDEO into a file: encoded in one pass, picture and sound together."""

import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import torch
from av.codec.codec import UnknownCodecError

from ..errors import EncoderRefused, RateTooHigh, VideoEmpty
from .formats import SEQUENCE, Format, Settings, pattern
from .play import Fitted, Play, played
from .sound import Cycle, Sound, Soundtrack
from .source import Source, shaped
from .tensors import is_deep

T = TypeVar("T")

AHEAD = 4


@dataclass
class Written:
    """What is in the file: codec, pictures, size in pixels, seconds, rate, and in words what had to be changed.

    encoder: what made it, or "copy".
    """

    codec: str
    encoder: str
    frames: int
    width: int
    height: int
    seconds: float
    rate: Fraction
    notes: list[str]

    def record(self) -> dict:
        """The same as JSON has it."""
        return {**asdict(self), "rate": str(self.rate), "seconds": round(self.seconds, 3)}


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Iterate in a thread of its own, at most AHEAD items early, with the caller's context and inference mode."""
    end = object()
    context = contextvars.copy_context()

    def fetch():
        # Inference mode belongs to a thread.
        with torch.inference_mode():
            return next(items, end)

    pool = ThreadPoolExecutor(1, thread_name_prefix="frames")
    try:
        waiting = deque(pool.submit(context.run, fetch) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(context.run, fetch))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def open_output(
    path: Path, container: str, tags: dict[str, str], room: int = 0, **options: str
) -> av.container.OutputContainer:
    """A file, or a folder of pictures, with the tags given where its container has tags.

    The index of an MP4 or MOV stands in front, since the editor reads only the first 64 MB of a dropped file: in the
    bytes kept for it, or with room 0 by writing the file a second time.
    """
    if container in ("mp4", "mov"):
        options["movflags"] = "use_metadata_tags" if room else "use_metadata_tags+faststart"
        options["moov_size"] = str(room)
    name = pattern(path) if container == SEQUENCE else str(path)
    output = av.open(name, "w", format=container, options=options)
    output.metadata.update(tags)
    return output


def sound_notes(sound: Sound | None) -> list[str]:
    notes = []
    if sound and sound.mended:
        notes.append(f"{sound.mended} audio samples were NaN or infinite and are silent")
    if sound and sound.others:
        notes.append(f"of its {sound.others + 1} sound tracks only the first was taken")
    return notes


def open_encoder(context: av.VideoCodecContext, first: av.VideoFrame, source: Source, format: Format):
    """Set up an encoder for frames like the first. Raises EncoderRefused."""
    context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
    context.time_base = first.time_base
    context.sample_aspect_ratio = source.upright_aspect
    context.colorspace, context.color_range = first.colorspace, first.color_range
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    if format.tag:
        context.codec_tag = format.tag
    # PyAV's default is slices, which on x264 costs speed and size.
    context.thread_type = "FRAME"
    with refusals(format, first, source):
        context.open()


def refused(format: Format, first: av.VideoFrame, source: Source, reason: str) -> EncoderRefused:
    size = {"width": first.width, "height": first.height}
    return EncoderRefused(format=format.key, rate=float(source.rate), reason=reason.strip(". \n"), **size)


@contextmanager
def refusals(format: Format, first: av.VideoFrame, source: Source):
    """Raise EncoderRefused for what FFmpeg raises inside."""
    try:
        yield
    except UnknownCodecError as error:
        raise refused(format, first, source, f"this PyAV has no {error}") from error
    except av.FFmpegError as error:
        # The encoder's own words are in the log line that FFmpeg wrote before.
        raise refused(format, first, source, error.log[2] if error.log else error.strerror) from error


def told_apart(frames: Iterator[av.VideoFrame], format: Format) -> Iterator[av.VideoFrame]:
    """The frames. Raises RateTooHigh for two that the container's clock cannot tell apart."""
    last = None
    for frame in frames:
        at = frame.pts * frame.time_base
        if format.max_rate and last is not None and at - last < Fraction(1, format.max_rate):
            raise RateTooHigh(format=format.key, rate=float(1 / (at - last)), most=format.max_rate)
        last = at
        yield frame


def begin(
    source: Source,
    folder: Path,
    format: Format,
    settings: Settings,
    sound: Callable[[], Sound | None],
    play: Play,
) -> tuple[av.VideoFrame, Fitted]:
    """The first frame, and all of them with their sound as `play` wants them, in the encoder's pixel format.

    Raises RateTooHigh, VideoUnreadable, VideoEmpty.
    """
    pictures = told_apart(shaped(source.frames(), settings.pixel_format), format)
    cycle = Cycle(1 / source.rate)
    pictures = ahead(played(pictures, play, lambda: source.lasts, folder, cycle))
    first = next(pictures, None)
    if first is None:
        raise VideoEmpty(reason="none lies inside its trim")
    audio = play.heard(sound, cycle)
    notes = []
    if audio and not format.audio_encoder:
        notes.append(f"{format.key} holds no sound: it was left out")
        audio = None
    return first, Fitted(chain([first], pictures), audio, play, source.rate, notes, lambda: source.lasts)


def end(source: Source, format: Format, encoder: str, codec: str, first: av.VideoFrame, fitted: Fitted) -> Written:
    """What was written, when the last frame is."""
    notes = fitted.notes + sound_notes(fitted.sound) + source.notes()
    # PyAV cannot tell their muxers.
    if source.upright_aspect != 1 and format.container in ("webm", "matroska", "webp"):
        notes.append(f"its pixels are {source.upright_aspect} as wide as high, which {format.key} was not told")
    if source.hdr and format.container in ("gif", "webp", SEQUENCE):
        notes.append(f"its HDR colours were not converted: {format.key} cannot say that they are, and looks pale")
    elif source.hdr and not is_deep(first.format.name):
        notes.append("it is HDR with 8 bits now, which may show bands in a sky: 10 bits do not")
    if first.width * first.height != source.width * source.height:
        notes.append(
            f"{source.width}x{source.height} became {first.width}x{first.height} (last row or column repeated), "
            "because its pixel format needs an even size"
        )
    size = (first.width, first.height)
    return Written(codec, encoder, fitted.count, *size, float(fitted.end), source.rate, notes)


def encode(
    source: Source,
    path: Path,
    format: Format,
    settings: Settings,
    tags: dict[str, str],
    sound: Callable[[], Sound | None],
    step: Callable[[int], None],
    play: Play = Play(),
) -> Written:
    """Encode every frame of `source` to `path`, picture and sound interleaved.

    step(frames done) is called for each frame, and what it raises ends the work. Raises VideoUnreadable, VideoEmpty,
    EncoderRefused and OSError (disk); the caller removes the file then.
    """
    first, fitted = begin(source, path.parent, format, settings, sound, play)

    def encoded(frame: av.VideoFrame | None) -> Iterator[av.Packet]:
        with refusals(format, first, source):
            yield from video.encode_lazy(frame)

    if min(first.width, first.height) < settings.min_side:
        raise refused(format, first, source, f"its encoder takes no side below {settings.min_side}")
    with open_output(path, format.container, tags, **settings.muxer) as output:
        with refusals(format, first, source):
            video = output.add_stream(settings.encoder, rate=source.rate, options=settings.options)
        context = video.codec_context
        open_encoder(context, first, source, format)
        soundtrack = Soundtrack(output, format.audio_encoder, fitted.sound) if fitted.sound else None
        waiting, begun = None, None
        # The encoder holds back some dozens of frames: what it has let go says how far the sound may be.
        for frame in chain(fitted.frames(), [None]):
            for packet in encoded(frame):
                if frame is None and fitted.count <= 2:
                    # So few are stored in their order, and x265 has not set it yet.
                    packet.dts = packet.pts
                at = packet.dts * packet.time_base
                begun = at if begun is None else begun
                if waiting:
                    output.mux(waiting)
                waiting = packet
                if soundtrack:
                    soundtrack.up_to(at, lambda: step(fitted.count))
                # At the end the encoder still has all that it held back to do.
                step(fitted.count)
            step(fitted.count)
        if format.container in ("mp4", "mov"):
            # It is as long as its packets in their own order: of pictures that last unequally the end would be missing.
            whole, offset = (round(it / waiting.time_base) for it in (fitted.end, begun))
            waiting.dts = max(waiting.dts, waiting.pts + offset)
            waiting.duration = min(whole + offset - waiting.dts, whole - waiting.pts)
        output.mux(waiting)
        if soundtrack:
            soundtrack.end_at(fitted.end, lambda: step(fitted.count))
    return end(source, format, settings.encoder, context.codec.canonical_name, first, fitted)
