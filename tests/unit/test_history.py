"""Saved videos as a page shows them: which count, what is said of them, pictures of them, and how they go."""

import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from clips import write_file
from comfy import model_management
from comfy_api.latest import InputImpl, Types
from PIL import Image
from xavi9videos.nodes import errors, index, settings
from xavi9videos.nodes.host import paths
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.studio import history, routes
from xavi9videos.nodes.video import nodes as video_nodes
from xavi9videos.nodes.video.source import open_source
from xavi9videos.nodes.video.write import tag, write

ODD_WORDS = 'caf\u00e9 "quoted" \\ back {a {b}} lone } and { \u4e2d\u6587 \U0001f98a\nnew line'
LOADS = """
import importlib.util, os, pathlib, sys
spec = importlib.util.spec_from_file_location("index", sys.argv[1])
index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(index)
file = pathlib.Path(sys.argv[2])
"""
DIES = LOADS + "index.private = lambda *given: os._exit(9)\nindex.remove(file, lambda lines: lines)\n"
ADDS = LOADS + "for number in range(150):\n    index.add(file, pathlib.Path(sys.argv[3]), number=number)\n"


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setitem(paths.FOLDERS, "output", lambda: str(tmp_path / "output"))
    monkeypatch.setattr(paths, "own_folder", lambda *names: made(tmp_path / "own" / "/".join(names)))
    monkeypatch.setattr(history, "storage", lambda: settings.StorageSettings(_env_file=None))
    return made(tmp_path / "output" / "clips").parent


def put(path: Path, age: float = 0, content: bytes = b"video", **facts) -> Path:
    """A file of that age in seconds, and its line."""
    made(path.parent)
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    index.add(paths.index_file(), path, **{"codec": "h264", **facts})
    return path


def names() -> list[str]:
    return [it["name"] for it in history.page(1, 100)["videos"]]


def id_of(path: Path) -> str:
    return history.id_of({"path": str(path), **index.identity(path)})


def film(path: Path, key: str, tags: dict[str, str]) -> Path:
    """Half a second in this format, with its line."""
    images = torch.rand(12, 96, 400, 3, generator=torch.Generator().manual_seed(1))
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(24)))
    file, _ = write(open_source(video), Target(made(path.parent), path.name, 1, ""), {"format": key}, None, tags)
    index.add(paths.index_file(), file)
    return file


def test_the_newest_comes_first_and_a_later_line_of_the_same_time_before_an_earlier(output):
    for name, age in (("b", 20), ("d", 5), ("a", 30), ("c", 10)):
        put(output / name, age)
    put(output / "e")
    os.utime(output / "e", ((output / "d").stat().st_mtime,) * 2)
    index.add(paths.index_file(), output / "e")
    assert names() == ["e", "d", "c", "b", "a"]


