"""Video Save, as the editor shows it."""

import errno
import itertools
import json
import logging
import re
import shutil
import tomllib
from pathlib import Path
from uuid import uuid4

from comfy_api.latest import Input, InputImpl, io, ui

from .. import index
from ..errors import CannotWrite, DiskFull, UnknownFormat
from ..host import paths, progress
from .encode import copy, copyable, encode
from .formats import all_formats
from .source import Source, open_source, tensor_sound

log = logging.getLogger(__name__)

AUTO = "auto"
MARGIN_BYTES = 16_000_000
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


def check_space(folder: Path, source: Source, copied: bool):
    """Raise DiskFull when the video surely does not fit."""
    pixels = source.width * source.height * source.count
    needed = source.bytes if copied else pixels * ENCODED_BYTES_PER_PIXEL
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN_BYTES:
        megabytes = (needed + MARGIN_BYTES) / 1e6
        raise DiskFull(folder=folder, free=free / 1e6, needed=f"about {megabytes:.0f} MB are needed")


def publish(part: Path, target: paths.Target, extension: str) -> Path:
    """Give a finished file the first free name of the target, never another file's, whoever else writes there."""
    for counter in itertools.count(target.counter):
        final = target.folder / f"{target.stem}_{counter:05}_.{extension}"
        try:
            # Only this is atomic on every file system that people save to; a hard link is not to be had on some.
            final.touch(exist_ok=False)
        except FileExistsError:
            continue
        try:
            return part.replace(final)
        except BaseException:
            final.unlink()
            raise


def write(source: Source, target: paths.Target, format: dict, audio: Input.Audio | None, tags: dict):
    """Write `source` under a name of its own in the target's folder. Returns its path and what was written.

    Raises the failures of errors.py; then no file is left.
    """
    container = copyable(source) if format["format"] == AUTO else None
    chosen = all_formats()["mp4-h264" if format["format"] == AUTO else format["format"]]
    step = progress.frame_steps(source.count)
    part = target.folder / f".{target.stem}-{uuid4().hex}.part"
    try:
        check_space(target.folder, source, copied=bool(container))
        if container:
            sound = tensor_sound(audio, source.seconds) if audio else None
            written = copy(source, part, container, {"mp4": "aac", "webm": "libopus"}[container], tags, sound, step)
        else:
            sound = (lambda: tensor_sound(audio, source.count / source.rate)) if audio else source.sound
            written = encode(source, part, chosen, format, tags, sound, step)
        return publish(part, target, container or chosen.extension), written
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(target.folder).free
            raise DiskFull(folder=target.folder, free=free / 1e6, needed="and more were needed on the way") from error
        raise CannotWrite(folder=target.folder, reason=error.strerror or error) from error
    finally:
        part.unlink(missing_ok=True)


class VideoSave(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        keep = io.DynamicCombo.Option(AUTO, [])
        options = [io.DynamicCombo.Option(key, it.inputs()) for key, it in all_formats().items()]
        return io.Schema(
            node_id="Xavi9VideoSave",
            display_name="Video Save",
            category="Xavi9Videos/Video",
            description="Saves a video with its sound and its workflow inside, and shows it. Never overwrites a file.",
            search_aliases=["save video", "export video", "video combine", "mp4"],
            is_output_node=True,
            inputs=[
                io.Video.Input("video", tooltip="Any VIDEO: made here, loaded from a file, or trimmed."),
                io.String.Input(
                    "filename_prefix",
                    default="xavi9videos/video",
                    tooltip="Folders and the start of the name. %year% %month% %day% %width% %height% are filled in.",
                ),
                io.DynamicCombo.Input(
                    "format",
                    options=[keep, *options],
                    tooltip="auto keeps an MP4 or WebM as it is, bit for bit, and makes H.264 MP4 of everything else. "
                    + " ".join(f"{key}: {it.tooltip}" for key, it in all_formats().items()),
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Replaces the video's own sound; cut where the picture ends."
                ),
                io.Combo.Input(
                    "save_to",
                    options=list(paths.FOLDERS),
                    default="output",
                    optional=True,
                    tooltip="output keeps the file; temp is emptied when ComfyUI starts and ends.",
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="The saved file.")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None, format=None):
        # The host checks no DynamicCombo: one with a missing or unknown key does not arrive here at all.
        # filename_prefix is named so that the answer has an input to stand on.
        return True if format else str(UnknownFormat(allowed=", ".join([AUTO, *all_formats()])))

    @classmethod
    def execute(
        cls, video: Input.Video, filename_prefix: str, format: dict, audio=None, save_to: str = "output"
    ) -> io.NodeOutput:
        ten_bit = format.get("bit_depth") == "10"
        source = open_source(video, ten_bit, progress.stop_if_interrupted)
        target = paths.save_target(filename_prefix, save_to, source.width, source.height)
        path, written = write(source, target, format, audio, tags_of(cls.hidden))
        if save_to == "output":
            facts = {
                "seconds": round(written.seconds, 3),
                "codec": written.codec,
                "size": [written.width, written.height],
                **index.origin(cls.hidden.prompt or {}, cls.hidden.unique_id),
            }
            try:
                index.add(paths.index_file(), path, **facts)
            except OSError as error:
                # The video is there; a history without it is the smaller loss.
                log.warning("%s is not in the history: %s", path, error)
        megabytes = path.stat().st_size / 1e6
        notes = [f"{written.frames} frames, {written.seconds:.2f} s, {megabytes:.1f} MB", *written.notes]
        for note in written.notes:
            log.warning("%s: %s", path.name, note)
        progress.show_text(cls.hidden, "\n".join(notes))
        shown = ui.SavedResult(path.name, target.subfolder, io.FolderType(save_to))
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=ui.PreviewVideo([shown]))


NODES = [VideoSave]
