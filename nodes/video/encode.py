"""A VIDEO into a file: encoded in one pass, picture and sound together."""

import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import torch

from ..errors import EncoderRefused, RateTooHigh, VideoEmpty
from .formats import Format, Settings
from .sound import Sound, Soundtrack
from .source import Source, shaped

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
    """A file with the tags given, where its container has tags.

    The index of an MP4 or MOV stands in front, since the editor reads only the first 64 MB of a dropped file: in the
    bytes kept for it, or with room 0 by writing the file a second time.
    """
    if container in ("mp4", "mov"):
        options["movflags"] = "use_metadata_tags" if room else "use_metadata_tags+faststart"
        options["moov_size"] = str(room)
    output = av.open(str(path), "w", format=container, options=options)
    output.metadata.update(tags)
    return output


def sound_notes(sound: Sound | None) -> list[str]:
    return [f"{sound.mended} audio samples were NaN or infinite and are silent"] if sound and sound.mended else []


def open_encoder(context: av.VideoCodecContext, first: av.VideoFrame, source: Source, format: Format):
    """Set up an encoder for frames like the first. Raises EncoderRefused."""
    context.width, context.height, context.pix_fmt = first.width, first.height, first.format.name
    context.time_base = source.time_base
    context.sample_aspect_ratio = source.pixel_aspect
    context.colorspace, context.color_range = first.colorspace, first.color_range
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    if format.tag:
        context.codec_tag = format.tag
    # PyAV's default is slices, which on x264 costs speed and size.
    context.thread_type = "FRAME"
    try:
        context.open()
    except av.FFmpegError as error:
        # The encoder's own words are in the log line that FFmpeg wrote before.
        said = error.log[2] if error.log else error.strerror
        raise EncoderRefused(
            format=format.key,
            width=first.width,
            height=first.height,
            rate=float(source.rate),
            reason=said.strip(". \n"),
        ) from error


def encode(
    source: Source,
    path: Path,
    format: Format,
    settings: Settings,
    tags: dict[str, str],
    sound: Callable[[], Sound | None],
    step: Callable[[int], None],
) -> Written:
    """Encode every frame of `source` to `path`, picture and sound interleaved.

    step(frames done) is called for each frame, and what it raises ends the work. Raises VideoUnreadable, VideoEmpty,
    EncoderRefused and OSError (disk); the caller removes the file then.
    """
    if format.max_rate and source.rate > format.max_rate:
        raise RateTooHigh(format=format.key, rate=float(source.rate), most=format.max_rate)
    pictures = ahead(shaped(source.frames(), settings.pixel_format))
    first = next(pictures, None)
    if first is None:
        raise VideoEmpty(reason="none lies inside its trim")
    audio = sound()
    notes = []
    if audio and not format.audio_encoder:
        notes.append(f"{format.key} holds no sound: it was left out")
        audio = None
    with open_output(path, format.container, tags, **settings.muxer) as output:
        video = output.add_stream(settings.encoder, rate=source.rate, options=settings.options)
        context = video.codec_context
        open_encoder(context, first, source, format)
        soundtrack = Soundtrack(output, format.audio_encoder, audio) if audio else None
        # The encoder holds back some dozens of frames: what it has let go says how far the sound may be.
        done = 0
        for frame in chain([first], pictures, [None]):
            for packet in video.encode_lazy(frame):
                at = float(packet.dts * packet.time_base)
                output.mux(packet)
                if soundtrack:
                    soundtrack.up_to(at, lambda: step(done))
                # At the end the encoder still has all that it held back to do.
                step(done)
            if frame is not None:
                done, seconds = done + 1, frame.time + float(1 / source.rate)
                step(done)
        if soundtrack:
            soundtrack.up_to(math.inf, lambda: step(done))
    notes += sound_notes(audio)
    # PyAV can tell no other muxer.
    if source.pixel_aspect != 1 and format.container not in ("mp4", "mov"):
        notes.append(f"its pixels are {source.pixel_aspect} as wide as high, which {format.key} was not told")
    if context.width * context.height != source.width * source.height:
        notes.append(
            f"{source.width}x{source.height} became {context.width}x{context.height} (last row or column repeated), "
            "because its pixel format needs an even size"
        )
    size = (context.width, context.height)
    return Written(context.codec.canonical_name, settings.encoder, done, *size, seconds, source.rate, notes)