def linked(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")
    line = {"path": str(path), "bytes": path.lstat().st_size, "mtime": path.lstat().st_mtime}
    paths.index_file().write_text(json.dumps(line))


CHANGES = {
    "deleted": lambda path: path.unlink(),
    "longer": lambda path: (path.write_bytes(b"video!"), os.utime(path, (1, 1))),
    "newer": lambda path: os.utime(path, (2, 2)),
    "moved": lambda path: path.rename(path.with_name("other")),
    "a link": linked,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_what_it_was_does_not_count(output, change):
    path = put(output / "v.mp4")
    os.utime(path, (1, 1))
    index.add(paths.index_file(), path)
    assert names() == ["v.mp4"]
    video_id = id_of(path)
    CHANGES[change](path)
    assert names() == []
    for ask in (history.find, history.workflow, history.delete):
        with pytest.raises(errors.VideoUnknown):
            ask(video_id)


def test_lines_that_are_broken_or_not_ours_are_passed_over(output):
    good = put(output / "v.mp4")
    whole = paths.index_file().read_bytes()
    with paths.index_file().open("ab") as file:
        for line in (b"", b"no json", b"[1]", b"null", b'{"bytes": 5}', b'{"path": 7}', b'{"path": "a\\u0000b"}',
                     b'{"path": ""}', b"\xff\xfe", b"[" * 100_000, json.dumps({"path": str(good)}).encode(),
                     whole[:-9]):  # fmt: skip
            file.write(line + b"\n")
    assert names() == ["v.mp4"]


def test_an_index_that_is_not_there_holds_nothing(output):
    assert history.page(1, 24) | {"limits": None} == {
        "videos": [], "page": 1, "pages": 1, "total": 0, "bytes": 0, "limits": None}  # fmt: skip


def test_the_last_of_several_lines_for_a_file_counts_and_only_that(output):
    path = put(output / "v.mp4", seed=1)
    for seed in (2, 3):
        index.add(paths.index_file(), path, seed=seed)
    with paths.index_file().open("a") as file:
        file.write(json.dumps({"path": str(path), "bytes": 99, "mtime": 1.0, "seed": 4}) + "\n")
    [found] = history.page(1, 24)["videos"]
    assert found["seed"] == 3


def test_a_line_that_was_cut_short_spoils_no_later_one(output):
    put(output / "a.mp4")
    with paths.index_file().open("ab") as file:
        file.write(b'{"path": "/x", "by')
    put(output / "b.mp4")
    assert sorted(names()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("place", ["/../elsewhere/v.mp4", "-x/v.mp4", "/clips/../v.mp4", "/../v.mp4"])
def test_what_the_host_does_not_serve_is_not_listed(output, place):
    put(Path(f"{output}{place}"))
    assert names() == []


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("v.mp4", "h264", "video"), ("v.webm", "vp9", "video"), ("v.mp4", "av1", "video"), ("v.mp4", "hevc", None),
     ("v.mov", "prores", None), ("v.mkv", "ffv1", None), ("v.webp", "webp", "image"), ("v.gif", "gif", "image"),
     ("v.mp4", None, None)])  # fmt: skip
def test_an_entry_says_how_to_show_it_and_no_path(output, name, codec, kind):
    facts = {"seconds": 1.5, "size": [8, 6], "mode": "m", "seed": 2**63, "prompt": ODD_WORDS, "more": [1]}
    path = put(output / "clips" / name, codec=codec, **facts)
    [found] = history.page(1, 24)["videos"]
    assert found == facts | {
        "id": id_of(path), "name": name, "filename": name, "subfolder": "clips", "type": "output", "kind": kind,
        "codec": codec, "bytes": 5, "saved": path.stat().st_mtime}  # fmt: skip
    assert str(output) not in json.dumps(found)


def test_pages(output, monkeypatch):
    for number in range(7):
        put(output / f"{number}", age=number, content=b"x" * number)
    first, last, beyond = (history.page(it, 3) for it in (1, 3, 4))
    assert [it["name"] for it in first["videos"]] == ["0", "1", "2"]
    assert [it["name"] for it in last["videos"]] == ["6"] and beyond["videos"] == []
    assert {(it["pages"], it["total"], it["bytes"]) for it in (first, last, beyond)} == {(3, 7, 21)}
    assert first["limits"] == {"files": None, "bytes": None}
    limits = settings.StorageSettings(xavi9_keep_files=5, xavi9_keep_gb=1.5)
    monkeypatch.setattr(history, "storage", lambda: limits)
    assert history.page(1, 3)["limits"] == {"files": 5, "bytes": 1_500_000_000}


def test_deleting_takes_the_file_its_lines_and_its_posters_and_nothing_else(output):
    kept = put(output / "kept.mp4", age=9)
    path = film(output / "v", "mp4-h264", {})
    beside = path.with_suffix(".jpg")
    beside.write_bytes(b"jpeg")
    index.add(paths.index_file(), path, poster=index.identity(beside))
    with paths.index_file().open("ab") as file:
        file.write(b"foreign\n")
    lines = [it for it in paths.index_file().read_bytes().splitlines() if str(path).encode() not in it]
    history.poster(history.find(id_of(path)))
    assert len(list(paths.own_folder("posters").iterdir())) == 1
    (output / "v_00001_.txt").write_text("theirs")
    assert history.delete(id_of(path))["name"] == path.name
    assert not path.exists() and not beside.exists() and list(paths.own_folder("posters").iterdir()) == []
    assert kept.exists() and (output / "v_00001_.txt").exists()
    assert paths.index_file().read_bytes().splitlines() == lines
    assert paths.index_file().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("noted", [False, True])
def test_a_picture_beside_it_that_is_not_its_poster_stays(output, noted):
    path, beside = put(output / "v.mp4"), output / "v.jpg"
    beside.write_bytes(b"poster")
    if noted:
        index.add(paths.index_file(), path, poster=index.identity(beside))
        beside.write_bytes(b"somebody's own")
    history.delete(id_of(path))
    assert beside.exists() and not path.exists()


def test_a_folder_that_leads_outside_is_listed_but_nothing_in_it_is_deleted(output, tmp_path):
    (output / "far").symlink_to(made(tmp_path / "elsewhere"))
    path = put(output / "far" / "v.mp4")
    assert names() == ["v.mp4"]
    with pytest.raises(errors.VideoUnknown):
        history.delete(id_of(path))
    assert path.exists() and names() == ["v.mp4"]


def test_a_video_that_cannot_be_deleted_says_why_without_a_path_and_keeps_its_line(output, monkeypatch):
    path = put(output / "v.mp4")

    def refused(self, **given):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(errors.VideoNotDeleted, match="Permission denied") as caught:
        history.delete(id_of(path))
    assert str(output) not in str(caught.value) and names() == ["v.mp4"]


def test_an_index_that_somebody_else_writes_all_the_time_is_waited_for_and_then_said(output, monkeypatch):
    path = put(output / "v.mp4")
    monkeypatch.setattr(index, "LOCK_SECONDS", 0.2)
    with index.lock(paths.index_file()), pytest.raises(errors.VideoNotDeleted) as caught:
        history.delete(id_of(path))
    assert str(paths.index_file()) not in str(caught.value) and path.exists()


def test_a_server_killed_between_the_file_and_its_line_leaves_all_in_order(output):
    path = put(output / "v.mp4")
    command = [sys.executable, "-c", DIES, index.__file__, paths.index_file()]
    assert subprocess.run(command, timeout=60).returncode == 9
    assert not path.exists() and str(path) in paths.index_file().read_text()
    assert names() == []
    other = put(output / "w.mp4")
    assert names() == ["w.mp4"]
    history.delete(id_of(other))
    assert names() == []


def test_no_line_is_lost_while_others_are_removed(output):
    path, gone = put(output / "v.mp4"), output / "gone.mp4"
    command = [sys.executable, "-c", ADDS, index.__file__, paths.index_file(), path]
    workers = [subprocess.Popen(command) for _ in range(2)]
    while any(it.poll() is None for it in workers):
        history.delete(id_of(put(gone)))
    assert [it.wait(60) for it in workers] == [0, 0]
    lines = [json.loads(it) for it in paths.index_file().read_text().splitlines()]
    assert sorted(it["number"] for it in lines if "number" in it) == sorted([*range(150)] * 2)
    assert not [it for it in lines if it["path"] == str(gone)]


def test_a_poster_is_small_kept_and_made_only_once(output, monkeypatch):
    path = film(output / "v", "mp4-h264", {})
    line = history.find(id_of(path))
    data = history.poster(line)
    image = Image.open(BytesIO(data))
    assert image.format == "JPEG" and image.size == (320, 77)
    monkeypatch.setattr(history, "still", None)
    assert history.poster(line) == data


def test_an_interrupted_prompt_interrupts_no_poster(output):
    line = history.find(id_of(film(output / "v", "mp4-h264", {})))
    model_management.interrupt_current_processing(True)
    try:
        assert history.poster(line)
        assert model_management.processing_interrupted(), "the prompt still has to see it"
    finally:
        model_management.interrupt_current_processing(False)


def test_posters_of_videos_that_are_gone_go_too(output):
    first = film(output / "v", "mp4-h264", {})
    history.poster(history.find(id_of(first)))
    folder = paths.own_folder("posters")
    (folder / f".{id_of(first)}-{'0' * 32}.part").write_bytes(b"another server makes it now")
    (folder / f".{'f' * 32}-{'0' * 32}.part").write_bytes(b"half")
    history.tidy()
    assert len(list(folder.iterdir())) == 2
    first.unlink()
    second = film(output / "w", "webp", {})
    history.poster(history.find(id_of(second)))
    assert [it.name for it in folder.iterdir()] == [f"{id_of(second)}.jpg"]


def test_a_poster_that_cannot_be_kept_is_shown_all_the_same(output, monkeypatch):
    line = history.find(id_of(film(output / "v", "mp4-h264", {})))

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert history.poster(line).startswith(b"\xff\xd8")
    assert list(paths.own_folder("posters").iterdir()) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.webp", "v.gif"])
def test_a_broken_file_has_no_poster_and_no_workflow_and_no_path_is_said(output, name):
    path = put(output / name)
    with pytest.raises(errors.PosterMissing, match=name) as caught:
        history.poster(history.find(id_of(path)))
    assert str(output) not in str(caught.value)
    with pytest.raises(errors.WorkflowMissing, match=name) as caught:
        history.workflow(id_of(path))
    assert str(output) not in str(caught.value)


@pytest.mark.parametrize("key", ["mp4-h264", "mp4-h265", "webm-vp9", "mov-prores", "mkv-ffv1", "webp"])
def test_prompt_and_workflow_come_back_as_they_were(output, key):
    workflow, prompt = {"nodes": [{"title": ODD_WORDS}]}, {"1": {"class_type": "X", "inputs": {"text": ODD_WORDS}}}
    given = {"workflow": tag(workflow), "prompt": tag(prompt), "xavi9": tag({"version": "1"})}
    assert history.workflow(id_of(film(output / "v", key, given))) == {"workflow": workflow, "prompt": prompt}


def test_what_a_browser_cannot_read_is_left_out(output):
    path = film(output / "v", "mp4-h264", {"prompt": tag({"1": {"is_changed": float("nan")}}), "workflow": "{broken"})
    assert history.workflow(id_of(path)) == {"workflow": None, "prompt": {"1": {"is_changed": None}}}


@pytest.mark.parametrize(("key", "tags"), [("gif", {"prompt": "{}"}), ("mp4-h264", {})])
def test_a_file_without_a_workflow_says_so(output, key, tags):
    path = film(output / "v", key, tags)
    with pytest.raises(errors.WorkflowMissing, match=path.name):
        history.workflow(id_of(path))


def test_a_video_whose_poster_is_interrupted_still_has_its_line(output, tmp_path, monkeypatch):
    def interrupted(path, place):
        raise model_management.InterruptProcessingException()

    monkeypatch.setattr(video_nodes, "save_poster", interrupted)
    hidden = SimpleNamespace(prompt={}, unique_id="save", extra_pnginfo=None, dynprompt=None)
    monkeypatch.setattr(video_nodes.VideoSave, "hidden", hidden, raising=False)
    video = InputImpl.VideoFromFile(str(write_file(tmp_path / "source.mp4")))
    with pytest.raises(model_management.InterruptProcessingException):
        video_nodes.VideoSave.execute(video, "clips/v", {"format": "auto"}, poster="first")
    assert names() == ["v_00001_.mp4"]


def test_health_is_answered_also_where_the_history_cannot_load(monkeypatch):
    answered = []
    monkeypatch.setattr(routes.server, "answer", lambda method, path, *more, **given: answered.append(path))
    # What Python does when a module, or one that it needs, is missing.
    monkeypatch.setitem(sys.modules, "xavi9videos.nodes.studio.videos", None)
    with pytest.raises(ImportError):
        routes.register()
    assert answered == ["health"]


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_a_page_of_many(output, count):
    lines = []
    for number in range(count):
        path = output / "clips" / f"v_{number:05}_.mp4"
        path.write_bytes(b"x")
        facts = {"seconds": 5.0, "codec": "h264", "size": [768, 512], "seed": number, "prompt": "a red fox " * 20}
        lines.append(json.dumps({"path": str(path), **index.identity(path), **facts}))
    paths.index_file().write_text("\n".join(lines) + "\n")
    began = time.perf_counter()
    found = history.page(1, 24)
    sys.stdout.write(f"a page of {count} videos: {1000 * (time.perf_counter() - began):.0f} ms\n")
    assert found["total"] == count and len(found["videos"]) == 24
