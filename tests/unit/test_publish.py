"""A finished file gets a name of its own, and an unfinished one leaves nothing, whatever the disk does."""

import errno
import io
import os
import re
import resource
import shutil
import struct
import tempfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import folder_paths
import pytest
import torch
from clips import pictures, write_file
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes import errors, parts
from xavi9videos.nodes.host.paths import Target, save_target
from xavi9videos.nodes.video import write as nodes
from xavi9videos.nodes.video.play import Play
from xavi9videos.nodes.video.source import LazyVideo, TensorSource, open_source

NOBODY = 65534
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def target(tmp_path):
    (tmp_path / "out").mkdir()
    return Target(tmp_path / "out", "v", 1, "")


@pytest.fixture(params=["mp4-h264", "auto"])
def write(request, tmp_path, target):
    """Writes 60 frames of noise, about a megabyte, to a target; encoded, or copied from a file."""
    images = torch.rand(60, 96, 128, 3, generator=torch.Generator().manual_seed(0))
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(24), audio=None))
    if request.param == "auto":
        aside = Target(tmp_path, "source", 1, "")
        path, _ = nodes.write(open_source(video), aside, {"format": "mp4-h264", "crf": 1}, None, {})
        # In memory, so that a test may take away every right to files.
        video = InputImpl.VideoFromFile(io.BytesIO(path.read_bytes()))
    source = open_source(video)
    return lambda to=target: nodes.write(source, to, {"format": request.param, "crf": 1}, None, {})


@pytest.fixture
def no_links(monkeypatch):
    """A file system as exFAT, or a network's."""

    def link(old, new):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)


@pytest.fixture(params=["links", "no_links"])
def any_disk(request):
    if request.param == "no_links":
        request.getfixturevalue("no_links")


@pytest.mark.usefixtures("any_disk")
def test_sixteen_threads_lose_and_overwrite_nothing(target):
    def publish_ten(thread):
        for index in range(10):
            part = target.folder / f".{thread}-{index}.part"
            part.write_text(f"{thread}-{index}")
            yield nodes.publish(part, target, "mp4")

    with ThreadPoolExecutor(16) as pool:
        found = [path for paths in pool.map(lambda it: list(publish_ten(it)), range(16)) for path in paths]
    assert len(set(found)) == 160
    assert sorted(target.folder.iterdir()) == sorted(found)
    assert {it.read_text() for it in found} == {f"{thread}-{index}" for thread in range(16) for index in range(10)}
    assert max(it.name for it in found) == "v_00160_.mp4"


@pytest.mark.usefixtures("any_disk")
def test_a_file_that_appears_after_the_counter_was_read_is_kept(target):
    theirs = [target.folder / f"v_{number:05}_.mp4" for number in (1, 2, 4)]
    for path in theirs:
        path.write_text("theirs")
    names = []
    for _ in range(2):
        (target.folder / "part").write_text("ours")
        names.append(nodes.publish(target.folder / "part", target, "mp4").name)
    assert names == ["v_00003_.mp4", "v_00005_.mp4"]
    assert [it.read_text() for it in theirs] == ["theirs"] * 3


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "no"), KeyboardInterrupt()])
def test_the_placeholder_goes_when_the_last_step_fails(target, monkeypatch, failure):
    def replace(self, final):
        raise failure

    (target.folder / "part").write_text("ours")
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(type(failure)):
        nodes.publish(target.folder / "part", target, "mp4")
    assert [it.name for it in target.folder.iterdir()] == ["part"]


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "no"), KeyboardInterrupt()])
def test_the_name_goes_when_the_old_one_cannot(target, monkeypatch, failure):
    def unlink(self, *arguments, **keywords):
        if self.name == "part":
            raise failure
        original(self, *arguments, **keywords)

    original = Path.unlink
    (target.folder / "part").write_text("ours")
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(type(failure)):
        nodes.publish(target.folder / "part", target, "mp4")
    assert [it.name for it in target.folder.iterdir()] == ["part"]


def test_part_and_final_lie_in_one_folder_and_the_part_is_hidden(write, target, monkeypatch):
    seen = []
    publish = nodes.publish
    monkeypatch.setattr(nodes, "publish", lambda part, *rest: seen.append(part) or publish(part, *rest))
    final, _ = write()
    assert seen[0].parent == final.parent == target.folder
    assert seen[0].name.startswith(".") and seen[0].suffix == ".part"
    assert list(target.folder.iterdir()) == [final]


def test_a_copy_that_cannot_fit_is_refused_before_it_starts(write, target, monkeypatch):
    monkeypatch.setattr(nodes.shutil, "disk_usage", lambda folder: Usage(0, 0, 9_000_000))
    with pytest.raises(errors.DiskFull) as caught:
        write()
    assert str(target.folder) in str(caught.value) and " 9 MB " in str(caught.value)
    assert list(target.folder.iterdir()) == []


def test_repeated_pictures_that_cannot_wait_on_the_disk_are_refused_before_they_start(target, monkeypatch):
    monkeypatch.setattr(nodes.shutil, "disk_usage", lambda folder: Usage(0, 0, 25_000_000))
    source = TensorSource(lambda: torch.zeros(10, 720, 1280, 3), (10, 720, 1280), Fraction(24), lambda: None)
    with pytest.raises(errors.DiskFull):
        nodes.write(source, target, {"format": "mp4-h264"}, None, {}, Play(pingpong=True))
    nodes.write(source, target, {"format": "mp4-h264", "preset": "ultrafast"}, None, {})
    assert [it.name for it in target.folder.iterdir()] == ["v_00001_.mp4"]


