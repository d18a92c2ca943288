"""Every format of Video Save, written, then read by ffprobe, FFmpeg or Pillow, which are not ours."""

import json
import os
import re
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import torch
from clips import moving, probe, sine
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes import errors
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.source import open_source
from xavi9videos.nodes.video.write import format_of, write

# As the design fixes them: suffix, FFmpeg's name of the codec, of its sound, of the pixels.
KNOWN = {
    "mp4-h264": (".mp4", "h264", "aac", "yuv420p"),
    "mp4-h265": (".mp4", "hevc", "aac", "yuv420p"),
    "mp4-av1": (".mp4", "av1", "aac", "yuv420p10le"),
    "webm-vp9": (".webm", "vp9", "opus", "yuv420p"),
    "webm-av1": (".webm", "av1", "opus", "yuv420p10le"),
    "mov-prores": (".mov", "prores", "pcm_s24le", "yuv422p10le"),
    "mkv-ffv1": (".mkv", "ffv1", "flac", "bgr0"),
    "gif": (".gif", "gif", None, "bgra"),
    "webp": (".webp", "webp", None, None),
    "png": ("", "png", None, "rgb24"),
}  # fmt: skip
SOUNDING = [key for key, it in KNOWN.items() if it[2]]
# Of the patches below, in levels of 255: as far off as the coarsest step of each may put them.
BOUND = {"gif": 4, "webp": 4, "mkv-ffv1": 0.5, "png": 0.5}
PATCHES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.25, 0.75)]
# Those that hold transparency, and what has to be chosen for it.
CLEAR = {
    "webm-vp9": {"pixels": "8 bit with alpha"}, "mov-prores": {"profile": "4444"}, "webp": {}, "gif": {},
    "mkv-ffv1": {"pixels": "16 bit with alpha"}, "png": {"pixels": "8 bit with alpha"},
}  # fmt: skip
TAGS = {"workflow": json.dumps({"nodes": [], "title": "caf\u00e9 {"}), "prompt": '{"1": {}}', "xavi9": "{}"}


@pytest.fixture
def target(tmp_path):
    return Target(tmp_path, "v", 1, "")


def video_of(images, rate=Fraction(24), audio=None):
    parts = Types.VideoComponents(images=images, frame_rate=rate, audio=audio)
    return InputImpl.VideoFromComponents(parts)


def saved(video, target, key, tags=TAGS, **options):
    given = {"format": key, **options}
    settings = format_of(given).settings(given)
    return write(open_source(video, settings.pixel_format), target, given, None, tags)


def rgba(path: Path) -> list[np.ndarray]:
    """Every picture, [height, width, 4] of 0..255, as another program reads it."""
    if path.is_dir():
        return [np.asarray(PIL.Image.open(it).convert("RGBA")) for it in sorted(path.iterdir())]
    if path.suffix in (".webp", ".gif"):
        film = PIL.Image.open(path)
        found = []
        for index in range(film.n_frames):
            film.seek(index)
            found.append(np.asarray(film.convert("RGBA")))
        return found
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        # FFmpeg's own decoder leaves out what libvpx wrote beside the picture.
        decoder = av.CodecContext.create("libvpx-vp9", "r") if stream.codec.canonical_name == "vp9" else stream
        frames = [it for packet in container.demux(stream) for it in decoder.decode(packet)]
        space = None if frames[0].format.is_rgb else "ITU709"
        return [it.reformat(format="rgba", src_colorspace=space).to_ndarray() for it in frames]


def test_the_formats_are_those_of_the_design():
    assert set(all_formats()) == set(KNOWN)
    assert next(iter(all_formats())) == "mp4-h264"


