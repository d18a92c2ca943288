"""A VIDEO under a name of its own in the host's folders, whole or not at all."""

import errno
import itertools
import json
import os
import re
import shutil
import tomllib
from pathlib import Path

import av
from comfy_api.latest import Input

from ..errors import CannotWrite, DiskFull
from ..host import paths, progress
from ..parts import part_in, remove
from .copy import COPIED, copy, copyable
from .encode import Written
from .formats import SEQUENCE, Format, Settings, all_formats
from .hardware import encode_best
from .look import still
from .play import NO_SOUND, REPEAT_SOUND, Play
from .sound import Cycle, tensor_sound
from .source import Source
from .tags import OWN_TAGS

AUTO = "auto"
MARGIN_BYTES = 16_000_000
POSTER_QUALITY = 92
# A low guess, so that nothing that fits is refused: x264 at crf 19 needs more than this for anything that moves.
ENCODED_BYTES_PER_PIXEL = 0.005
VERSION = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]


def tag(value) -> str:
    """JSON whose strings hold no bare brace: the editor counts braces when it reads a WebM."""
    return re.sub(
        r'"(?:[^"\\]|\\.)*"',
        lambda it: it[0].replace("{", "\\u007b").replace("}", "\\u007d"),
        json.dumps(value),
    )


def tags_of(hidden) -> dict[str, str]:
    """prompt and workflow, each a tag of its own as the editor reads them, and ours; none with --disable-metadata."""
    if not paths.metadata_wanted():
        return {}
    values = {**(hidden.extra_pnginfo or {}), "prompt": hidden.prompt, "xavi9": {"version": VERSION}}
    return {key: tag(value) for key, value in values.items() if value is not None}


def check_space(folder: Path, source: Source, copied: bool, play: Play, settings: Settings):
    """Raise DiskFull when the video surely does not fit."""
    pixels = source.width * source.height
    needed = source.bytes if copied else pixels * play.count(source.count) * ENCODED_BYTES_PER_PIXEL
    if play.again:
        needed += pixels * source.count * av.VideoFormat(settings.pixel_format).padded_bits_per_pixel / 8
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN_BYTES:
        megabytes = (needed + MARGIN_BYTES) / 1e6
        raise DiskFull(folder=folder, free=free / 1e6, needed=f"about {megabytes:.0f} MB are needed")


def publish(part: Path, target: paths.Target, extension: str) -> Path:
    """Give a finished file or folder the first free name of the target, never another's, whoever else writes there."""
    ending = f".{extension}" if extension else ""
    for counter in itertools.count(target.counter):
        try:
            return name(part, target.folder / f"{target.stem}_{counter:05}_{ending}")
        except FileExistsError:
            continue


def name(part: Path, final: Path) -> Path:
    """Give a finished file or folder this name. Raises FileExistsError where something has it."""
    try:
        os.link(part, final)
    except FileExistsError:
        raise
    except OSError:
        # A folder, or a file system without hard links. A rename is atomic on each, but onto a file ext4 first writes
        # out all of the new one.
        return rename(part, final)
    try:
        part.unlink()
    except BaseException:
        remove(final)
        raise
    return final


def rename(part: Path, final: Path) -> Path:
    """As name(), where a name cannot be given to what has one."""
    final.mkdir() if part.is_dir() else final.touch(exist_ok=False)
    try:
        return part.replace(final)
    except BaseException:
        remove(final)
        raise


def save_poster(path: Path, place: float) -> Path:
    """A JPEG of one picture beside a video, under its name. place: as with still().

    Raises OSError, of which FileExistsError is one, and what still() raises; then nothing is left.
    """
    poster = path.with_name(f"{path.name if path.is_dir() else path.stem}.jpg")
    image = still(path, place)
    with part_in(path.parent, path.stem) as part:
        image.save(part, "JPEG", quality=POSTER_QUALITY)
        return name(part, poster)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(it.stat().st_size for it in (path.iterdir() if path.is_dir() else [path]))


def format_of(given: dict) -> Format:
    """The format of "format", of which auto encodes in the first."""
    return all_formats()["mp4-h264" if given["format"] == AUTO else given["format"]]


def write(
    source: Source,
    target: paths.Target,
    given: dict,
    audio: Input.Audio | None,
    tags: dict,
    play: Play = Play(),
) -> tuple[Path, Written]:
    """Write `source` under a name of its own in the target's folder. Returns its path and what was written.

    given: "format" and the options of that one. audio replaces the source's own sound. Raises the failures of
    errors.py; then nothing is left.
    """
    container = copyable(source) if given["format"] == AUTO and play.keeps_pictures else None
    format = format_of(given)
    settings = format.settings(given)
    step = progress.frame_steps(play.count(source.count))
    sound = (lambda: tensor_sound(audio)) if audio else source.sound
    try:
        check_space(target.folder, source, bool(container), play, settings)
        with part_in(target.folder, target.stem) as part:
            if container:
                other = play.heard(sound, Cycle(1 / source.rate)) if audio or play.sound == REPEAT_SOUND else None
                keep = play.sound != NO_SOUND and not audio
                written = copy(source, part, container, COPIED[container][2], tags, other, step, keep)
            else:
                if format.container == SEQUENCE:
                    part.mkdir()
                written = encode_best(source, part, format, given, tags, sound, step, play)
                if format.container in OWN_TAGS:
                    OWN_TAGS[format.container](part, tags)
            if audio and play.sound != NO_SOUND and not tensor_sound(audio):
                written.notes.append("it has no sound: the audio has no samples")
            return publish(part, target, container or format.extension), written
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(target.folder).free
            raise DiskFull(folder=target.folder, free=free / 1e6, needed="and more were needed on the way") from error
        raise CannotWrite(folder=target.folder, reason=error.strerror or error) from error
