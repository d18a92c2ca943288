"""A VIDEO's own stream in a new file, with other tags or another sound, neither decoded nor encoded."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av

from .encode import Written, open_output, sound_notes
from .play import length_notes
from .sound import Sound, Soundtrack
from .source import FileSource, Source

# By container: the codecs of pictures and of sound, and the encoder of another sound.
COPIED = {
    "mp4": ({"h264", "hevc", "av1", "vp9", "mpeg4"}, {"aac", "mp3", "opus", "ac3", "eac3", "flac", "alac"}, "aac"),
    "webm": ({"vp8", "vp9", "av1"}, {"opus", "vorbis"}, "libopus"),
}
# H.265 under any other tag is refused there.
PLAYED_BY_APPLE = "hvc1"
# What people write about a video. All else is its last program's word on itself.
ABOUT = ("title", "artist", "comment", "date", "description", "copyright")
# From here on, the second pass over a copied file costs more than some space kept free for its index.
LARGE_BYTES = 8_000_000
# FFmpeg writes a file in pieces of this size, which ext4 takes a fifth faster where they begin at multiples of it.
PIECE_BYTES = 1 << 18
# What lies before the packets beside the index: ftyp, with the four brands of H.264, and the heads of free and mdat.
BOXES_BYTES = 32 + 8 + 8


def copyable(source: Source) -> str | None:
    """The container in which `auto` keeps a source's own stream: mp4 or webm, or None when it has to be encoded."""
    if not isinstance(source, FileSource) or source.brand == "qt  " or source.hides_its_end:
        return None
    for container, (pictures, sounds, _) in COPIED.items():
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

    After it the packets begin at a whole number of PIECE_BYTES. 0 when a stream does not tell its number of packets.
    """
    if not all(it.frames for it in streams):
        return 0
    extra = sum(len(it.codec_context.extradata or b"") for it in streams)
    index = 48 * sum(it.frames for it in streams) + extra + sum(len(it.encode()) + 128 for it in tags.values())
    return math.ceil((BOXES_BYTES + 64_000 + index) / PIECE_BYTES) * PIECE_BYTES - BOXES_BYTES


def copy(
    source: FileSource,
    path: Path,
    container: str,
    audio_encoder: str,
    tags: dict[str, str],
    sound: Sound | None,
    step: Callable[[int], None],
    keep_sound: bool = True,
) -> Written:
    """Copy the stream of a `copyable` source to `path`, inside its trim, neither decoded nor encoded.

    `sound` replaces the source's own, which is copied where there is none and keep_sound. step and what is raised are
    as with encode().
    """
    done = end = 0
    with source.open() as old:
        streams = [old.streams.video[0]]
        if sound is None and keep_sound:
            streams += [it for it in old.streams.audio if it.codec_context]
        tags = {key: old.metadata[key] for key in ABOUT if key in old.metadata} | tags
        room = index_bytes(streams, tags) if sound is None and source.bytes >= LARGE_BYTES else 0
        with open_output(path, container, tags, room) as output:
            new = {it.index: output.add_stream_from_template(it) for it in streams}
            for it in streams:
                new[it.index].metadata["language"] = it.language or "und"
            if source.hides_alpha:
                # Without it no player looks for the transparency that is stored beside the picture.
                new[streams[0].index].metadata["alpha_mode"] = "1"
            if streams[0].codec_context.codec_tag == PLAYED_BY_APPLE:
                new[streams[0].index].codec_context.codec_tag = PLAYED_BY_APPLE
            soundtrack = Soundtrack(output, audio_encoder, sound) if sound else None
            late = max(streams[0].start_time or 0, 0)
            # A cut, and another sound, begin with the first picture.
            begins = source.origin if source.trimmed else late if sound else 0
            for packet in source.packets(old, streams):
                if packet.dts is None:
                    continue
                if begins or source.trimmed:
                    shift = round(begins * source.time_base / packet.time_base)
                    at = int(packet.pts * packet.time_base / source.time_base)
                    if source.trimmed and (not source.inside(at) or packet.pts < shift):
                        continue
                    packet.pts -= shift
                    packet.dts -= shift
                if packet.stream is streams[0]:
                    # An edit list may hide pictures that others need.
                    done += not packet.is_discard
                    step(done)
                    end = max(end, packet.pts + (packet.duration or 0))
                    if soundtrack:
                        soundtrack.up_to(packet.dts * packet.time_base, lambda: step(done))
                packet.stream = new[packet.stream.index]
                output.mux_one(packet)
            if not source.trimmed and streams[0].duration:
                # Where pictures are stored in another order, a packet does not know its duration.
                end = min(end, (streams[0].start_time or 0) - begins + streams[0].duration)
            length = Fraction((end - (0 if source.trimmed else late - begins)) * streams[0].time_base)
            if soundtrack:
                soundtrack.end_at(length, lambda: step(done))
        context = streams[0].codec_context
        size = (context.width, context.height)
        notes = [*length_notes(sound, length), *sound_notes(sound)]
        return Written(source.codec, "copy", done, *size, float(length), source.rate, notes + source.left_out)
