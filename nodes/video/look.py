"""What is in a saved video, and one picture of it."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ..errors import VideoEmpty, VideoUnreadable
from ..host import progress
from .shape import shaped
from .source import FileSource

# Where in a video its poster is taken, as a share of its frames.
POSTERS = {"none": None, "first": 0.0, "middle": 0.5, "last": 1.0}
# FFmpeg reads no animated WebP, and of a GIF nothing that Pillow does not.
DRAWN = (".webp", ".gif")
# Codecs that the editor's browsers play.
PLAYED = ("h264", "av1", "vp8", "vp9")


def kind_of(path: Path, codec: str | None) -> str | None:
    """How a browser shows a file: as "video", as "image", or, where it can play it as neither, None."""
    return "image" if path.suffix.lower() in DRAWN else "video" if codec in PLAYED else None


def tags(path: Path) -> dict[str, str]:
    """The texts that a file carries, such as prompt and workflow. Raises VideoUnreadable."""
    if path.suffix.lower() in DRAWN:
        try:
            with Image.open(path) as image:
                texts = [it for it in image.getexif().values() if isinstance(it, str)]
        except (OSError, SyntaxError) as error:
            raise VideoUnreadable(reason=f"{path}: {error}") from error
        return {key: value for key, _, value in (it.partition(":") for it in texts)}
    with FileSource(str(path), 0, 0, lambda: None).open() as container:
        # Matroska writes names of tags in capitals.
        return {key.lower(): value for key, value in container.metadata.items()}


def probe(path: Path) -> dict:
    """What the file says of itself, decoding nothing, as JSON has it.

    container (FFmpeg's names), bytes, seconds, codec, pixel_format, size [width, height], frames, rate ("30000/1001"),
    audio {codec, rate, channels} or None, and tags: the names of those it has. Raises VideoUnreadable.
    """
    source = FileSource(str(path), 0, 0, lambda: None)
    with source.open() as container:
        video = container.streams.video[0]
        sound = next((it.codec_context for it in container.streams.audio if it.codec_context), None)
        return {
            "container": container.format.name,
            "bytes": source.bytes,
            "seconds": round(source.seconds, 3),
            "codec": source.codec,
            "pixel_format": video.codec_context.pix_fmt,
            "size": [source.width, source.height],
            "frames": video.frames or source.count,
            "rate": str(source.rate),
            "audio": sound and {"codec": sound.name, "rate": sound.sample_rate, "channels": sound.layout.nb_channels},
            "tags": sorted(container.metadata),
        }


def still(
    path: Path,
    place: float = 0.0,
    box: tuple[int, int] | None = None,
    poll: Callable[[], None] = progress.stop_if_interrupted,
) -> Image.Image:
    """One picture of a saved file, or of a folder of PNGs.

    place: 0 the first, 1 the last. box: width and height that it must fit into; it is never enlarged. poll: as with
    open_source(); by default the interrupt of the prompt that is running. Raises VideoUnreadable and VideoEmpty.
    """
    if path.is_dir():
        drawn = sorted(path.glob("*.png"))
        if not drawn:
            raise VideoEmpty(reason=f"there is no picture in {path}")
        image = opened(drawn[round(place * (len(drawn) - 1))])
    elif path.suffix.lower() in DRAWN:
        image = opened(path, place)
    else:
        image = decoded(path, place, poll)
    if box:
        image.thumbnail(box)
    return image


def opened(path: Path, place: float = 0.0) -> Image.Image:
    try:
        image = Image.open(path)
        image.seek(round(place * (getattr(image, "n_frames", 1) - 1)))
        return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise VideoUnreadable(reason=f"{path}: {error}") from error


def decoded(path: Path, place: float, poll: Callable[[], None]) -> Image.Image:
    wanted, found = place * FileSource(str(path), 0, 0, poll).seconds, None
    # The last before that moment, which a video of few pictures may have shown for long.
    for start in (max(wanted - 1, 0), 0):
        source = FileSource(str(path), start, 0, poll)
        for frame in source.frames():
            if found and frame.pts * frame.time_base + source.origin * source.time_base > wanted:
                break
            found = frame
        if found:
            image = next(shaped(iter([found]), "rgb24")).to_image()
            width = round(image.width * source.upright_aspect)
            return image if width == image.width else image.resize((width, image.height))
    raise VideoEmpty(reason="none can be decoded")