def test_an_option_of_one_name_has_one_tooltip():
    """The editor's translations know an option by its name, whatever the format."""
    found = {(it["id"], it["tooltip"]) for format in all_formats().values() for it in format.options}
    assert len(found) == len({name for name, _ in found})


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(25, 2)])
@pytest.mark.parametrize("key", KNOWN)
def test_no_frame_is_lost_at_any_rate_and_the_codec_is_what_it_says(target, key, rate):
    path, written = saved(video_of(moving(13, 96, 128), rate, sine(13 / rate)), target, key)
    suffix, codec, sound, pixels = KNOWN[key]
    assert (path.name, written.frames, written.codec) == (f"v_00001_{suffix}", 13, codec)
    assert list(path.parent.iterdir()) == [path]
    assert len(rgba(path)) == 13
    if path.is_dir() or key == "webp":
        assert any("no sound" in it for it in written.notes)
        return
    found = probe(path)
    video, audio = found["video"], found["audio"]
    assert (video["codec_name"], video["pix_fmt"], video["width"], video["height"]) == (codec, pixels, 128, 96)
    assert int(video["nb_read_frames"]) == 13
    assert (audio["codec_name"] if audio else None) == sound
    if key != "gif":
        assert Fraction(video["r_frame_rate"]) == rate
        assert float(found["format"]["duration"]) == pytest.approx(13 / rate, abs=0.03)
    else:
        # A GIF counts hundredths of a second: each frame stands where it should within one.
        with av.open(str(path)) as container:
            times = [it.time for it in container.decode(video=0)]
        assert times == pytest.approx([index / rate for index in range(13)], abs=0.0101)


@pytest.mark.parametrize("key", KNOWN)
def test_colours_are_right_and_said(target, key):
    columns = [torch.tensor(it).float().expand(64, 32, 3) for it in PATCHES]
    path, _ = saved(video_of(torch.cat(columns, 1).expand(3, -1, -1, -1)), target, key)
    for picture in rgba(path):
        for index, patch in enumerate(PATCHES):
            # The middle: at its edge 4:2:0 shares colour with the next.
            found = picture[16:48, index * 32 + 8 : index * 32 + 24, :3].mean((0, 1))
            assert np.abs(found - np.array(patch) * 255).max() <= BOUND.get(key, 3), (patch, found)
    if key not in ("gif", "webp", "png", "mkv-ffv1"):
        video = probe(path)["video"]
        names = ("color_space", "color_primaries", "color_transfer", "color_range")
        assert [video.get(it) for it in names] == ["bt709", "bt709", "bt709", "tv"]


@pytest.mark.parametrize("key", CLEAR)
def test_transparency_is_kept(target, key):
    alpha = torch.zeros(4, 64, 96, 1)
    alpha[:, :, 48:] = 1
    video = video_of(torch.cat([moving(4, 64, 96) * 0.5 + 0.25, alpha], -1))
    path, written = saved(video, target, key, **CLEAR[key])
    found = rgba(path)
    assert len(found) == 4 and not any("transparency" in it for it in written.notes)
    for picture in found:
        # Away from the edge, which lossy coding blurs.
        assert picture[:, :40, 3].max() <= 4 and picture[:, 56:, 3].min() >= 251


@pytest.mark.parametrize("key", sorted(set(KNOWN) - {"gif", "webp"}))
def test_pictures_that_are_transparent_lose_only_that_where_nothing_else_was_asked(target, key):
    images = torch.cat([moving(3, 64, 96), torch.zeros(3, 64, 96, 1)], -1)
    path, written = saved(video_of(images), target, key)
    assert ["transparency" in it for it in written.notes] == [True]
    assert np.abs(rgba(path)[0][..., :3] / 255 - images[0, ..., :3].numpy()).mean() < 0.03


@pytest.mark.parametrize("key, deep", [("mkv-ffv1", "16 bit"), ("png", "16 bit")])
def test_sixteen_bits_hold_what_eight_cannot(target, key, deep):
    ramp = torch.linspace(0.4, 0.42, 256).expand(2, 16, 256)[..., None].expand(-1, -1, -1, 3)
    levels = {}
    for pixels in ("8 bit", deep):
        path, _ = saved(video_of(ramp), target, key, pixels=pixels)
        with av.open(str(path / "00001.png" if path.is_dir() else path)) as container:
            levels[pixels] = len(np.unique(next(container.decode(video=0)).to_ndarray(format="rgb48le")))
    assert levels["8 bit"] <= 7 and levels[deep] >= 255


@pytest.mark.parametrize("key", ["mkv-ffv1", "png"])
def test_lossless_is_lossless(target, key):
    images = torch.randint(0, 256, (3, 63, 95, 3), generator=torch.Generator().manual_seed(0)) / 255
    path, written = saved(video_of(images), target, key)
    assert (written.width, written.height, written.notes) == (95, 63, [])
    for picture, image in zip(rgba(path), images, strict=True):
        assert (picture[..., :3] == (image * 255).round().numpy()).all()