def test_a_disk_that_fills_up_is_said_and_leaves_nothing(write, target, monkeypatch):
    # /dev/full takes no byte; the part becomes a link to it.
    monkeypatch.setattr(parts, "uuid4", lambda: SimpleNamespace(hex="full"))
    (target.folder / ".v-full.part").symlink_to("/dev/full")
    with pytest.raises(errors.DiskFull) as caught:
        write()
    assert str(target.folder) in str(caught.value)
    assert list(target.folder.iterdir()) == []


def test_a_disk_without_room_for_even_a_name_is_said(write, target, monkeypatch):
    def no_inode(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nodes, "encode_best", no_inode)
    monkeypatch.setattr(nodes, "copy", no_inode)
    with pytest.raises(errors.DiskFull):
        write()


def test_a_write_that_fails_midway_is_said_and_leaves_nothing(write, target):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so the write itself fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(errors.CannotWrite) as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(target.folder) in str(caught.value) and "too large" in str(caught.value)
    assert list(target.folder.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_said(write):
    # Not below tmp_path, which only its owner may enter; and root may write everywhere.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(errors.CannotWrite) as caught:
                write(Target(Path(folder), "v", 1, ""))
        finally:
            if root:
                os.seteuid(0)
        assert folder in str(caught.value) and "denied" in str(caught.value)


@pytest.mark.parametrize("format", ["mp4-h264", "png", "webp"])
def test_a_source_that_raises_in_the_middle_leaves_nothing(target, format):
    class Broken(Exception):
        pass

    def frames():
        yield torch.rand(5, 64, 64, 3)
        raise Broken

    video = LazyVideo(frames, lambda: None, (10, 64, 64), Fraction(24))
    with pytest.raises(Broken):
        nodes.write(open_source(video), target, {"format": format}, None, {})
    assert list(target.folder.iterdir()) == []


@pytest.mark.parametrize("format", ["mp4-h264", "png"])
def test_a_folder_that_vanishes_on_the_way_is_said(target, format):
    def frames():
        yield torch.rand(2, 64, 64, 3)
        shutil.rmtree(target.folder)
        yield torch.rand(2, 64, 64, 3)

    video = LazyVideo(frames, lambda: None, (4, 64, 64), Fraction(24))
    with pytest.raises(errors.CannotWrite, match=re.escape(str(target.folder))):
        nodes.write(open_source(video), target, {"format": format}, None, {})
    assert not target.folder.exists()


def test_a_folder_that_vanished_is_said(write, target):
    with pytest.raises(errors.CannotWrite) as caught:
        write(Target(target.folder / "gone", "v", 1, ""))
    assert "gone" in str(caught.value)


@pytest.mark.parametrize("format", ["auto", "mp4-h264"])
def test_a_file_that_breaks_off_is_not_saved_as_if_it_were_whole(tmp_path, target, format):
    whole = open_source(InputImpl.VideoFromFile(str(write_file(tmp_path / "a.mp4"))))
    path, _ = nodes.write(whole, target, {"format": "auto"}, None, {})
    with av.open(str(path)) as container:
        last = list(container.demux(container.streams.video[0]))[30]
        end = last.pos + last.size
    # The index stands in front, so that the file opens, and the cut lies between two packets: a download that stopped.
    os.truncate(path, end)
    with pytest.raises(errors.VideoUnreadable):
        nodes.write(open_source(InputImpl.VideoFromFile(str(path))), target, {"format": format}, None, {})
    assert list(target.folder.iterdir()) == [path]


@pytest.mark.parametrize("format", ["auto", "mp4-h264"])
def test_what_was_cut_away_on_a_phone_is_neither_missed_nor_brought_back(tmp_path, target, format):
    file = write_file(tmp_path / "a.mp4")
    data = bytearray(file.read_bytes())
    # Both edit lists (ISO 14496-12, 8.6.6) say one second of the two: the rest stays in the file, and nobody sees it.
    for found in re.finditer(b"elst", bytes(data)):
        struct.pack_into(">I", data, found.start() + 12, 1000)
    file.write_bytes(data)
    source = open_source(InputImpl.VideoFromFile(str(file)))
    path, written = nodes.write(source, target, {"format": format}, None, {})
    assert len(pictures(file)) == len(pictures(path)) == written.frames == 24


def test_a_whole_path_inside_the_folder_is_as_good():
    folder = Path(folder_paths.get_output_directory(), ".hidden", "whole")
    target = save_target(str(folder / "v"), "output", 64, 48)
    assert (target.folder, target.subfolder) == (folder, ".hidden/whole")
    assert save_target("v", "output", 64, 48).subfolder == ""
    folder.rmdir()


LONG = "n" * 300


@pytest.mark.parametrize("prefix", ["../x", "/x", "a/../../x", "..", ".", "", "a\0b", LONG, f"{LONG}/x", "x/..", "v...",
                                    "..\\..\\x", "a\nb", "a\nb/v", "v\x7f"])  # fmt: skip
def test_a_prefix_outside_the_folder_or_without_a_name_is_refused(prefix):
    with pytest.raises(errors.BadFilenamePrefix, match="output folder") as caught:
        save_target(prefix, "output", 64, 48)
    assert "\n" not in str(caught.value)
