"""A VIDEO into a file: encoded in one pass, picture and sound together, or its stream copied as it is."""

import contextvars
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import torch
from av.video.reformatter import ColorRange

from ..errors import VideoEmpty
from .formats import Format
from .source import FileSource, Sound, Source, shaped

T = TypeVar("T")

AHEAD = 4
COPIED = {
    "mp4": ({"h264", "hevc", "av1", "vp9", "mpeg4"}, {"aac", "mp3", "opus", "ac3", "eac3", "flac", "alac"}),
    "webm": ({"vp8", "vp9", "av1"}, {"opus", "vorbis"}),
}
BITS_PER_CHANNEL = 96_000
# From here on, the second pass over a copied file costs more than some kilobytes kept free for its index.
LARGE_BYTES = 8_000_000


@dataclass
class Written:
    """What is in the file: codec, pictures, size in pixels, seconds, and in words what had to be changed."""

    codec: str
    frames: int
    width: int
    height: int
    seconds: float
    notes: list[str]


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


def open_output(path: Path, container: str, tags: dict[str, str], room: int = 0) -> av.container.OutputContainer:
    """An MP4 or WebM with the tags given.

    An MP4's index stands in front, since the editor reads only the first 64 MB of a dropped file: in the bytes kept for
    it, or with room 0 by writing the file a second time.
    """
    options = {}
    if container == "mp4":
        options = {"movflags": "use_metadata_tags" if room else "use_metadata_tags+faststart", "moov_size": str(room)}
    output = av.open(str(path), "w", format=container, options=options)
    output.metadata.update(tags)
    return output


def sound_notes(sound: Sound | None) -> list[str]:
    return [f"{sound.mended} audio samples were NaN or infinite and are silent"] if sound and sound.mended else []


def encode(
    source: Source,
    path: Path,
    format: Format,
    options: dict,
    tags: dict[str, str],
    sound: Callable[[], Sound | None],
    step: Callable[[int], None],
) -> Written:
    """Encode every frame of `source` to `path`, picture and sound interleaved.

    step(frames done) is called for each frame, and what it raises ends the work. Raises VideoUnreadable, VideoEmpty and
    OSError (disk); the caller removes the file then.
    """
    pixel_format, encoder_options = format.settings(options)
    pictures = ahead(shaped(source, source.frames(), pixel_format))
    first = next(pictures, None)
    if first is None:
        raise VideoEmpty(reason="none lies inside its trim")
    audio = sound()
    with open_output(path, format.container, tags) as output:
        video = output.add_stream(format.encoder, rate=source.rate, options=encoder_options)
        context = video.codec_context
        context.width, context.height, context.pix_fmt = first.width, first.height, pixel_format
        context.time_base = source.time_base
        context.colorspace, context.color_range = first.colorspace, ColorRange.MPEG
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        # PyAV's default is slices, which on x264 costs speed and size.
        context.thread_type = "FRAME"
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
    notes = sound_notes(audio)
    if context.width * context.height != source.width * source.height:
        notes.append(
            f"{source.width}x{source.height} became {context.width}x{context.height} (last row or column repeated), "
            "because its pixel format needs an even size"
        )
    return Written(context.codec.canonical_name, done, context.width, context.height, seconds, notes)


def copyable(source: Source) -> str | None:
    """The container in which `auto` keeps a source's own stream: mp4 or webm, or None when it has to be encoded."""
    if not isinstance(source, FileSource) or source.brand == "qt  " or source.hides_its_end:
        return None
    for container, (pictures, sounds) in COPIED.items():
        if container in source.container and source.codec in pictures and set(source.audio_codecs) <= sounds:
            return container if not source.trimmed or cut_is_exact(source) else None
    return None


def cut_is_exact(source: FileSource) -> bool:
    """Whether the picture packets inside the trim stand together in the file and begin with a keyframe.

    Otherwise a copy would miss pictures, or hold some that cannot be decoded.
    """
    kept = ended = False
    with source.open() as container:
        video = container.streams.video[0]
        for packet in source.packets(container, [video]):
            if packet.dts is None or (source.end is not None and packet.dts >= source.end):
                break
            if not source.inside(packet.pts):
                ended = kept
            elif ended or not (kept or packet.is_keyframe):
                return False
            elif not kept:
                kept, source.origin = True, packet.pts
    return kept


def index_bytes(streams: list[av.stream.Stream], tags: dict[str, str]) -> int:
    """Room that the index of a copied MP4 surely fits in: up to 48 bytes a packet (ISO 14496-12, 8.6 and 8.7).

    0 when a stream does not tell its number of packets.
    """
    if not all(it.frames for it in streams):
        return 0
    extra = sum(len(it.codec_context.extradata or b"") for it in streams)
    return 64_000 + 48 * sum(it.frames for it in streams) + extra + sum(len(it.encode()) + 128 for it in tags.values())


def copy(
    source: FileSource,
    path: Path,
    container: str,
    audio_encoder: str,
    tags: dict[str, str],
    sound: Sound | None,
    step: Callable[[int], None],
) -> Written:
    """Copy the stream of a `copyable` source to `path`, inside its trim, neither decoded nor encoded.

    `sound` replaces the source's own. step and what is raised are as with encode().
    """
    done = end = 0
    with source.open() as old:
        streams = [old.streams.video[0]]
        if sound is None:
            streams += [it for it in old.streams.audio if it.codec_context]
        room = index_bytes(streams, tags) if sound is None and source.bytes >= LARGE_BYTES else 0
        with open_output(path, container, tags, room) as output:
            new = {it.index: output.add_stream_from_template(it) for it in streams}
            soundtrack = Soundtrack(output, audio_encoder, sound) if sound else None
            for packet in source.packets(old, streams):
                if packet.dts is None:
                    continue
                if source.trimmed:
                    began = source.origin * source.time_base
                    shift = round(began / packet.time_base)
                    if not source.inside(int(packet.pts * packet.time_base / source.time_base)) or packet.pts < shift:
                        continue
                    packet.pts -= shift
                    packet.dts -= shift
                if packet.stream is streams[0]:
                    # An edit list may hide pictures that others need.
                    done += not packet.is_discard
                    step(done)
                    end = max(end, packet.pts + (packet.duration or 0))
                    if soundtrack:
                        soundtrack.up_to(float(packet.dts * packet.time_base), lambda: step(done))
                packet.stream = new[packet.stream.index]
                output.mux_one(packet)
            if soundtrack:
                soundtrack.up_to(math.inf, lambda: step(done))
        context = streams[0].codec_context
        seconds = float(end * streams[0].time_base)
        return Written(source.codec, done, context.width, context.height, seconds, sound_notes(sound))