@pytest.mark.parametrize("key", KNOWN)
def test_an_odd_size_keeps_every_pixel(target, key):
    images = moving(3, 97, 129)
    path, written = saved(video_of(images), target, key)
    pixels = av.VideoFormat(format_of({"format": key}).settings({}).pixel_format)
    width, height = (129 + (pixels.chroma_width(2) == 1), 97 + (pixels.chroma_height(2) == 1))
    assert (written.width, written.height) == (width, height) and bool(written.notes) == ((width, height) != (129, 97))
    assert np.abs(rgba(path)[0][:97, :129, :3] / 255 - images[0].numpy()).mean() < 0.03


@pytest.mark.parametrize("key", SOUNDING)
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7, 8])
def test_sound_of_any_layout_lasts_as_long_as_the_picture(target, key, channels):
    path, _ = saved(video_of(moving(24, 64, 96), Fraction(24), sine(3, 44_100, channels)), target, key)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].layout.nb_channels == channels
        # Not their samples: PyAV crashes on a frame of eight planes.
        seconds = sum(it.samples / it.sample_rate for it in container.decode(audio=0))
    assert seconds == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("key", sorted(set(KNOWN) - {"gif"}))
def test_prompt_and_workflow_are_inside(target, key):
    path, _ = saved(video_of(moving(3, 64, 96)), target, key)
    if path.is_dir():
        found = PIL.Image.open(path / "00001.png").info
        assert not {"prompt"} & set(PIL.Image.open(path / "00002.png").info)
    elif key == "webp":
        texts = PIL.Image.open(path).getexif().values()
        found = dict(it.split(":", 1) for it in texts)
    else:
        with av.open(str(path)) as container:
            found = {name.lower(): value for name, value in container.metadata.items()}
    assert {name: found[name] for name in TAGS} == TAGS


@pytest.mark.parametrize("key", KNOWN)
def test_without_tags_none_are_written(target, key):
    path, _ = saved(video_of(moving(3, 64, 96)), target, key, tags={})
    data = (path / "00001.png" if path.is_dir() else path).read_bytes()
    assert b"workflow" not in data and b"EXIF" not in data


@pytest.mark.parametrize("key", KNOWN)
def test_one_frame_of_one_pixel_is_written_or_refused_in_words(target, key):
    video = video_of(torch.ones(1, 1, 1, 3))
    if key in ("mp4-h265", "mp4-av1", "webm-av1"):
        with pytest.raises(errors.EncoderRefused, match=f"{key} could not be encoded with 2x2 pixels at 24 f"):
            saved(video, target, key)
        assert list(target.folder.iterdir()) == []
    else:
        assert len(rgba(saved(video, target, key)[0])) == 1


@pytest.mark.parametrize("key, most", [("webm-vp9", 1000), ("mkv-ffv1", 1000), ("webp", 90), ("gif", 50)])
def test_a_rate_that_would_lose_frames_is_refused(target, key, most):
    with pytest.raises(errors.RateTooHigh, match=f"{key} holds at most {most}"):
        saved(video_of(moving(3, 64, 96), Fraction(most + 1)), target, key)
    path, _ = saved(video_of(moving(3, 64, 96), Fraction(most)), target, key)
    assert len(rgba(path)) == 3


@pytest.mark.parametrize("key", KNOWN)
@pytest.mark.parametrize("at", [0, 5, 12])
def test_what_is_raised_at_any_frame_ends_the_work_and_leaves_nothing(target, key, at, monkeypatch):
    class Stop(BaseException):
        pass

    def steps(total):
        def step(done):
            if done >= at:
                raise Stop

        return step

    monkeypatch.setattr("xavi9videos.nodes.video.write.progress.frame_steps", steps)
    with pytest.raises(Stop):
        saved(video_of(moving(13, 64, 96), audio=sine(1)), target, key)
    assert list(target.folder.iterdir()) == []


