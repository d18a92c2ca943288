"""What a saved video says of itself, and pictures of it."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import sine, write_file
from comfy_api.latest import InputImpl, Types
from PIL import Image
from xavi9videos.nodes import errors
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.look import POSTERS, probe, still
from xavi9videos.nodes.video.source import FileSource, open_source
from xavi9videos.nodes.video.write import save_poster, write

COLOURS = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])


def saved(tmp_path, key, rate=Fraction(24)):
    """Three seconds: red, green, blue."""
    images = COLOURS.repeat_interleave(round(rate), 0)[:, None, None].expand(-1, 96, 128, -1)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate, audio=sine(3)))
    return write(open_source(video), Target(tmp_path, "v", 1, ""), {"format": key}, None, {"prompt": "{}"})[0]


@pytest.mark.parametrize("key", sorted(all_formats()))
def test_the_first_the_middle_and_the_last_picture_are_found(tmp_path, key):
    path = saved(tmp_path, key)
    for place, colour in zip((0, 0.5, 1), COLOURS, strict=True):
        image = still(path, place)
        assert image.size == (128, 96) and image.mode == "RGB"
        assert np.abs(np.asarray(image).mean((0, 1)) / 255 - colour.numpy()).max() < 0.05


def test_the_last_is_the_very_last_and_the_first_the_very_first(tmp_path):
    images = torch.linspace(0, 1, 30)[:, None, None, None].expand(30, 96, 128, 3)
    for rate in (Fraction(24), Fraction(30000, 1001), Fraction(25, 2)):
        video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate))
        path, _ = write(open_source(video), Target(tmp_path, "v", 1, ""), {"format": "webm-vp9"}, None, {})
        assert [round(np.asarray(still(path, it)).mean() / 255 * 29) for it in (0, 10 / 29, 1)] == [0, 10, 29]


def test_a_file_is_opened_once_to_be_probed_and_never_left_open(tmp_path, monkeypatch):
    path, opened, plain = saved(tmp_path, "mp4-h264"), [], av.open
    monkeypatch.setattr(av, "open", lambda file, **options: opened.append(file) or plain(file, **options))
    handles = len(os.listdir("/proc/self/fd"))
    probe(path)
    assert opened == [str(path)]
    FileSource(str(path), 0, 0, lambda: None)
    assert len(os.listdir("/proc/self/fd")) == handles


def test_a_box_is_never_left_and_nothing_is_enlarged(tmp_path):
    path = saved(tmp_path, "mp4-h264")
    assert still(path, box=(32, 32)).size == (32, 24) and still(path, box=(640, 640)).size == (128, 96)


def test_a_poster_overwrites_nothing(tmp_path):
    path = saved(tmp_path, "mp4-h264")
    poster = save_poster(path, POSTERS["last"])
    assert poster == path.with_suffix(".jpg") and Image.open(poster).getpixel((30, 20))[2] > 180
    before = poster.read_bytes()
    with pytest.raises(FileExistsError):
        save_poster(path, POSTERS["first"])
    assert poster.read_bytes() == before


def test_a_file_says_what_is_in_it(tmp_path):
    path = saved(tmp_path, "mp4-h264", Fraction(30000, 1001))
    found = probe(path)
    assert found["audio"] == {"codec": "aac", "rate": 48_000, "channels": 2} and "prompt" in found["tags"]
    expected = {"codec": "h264", "pixel_format": "yuv420p", "size": [128, 96], "frames": 90, "rate": "30000/1001"}
    assert expected.items() <= found.items()
    assert found["bytes"] == path.stat().st_size and found["seconds"] == pytest.approx(3, abs=0.05)


def test_a_broken_file_is_said_to_be_broken(tmp_path):
    for name in ("a.mp4", "a.webp", "a.gif"):
        (tmp_path / name).write_bytes(b"This is no video." * 100)
        with pytest.raises(errors.VideoUnreadable, match=name):
            still(tmp_path / name)
    whole = write_file(tmp_path / "b.mp4")
    whole.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(errors.Failure):
        still(whole)
    with pytest.raises(errors.Failure):
        probe(whole)


def test_a_poster_of_a_folder_stands_beside_it_under_its_whole_name(tmp_path):
    for index in (1, 2):
        images = torch.zeros(2, 64, 64, 3)
        video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(24)))
        target = Target(tmp_path, "shot_v1.2 100%d", 1, "")
        path, _ = write(open_source(video), target, {"format": "png"}, None, {})
        assert path.is_dir() and len(list(path.iterdir())) == 2
        assert save_poster(path, 0).name == f"shot_v1.2 100%d_{index:05}_.jpg"


def test_a_poster_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = saved(tmp_path, "mp4-h264")

    def full(self, file, *rest, **more):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError):
        save_poster(path, 0)
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_that_stay_for_long_are_found_too(tmp_path):
    images = torch.linspace(0, 1, 6)[:, None, None, None].expand(6, 64, 64, 3)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(1, 3)))
    path, _ = write(open_source(video), Target(tmp_path, "v", 1, ""), {"format": "mp4-h264"}, None, {})
    assert [round(np.asarray(still(path, it)).mean() / 51) for it in (0, 0.5, 1)] == [0, 3, 5]


def test_foreign_files_in_a_folder_of_pictures_are_passed_over(tmp_path):
    path = saved(tmp_path, "png")
    (path / ".DS_Store").write_bytes(b"theirs")
    assert still(path, 0).size == still(path, 1).size == (128, 96)
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.VideoEmpty):
        still(tmp_path / "empty")
