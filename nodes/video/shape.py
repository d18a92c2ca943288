"""Frames made upright, of an even size where it must be, and of an encoder's pixel format."""

import math
from collections.abc import Iterator
from fractions import Fraction

import av
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from .planes import as_bt709

TRANSPOSE = {1: [("transpose", "cclock")], 2: [("hflip", None), ("vflip", None)], 3: [("transpose", "clock")]}
PALETTE = "pal8"
# Of a new frame's time: some containers round times to milliseconds.
SLACK = Fraction(1, 20)


def fitting(width: int, height: int, box: tuple[int, int], square: bool = True) -> list[tuple[str, str]]:
    """Filters that scale a picture into `box` (width, height), keeping its shape, on black.

    width, height: as it is seen; square: whether its pixels are, so that it may have this size already.
    """
    if square and (width, height) == box:
        return []
    scale = min(box[0] / width, box[1] / height)
    inner = [min(max(2 * round(side * scale / 2), 2), most) for side, most in zip((width, height), box, strict=True)]
    left, top = ((outer - it) // 2 for outer, it in zip(box, inner, strict=True))
    return [("scale", f"{inner[0]}:{inner[1]}"), ("pad", f"{box[0]}:{box[1]}:{left}:{top}"), ("setsar", "1")]


def evened(width: int, height: int, pixel_format: str) -> list[tuple[str, str]]:
    """Filters that repeat the last row or column where two of them share their colour."""
    layout = av.VideoFormat(pixel_format)
    right, bottom = width % 2 * (layout.chroma_width(2) == 1), height % 2 * (layout.chroma_height(2) == 1)
    if not (right or bottom):
        return []
    return [
        ("pad", f"{width + right}:{height + bottom}"),
        ("fillborders", f"right={right}:bottom={bottom}:mode=smear"),
    ]


def shaping(
    frame: av.VideoFrame, pixel_format: str, box: tuple[int, int] | None, pixel_aspect: Fraction
) -> av.filter.Graph | None:
    """What turns frames like this one upright and gives them the size of shaped(); None when nothing has to be done."""
    turns = round(frame.rotation / 90) % 4
    width, height = frame.width, frame.height
    if box:
        width = round(width * pixel_aspect)
    if turns % 2:
        width, height = height, width
    steps = TRANSPOSE.get(turns, []) + (
        fitting(width, height, box, pixel_aspect == 1) if box else evened(width, height, pixel_format)
    )
    if not steps and pixel_format != PALETTE:
        return None
    graph = av.filter.Graph()
    begin = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    filters = [begin, *(graph.add(*step) for step in steps)]
    end = graph.add("buffersink")
    if pixel_format != PALETTE:
        graph.link_nodes(*filters, end).configure()
        return graph
    # A palette of each picture's own: one for all could be made only after the last.
    both, palette, use = (
        graph.add("split"),
        graph.add("palettegen", "stats_mode=single"),
        graph.add("paletteuse", "new=1"),
    )
    graph.link_nodes(*filters, both)
    both.link_to(use, 0, 0)
    both.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(end)
    graph.configure()
    return graph


def shaped(
    frames: Iterator[av.VideoFrame],
    pixel_format: str,
    box: tuple[int, int] | None = None,
    pixel_aspect: Fraction = Fraction(1),
) -> Iterator[av.VideoFrame]:
    """The frames upright and in a pixel format. RGB becomes limited-range BT.709 where that is a YUV one.

    With `box` (width, height) they are scaled into it with square pixels, pixel_aspect being the shape of theirs; else
    they are only made even where the pixel format needs it.
    """
    graph = size = None
    # Kept, since it would set itself up for each frame anew.
    reformatter = VideoReformatter()
    to_rgb = av.VideoFormat(pixel_format).is_rgb or pixel_format == PALETTE
    for index, frame in enumerate(frames):
        pts, time_base, rgb = frame.pts, frame.time_base, frame.format.is_rgb
        kind = (frame.width, frame.height, frame.format.name)
        if index == 0:
            graph, coming = shaping(frame, pixel_format, box, pixel_aspect), kind
        if graph:
            # A stream may change its size on the way; a graph has one.
            if kind != coming:
                frame = frame.reformat(*coming)
            graph.push(frame)
            frame = graph.pull()
        size = size or (frame.width, frame.height)
        if pixel_format != PALETTE:
            frame = reformatter.reformat(
                frame,
                *size,
                format=pixel_format,
                dst_colorspace=Colorspace.ITU709 if rgb and not to_rgb else None,
                dst_color_range=ColorRange.JPEG if to_rgb else ColorRange.MPEG,
                # Of planar 16-bit RGB, which filters make, swscale's threads spoil the first pixels of their slices
                # (FFmpeg 8.0: eight of luma, seen at odd widths).
                threads=1 if graph else 0,
            )
        if rgb and not to_rgb:
            as_bt709(frame)
        frame.pts, frame.time_base = pts, time_base
        # The source's own picture types would force the encoder's.
        frame.pict_type = 0
        yield frame


def at_rate(
    frames: Iterator[av.VideoFrame], rate: Fraction, fps: int | Fraction, hold: bool
) -> Iterator[av.VideoFrame]:
    """The frames that are seen at 0, 1/fps, 2/fps ... seconds, numbered so.

    The last one lasts 1/rate seconds, or for ever with `hold`.
    """
    last, count = None, 0
    # Where the new frames are the longer ones, no whole old one.
    slack = min(SLACK, fps / Fraction(rate) / 4)

    def until(end: float) -> Iterator[av.VideoFrame]:
        nonlocal count
        while count < end:
            last.pts, last.time_base = count, 1 / Fraction(fps)
            yield last
            count += 1

    time = Fraction(0)
    for frame in frames:
        time = frame.pts * frame.time_base
        if last:
            yield from until(math.ceil(time * fps - slack))
        last = frame
    if last:
        yield from until(math.inf if hold else max(math.ceil((time + 1 / rate) * fps - slack), 1))