def test_a_transparent_webm_that_is_loaded_stays_transparent(target):
    images = torch.cat([moving(4, 64, 96), torch.zeros(4, 64, 96, 1)], -1)
    path, _ = saved(video_of(images), target, "webm-vp9", pixels="8 bit with alpha")
    again = InputImpl.VideoFromFile(str(path))
    for key, options in (("png", CLEAR["png"]), ("auto", {})):
        made, written = saved(again, target, key, **options)
        assert max(it[..., 3].max() for it in rgba(made)) <= 4 and not written.notes, key
    _, written = saved(again, target, "mp4-h264")
    assert ["transparency" in it for it in written.notes] == [True]


def test_ten_bit_is_asked_of_the_source_and_of_the_encoder(target):
    for key, name in (("mp4-h265", "yuv420p10le"), ("webm-av1", "yuv420p10le")):
        path, _ = saved(video_of(moving(3, 64, 96)), target, key, bit_depth="10")
        assert probe(path)["video"]["pix_fmt"] == name


def test_h265_has_the_name_that_apple_plays(target):
    path, _ = saved(video_of(moving(3, 64, 96)), target, "mp4-h265")
    assert probe(path)["video"]["codec_tag_string"] == "hvc1"


@pytest.mark.parametrize("key, chosen, found", [("gif", 3, 3), ("webp", 3, 3), ("webp", 0, 0)])
def test_how_often_it_plays_is_in_the_file(target, key, chosen, found):
    path, _ = saved(video_of(moving(3, 64, 96)), target, key, loop=chosen)
    assert PIL.Image.open(path).info["loop"] == found


def test_a_lossless_webp_is(target):
    images = torch.randint(0, 256, (3, 64, 96, 3), generator=torch.Generator().manual_seed(0)) / 255
    path, _ = saved(video_of(images), target, "webp", lossless=True)
    assert (rgba(path)[1][..., :3] == (images[1] * 255).round().numpy()).all()


@pytest.mark.parametrize("key", ["mp4-h264", "mp4-h265", "mp4-av1", "webm-vp9", "mov-prores", "mkv-ffv1"])
def test_pixels_that_are_not_square_keep_their_shape_or_it_is_said(target, tmp_path, key):
    file = tmp_path / "wide.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x96:r=24:d=0.2", "-vf", "setsar=4/3",
                    "-pix_fmt", "yuv420p", file], check=True)
    path, written = saved(InputImpl.VideoFromFile(str(file)), target, key)
    if key in ("webm-vp9", "mkv-ffv1"):
        assert any("4/3" in it for it in written.notes)
    else:
        assert probe(path)["video"]["sample_aspect_ratio"] == "4:3" and not written.notes


@pytest.mark.parametrize("key", ["png", "mkv-ffv1"])
def test_a_file_of_limited_range_becomes_pictures_of_full_range(target, key):
    halves = torch.cat([torch.zeros(3, 64, 48, 3), torch.ones(3, 64, 48, 3)], 2)
    path, _ = saved(video_of(halves), target, "mp4-h264")
    made, _ = saved(InputImpl.VideoFromFile(str(path)), target, key)
    assert probe(made / "00001.png" if made.is_dir() else made)["video"]["color_range"] == "pc"
    picture = rgba(made)[0]
    assert picture[:, :40, :3].max() <= 2 and picture[:, 56:, :3].min() >= 253


def test_few_cores_are_kept_busy(target, monkeypatch, tmp_path):
    """x264, which writes into its first picture what it was asked for; NVENC has no such options."""
    video = video_of(moving(4, height=256, width=64))

    def asked(path: Path) -> bytes:
        return re.search(rb"threads=\d+ lookahead_threads=\d+", path.read_bytes())[0]

    with av.open(str(tmp_path / "bare.mp4"), "w") as bare:
        stream = bare.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.thread_type = 64, 256, "yuv420p", "FRAME"
        frames = [av.VideoFrame(64, 256, "yuv420p") for _ in range(4)]
        bare.mux([packet for frame in (*frames, None) for packet in stream.encode(frame)])
    found = {}
    for cores in (2, 4):
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        path, _ = saved(video, target, "mp4-h264")
        found[cores] = asked(path)
        hardware = format_of({"format": "mp4-h264"}).hardware_settings({"encoder": "hardware"})
        assert not {"threads", "x264-params"} & set(hardware.options)
    assert found == {2: b"threads=6 lookahead_threads=2", 4: asked(tmp_path / "bare.mp4")}
