"""The conversion that runs on a GPU, here on the CPU: against FFmpeg's own, and on its way through a save."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import moving, pictures, probe
from comfy_api.latest import InputImpl, Types
from torch.nn import functional
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video import tensors as tensors_module
from xavi9videos.nodes.video.planes import planes
from xavi9videos.nodes.video.shape import shaped
from xavi9videos.nodes.video.source import TensorSource, open_source
from xavi9videos.nodes.video.write import write


@pytest.fixture
def elsewhere(monkeypatch):
    """Has every tensor pass for one of a GPU."""
    monkeypatch.setattr(tensors_module, "is_elsewhere", lambda image: True)


def smooth(height: int, width: int) -> torch.Tensor:
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(noise, (height, width), mode="bicubic")[0].clamp(0, 1).movedim(0, -1)


def frames_of(image, pixel_format):
    source = TensorSource(lambda: [image], (1, *image.shape[:2]), Fraction(24), lambda: None, pixel_format)
    return next(shaped(source.frames(), pixel_format))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(96, 128), (95, 127), (1, 1), (270, 481)])
def test_planes_are_what_ffmpeg_makes_of_the_same_picture(monkeypatch, pixel_format, size):
    image = smooth(*size)
    expected = frames_of(image, pixel_format)
    monkeypatch.setattr(tensors_module, "is_elsewhere", lambda image: True)
    found = frames_of(image, pixel_format)
    assert (found.width, found.height, found.format.name) == (expected.width, expected.height, pixel_format)
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        assert getattr(found, name) == getattr(expected, name)
    a, b = (it.to_ndarray().astype(int) for it in (found, expected))
    step = 1 if pixel_format == "yuv420p" else 4
    assert np.abs(a - b).max() <= 3 * step and np.abs(a - b).mean() <= 0.6 * step


@pytest.mark.parametrize(
    ("colour", "levels"),
    [
        ((0, 0, 0), (16, 128, 128)),
        ((1, 1, 1), (235, 128, 128)),
        ((1, 0, 0), (63, 102, 240)),
        ((0, 1, 0), (173, 42, 26)),
        ((0, 0, 1), (32, 240, 118)),
    ],
)
def test_pure_colours_have_the_levels_of_bt709(colour, levels):
    """Levels of 100 % colour bars, ITU-R BT.709-6."""
    image = torch.tensor(colour, dtype=torch.float32).expand(4, 4, 3)
    assert [int(it.float().mean()) for it in planes(image, 8)] == list(levels)
    assert [float(it.float().mean()) / 4 for it in planes(image, 10)] == pytest.approx(levels, abs=0.6)


@pytest.mark.parametrize("key", ["mp4-h264", "mp4-h265", "webm-vp9"])
@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_a_save_from_elsewhere_shows_the_same(tmp_path, elsewhere, monkeypatch, key, size):
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=moving(5, *size), frame_rate=Fraction(24)))

    def saved():
        return write(open_source(video), Target(tmp_path, "v", 1, ""), {"format": key}, None, {})

    there, written = saved()
    monkeypatch.setattr(tensors_module, "is_elsewhere", lambda image: False)
    here, expected = saved()
    assert written == expected and (size == (96, 128) or "127x95 became 128x96" in written.notes[0])
    assert probe(there)["video"]["color_space"] == "bt709"
    for a, b in zip(pictures(there), pictures(here), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 2


def test_values_that_are_no_numbers_are_black_there_too(elsewhere):
    image = torch.full((64, 64, 3), torch.nan)
    source = TensorSource(lambda: [image], (1, 64, 64), Fraction(24), lambda: None)
    [frame] = source.frames()
    assert source.notes() == ["12288 values of its pictures were NaN and are black"]
    assert set(frame.to_ndarray()[:64].ravel()) == {16}


def test_transparency_and_other_pixel_formats_go_the_other_way(tmp_path, elsewhere):
    images = torch.rand(2, 64, 64, 4)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(24)))
    source = open_source(video, "yuva420p")
    assert [it.format.name for it in source.frames()] == ["rgba", "rgba"]
