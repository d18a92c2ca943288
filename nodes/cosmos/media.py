"""Conditioning media made to fit the video that is asked for: an image as PNG, a clip as H.264 MP4."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

import av
from av.video.reformatter import ColorRange
from comfy_api.latest import Input

from ..errors import OneOfImageAndVideo, VideoEmpty
from ..pictures import check_image, fitted
from ..video.source import at_rate, open_source, shaped

MIME = {"image": "image/png", "video": "video/mp4"}
# Finer than x264's default of 23, since the model goes on from every artefact that it sees.
CLIP_OPTIONS = {"crf": "14", "preset": "fast"}


@dataclass(frozen=True)
class Media:
    """A fitted file. kind is "image" or "video"; frames counts its pictures.

    A request holds `mark` where the file's base64 belongs, so that the file is never whole in memory.
    """

    kind: str
    path: Path
    frames: int
    mark: str

    @property
    def data_url(self) -> str:
        return f"data:{MIME[self.kind]};base64,{self.mark}"


def check_one(image: bool, video: bool):
    """Raise OneOfImageAndVideo unless just one of them is there."""
    if image == video:
        raise OneOfImageAndVideo(given="both" if image else "neither")


def check_media(image: Input.Image | None, video: Input.Video | None):
    """Raise what check_one() raises, or ImageNotUsable for an image that is not one picture of finite values."""
    check_one(image is not None, video is not None)
    if image is not None:
        check_image(image)


def fit_image(image: Input.Image, size: tuple[int, int], path: Path) -> Media:
    """Write an image as PNG of `size` (width, height), as pictures.fitted() makes it."""
    fitted(image, size).save(path, "PNG", compress_level=1)
    return Media("image", path, 1, uuid4().hex)


def fit_clip(
    video: Input.Video,
    size: tuple[int, int],
    fps: int,
    frames: int,
    hold: bool,
    path: Path,
    poll: Callable[[], None],
) -> Media:
    """Write the start of a VIDEO, inside its trim, as `size` (width, height) at `fps`, on black, silent, yuv420p.

    It has at most `frames` pictures, with `hold` exactly so many, its last one standing still. What `poll` raises ends
    the work. Raises VideoUnreadable, VideoEmpty and OSError (disk).
    """
    source = open_source(video, poll=poll)
    pictures = shaped(at_rate(source.frames(), source.rate, fps, hold), "yuv420p", size, source.pixel_aspect)
    count = 0
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=fps, options=CLIP_OPTIONS)
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt, context.color_range = "yuv420p", ColorRange.MPEG
        for picture in islice(pictures, frames):
            poll()
            if not count:
                context.colorspace = picture.colorspace
                context.color_primaries, context.color_trc = picture.color_primaries, picture.color_trc
            output.mux(stream.encode(picture))
            count += 1
        if not count:
            raise VideoEmpty(reason="none lies inside its trim")
        output.mux(stream.encode(None))
    return Media("video", path, count, uuid4().hex)
