"""Our saved videos, as a page shows them: out of the index, as long as their files are unchanged."""

import json
import logging
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

from .. import index
from ..errors import Failure, PosterMissing, VideoNotDeleted, VideoUnknown, WorkflowMissing
from ..host import paths
from ..parts import part_in
from ..settings import storage
from ..video.look import kind_of, still, tags

log = logging.getLogger(__name__)

GB = 1e9
POSTER_BOX, POSTER_QUALITY = (320, 320), 85
ID_BYTES = 16


def id_of(line: dict) -> str:
    """32 hexadecimal digits, which a changed file no longer has."""
    text = json.dumps([line["path"], line["bytes"], line["mtime"]])
    return blake2b(text.encode(), digest_size=ID_BYTES).hexdigest()


def ours() -> list[dict]:
    """The index's lines of unchanged files in the host's folders, newest first."""
    return [it for it in index.read(paths.index_file()) if paths.place(it["path"])]


def find(video_id: str) -> dict:
    """The line of a video. Raises VideoUnknown."""
    for line in ours():
        if id_of(line) == video_id:
            return line
    raise VideoUnknown()


def entry(line: dict) -> dict:
    """A video for a page: its line without the path on this machine, and how to show it.

    filename, subfolder and type are what the host's /view asks for; kind: that of kind_of(); saved: seconds.
    """
    folder, subfolder, name = paths.place(line["path"])
    kind = kind_of(Path(name), line.get("codec"))
    where = {"id": id_of(line), "name": name, "filename": name, "subfolder": subfolder, "type": folder}
    facts = {key: value for key, value in line.items() if key not in ("path", "mtime")}
    return {**facts, **where, "kind": kind, "saved": line["mtime"]}


def page(number: int, size: int) -> dict:
    """Page `number` of `size` videos; total and bytes are those of all, limits those of the settings or None.

    Raises BadSetting.
    """
    limits, found = storage(), ours()
    kept = limits.xavi9_keep_gb and round(limits.xavi9_keep_gb * GB)
    return {
        "videos": [entry(it) for it in found[(number - 1) * size : number * size]],
        "page": number,
        "pages": max(-(-len(found) // size), 1),
        "total": len(found),
        "bytes": sum(it["bytes"] for it in found),
        "limits": {"files": limits.xavi9_keep_files, "bytes": kept},
    }


def poster(line: dict) -> bytes:
    """A JPEG of its first picture, made when it is first asked for. Raises PosterMissing."""
    video, folder = Path(line["path"]), paths.own_folder("posters")
    file = folder / f"{id_of(line)}.jpg"
    try:
        return file.read_bytes()
    except FileNotFoundError:
        pass
    try:
        # The interrupt of a prompt is none of a page's business.
        image = still(video, box=POSTER_BOX, poll=lambda: None)
    except Failure as failure:
        log.warning("%s has no poster: %s", video, failure)
        raise PosterMissing(name=video.name) from failure
    data = BytesIO()
    image.save(data, "JPEG", quality=POSTER_QUALITY)
    try:
        with part_in(folder, file.stem) as part:
            part.write_bytes(data.getvalue())
            part.replace(file)
    except OSError as error:
        log.warning("The poster of %s cannot be kept: %s", video, error)
    tidy()
    return data.getvalue()


def tidy():
    """Remove the posters of videos that are gone, and what a killed server has left of one."""
    # In this order: a poster that is made meanwhile is of a video that is known by then.
    files = list(paths.own_folder("posters").iterdir())
    known = {id_of(it) for it in ours()}
    for file in files:
        if file.name.lstrip(".")[: 2 * ID_BYTES] not in known:
            with suppress(OSError):
                file.unlink()


def json_of(text: str | None):
    """What a tag holds; None for one that is missing or broken, and for NaN in it, which browsers cannot read."""
    try:
        return json.loads(text or "null", parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def workflow(video_id: str) -> dict:
    """workflow and prompt out of the file's tags, one of which may be None. Raises VideoUnknown, WorkflowMissing."""
    video = Path(find(video_id)["path"])
    try:
        texts = tags(video)
    except Failure as failure:
        log.warning("%s", failure)
        texts = {}
    found = {key: json_of(texts.get(key)) for key in ("workflow", "prompt")}
    if not any(found.values()):
        raise WorkflowMissing(name=video.name)
    return found


def delete(video_id: str) -> dict:
    """Delete a video, its line and its posters. Returns its entry. Raises VideoUnknown and VideoNotDeleted."""

    def chosen(lines: list[dict]) -> list[dict]:
        return [it for it in lines if id_of(it) == video_id and paths.inside(Path(it["path"]))]

    try:
        removed, errors = index.remove(paths.index_file(), chosen)
    except OSError as error:
        removed, errors = [], [error]
    if errors:
        log.warning("A video was not deleted: %s", errors[0])
        # Not the error's own words, which name a path on this machine.
        raise VideoNotDeleted(reason=errors[0].strerror or "the list of videos is being written") from errors[0]
    if not removed:
        raise VideoUnknown()
    log.info("Deleted %s, as a page asked", removed[0]["path"])
    tidy()
    return entry(removed[0])
