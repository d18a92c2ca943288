"""Our oldest videos make room when the settings say how many, or how many GB of them, stay."""

import gc
import logging
import os
from pathlib import Path

from comfy_api.latest import InputImpl

from .. import index
from ..host import paths
from ..settings import StorageSettings, storage
from .history import GB, tidy

log = logging.getLogger(__name__)


def beyond(lines: list[dict], limits: StorageSettings) -> dict[str, str]:
    """Of lines, newest first, the paths of those beyond a limit, each with the setting that it is beyond."""
    files, gigabytes = limits.xavi9_keep_files, limits.xavi9_keep_gb
    found, size = {}, 0
    for number, line in enumerate(lines, 1):
        size += line["bytes"]
        if files and number > files:
            found[line["path"]] = f"XAVI9_KEEP_FILES={files}"
        elif gigabytes and size > gigabytes * GB:
            found[line["path"]] = f"XAVI9_KEEP_GB={gigabytes:g}"
    return found


def in_use() -> set[str]:
    """The files of all VIDEOs that this server holds: a node of the running prompt may still have to read them."""
    # Anyone's node can make one, so that no list of ours would have them all.
    videos = [it for it in gc.get_objects() if type(it) is InputImpl.VideoFromFile]
    return {os.path.realpath(it) for video in videos for it in vars(video).values() if isinstance(it, str)}


def clean_up(file: Path, saved: Path):
    """Remove what is beyond the limits of the index `file`, but never `saved`, the one just written; log each."""
    why = {}

    def chosen(lines: list[dict]) -> list[dict]:
        output = [it for it in lines if (place := paths.place(it["path"])) and place[0] == "output"]
        why.update(beyond(output, limits))
        used = in_use() | {os.path.realpath(saved)} if why else set()
        oldest = [it for it in reversed(output) if it["path"] in why]
        return [it for it in oldest if os.path.realpath(it["path"]) not in used and paths.inside(Path(it["path"]))]

    try:
        limits = storage()
        if not limits.xavi9_keep_files and not limits.xavi9_keep_gb:
            return
        removed, errors = index.remove(file, chosen)
        for it in removed:
            log.info("Removed %s, %.1f MB: %s", it["path"], it["bytes"] / 1e6, why[it["path"]])
        for error in errors:
            log.warning("An old video stays: %s", error)
        if removed:
            tidy()
    except Exception as error:
        # The video that was just saved is worth more.
        log.warning("Old videos are not removed: %s", error)
