"""What a saved video says of itself, and pictures of it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import sine, write_file
from comfy_api.latest import InputImpl, Types
from PIL import Image
from xavi9videos.nodes import errors
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.look import POSTERS, probe, save_poster, still
from xavi9videos.nodes.video.source import open_source
from xavi9videos.nodes.video.write import write

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
