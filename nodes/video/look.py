"""What is in a saved video, and one picture of it."""

from fractions import Fraction
from pathlib import Path

from PIL import Image

from ..errors import VideoEmpty, VideoUnreadable
from ..host import progress
from .shape import shaped
from .source import FileSource

# Where in a video its poster is taken, as a share of its frames.
POSTERS = {"none": None, "first": 0.0, "middle": 0.5, "last": 1.0}
POSTER_QUALITY = 92
# FFmpeg reads no animated WebP, and of a GIF nothing that Pillow does not.
DRAWN = (".webp", ".gif")


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


def still(path: Path, place: float = 0.0, box: tuple[int, int] | None = None) -> Image.Image:
    """One picture of a saved file, or of a folder of PNGs.

    place: 0 the first, 1 the last. box: width and height that it must fit into; it is never enlarged. Raises
    VideoUnreadable and VideoEmpty.
    """
    if path.is_dir():
        drawn = sorted(path.iterdir())
        image = opened(drawn[round(place * (len(drawn) - 1))])
    elif path.suffix in DRAWN:
        image = opened(path, place)
    else:
        image = decoded(path, place)
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


def decoded(path: Path, place: float) -> Image.Image:
    whole = FileSource(str(path), 0, 0, progress.stop_if_interrupted)
    # Half a frame later, for the clock of some containers is coarse.
    wanted = (round(place * (whole.count - 1)) + Fraction(1, 2)) / whole.rate
    # Its own count of frames is a guess where it does not say how many: the last before that moment will do.
    start = max(float(wanted) - 1, 0)
    source, found = FileSource(str(path), start, 0, progress.stop_if_interrupted), None
    for frame in source.frames():
        if found and frame.pts * frame.time_base + source.origin * source.time_base > wanted:
            break
        found = frame
    if found is None:
        raise VideoEmpty(reason="none can be decoded")
    image = next(shaped(iter([found]), "rgb24")).to_image()
    width = round(image.width * source.pixel_aspect)
    return image if width == image.width else image.resize((width, image.height))


def save_poster(path: Path, place: float) -> Path:
    """A JPEG of one picture beside the file, under its name. Raises OSError, FileExistsError too, and as still()."""
    poster = path.with_suffix(".jpg")
    image = still(path, place)
    with poster.open("xb") as file:
        image.save(file, "JPEG", quality=POSTER_QUALITY)
    return poster
