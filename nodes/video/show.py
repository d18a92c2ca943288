"""What the editor shows of a saved video."""

import logging
from pathlib import Path

from comfy_api.latest import io, ui

from ..host import paths, progress
from .encode import Written, encode
from .formats import Format, all_formats, pattern
from .look import PLAYED
from .source import FileSource

log = logging.getLogger(__name__)

PREVIEW = {"crf": 23, "preset": "ultrafast"}


def preview(path: Path, written: Written) -> Path | None:
    """An H.264 MP4 of a saved file in the temp folder, for editors that cannot play it; None where that fails."""
    made, h264 = paths.temp_file(".mp4"), all_formats()["mp4-h264"]
    frames = path.is_dir()
    try:
        file = pattern(path) if frames else str(path)
        options = {"framerate": str(written.rate), "start_number": "1"} if frames else {}
        source = FileSource(file, 0, 0, progress.stop_if_interrupted, options=options)
        encode(source, made, h264, h264.settings(PREVIEW), {}, source.sound, progress.frame_steps(source.count))
        return made
    except Exception as error:
        # The video itself is saved.
        log.warning("%s has no preview: %s", path, error)
        made.unlink(missing_ok=True)
        return None
    except BaseException:
        # The user's interrupt.
        made.unlink(missing_ok=True)
        raise


def shown(path: Path, subfolder: str, save_to: str, format: Format | None, written: Written, **measured) -> dict:
    """The ui of an output node: what is played or drawn in it, and the record of what was saved.

    format: None for a file that was copied. measured: more for the record.
    """
    saved = ui.SavedResult(path.name, subfolder, io.FolderType(save_to))
    # Not under the names of a result: the editor would list it as a second file.
    record = {"path": str(Path(subfolder, path.name)), "folder": save_to, **written.record(), **measured}
    how = format.shown if format else "video" if written.codec in PLAYED else "preview"
    if how == "preview":
        made = preview(path, written)
        found = ui.PreviewVideo([ui.SavedResult(made.name, "", io.FolderType.temp)] if made else []).as_dict()
    elif how == "image":
        # The editor takes what is animated for a video, but for a WebP; a GIF moves as a picture does.
        found = {"images": [saved]} | ({"animated": (True,)} if path.suffix == ".webp" else {})
    else:
        found = ui.PreviewVideo([saved]).as_dict()
    return {**found, "xavi9_video": [record]}
