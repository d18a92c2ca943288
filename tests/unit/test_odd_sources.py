"""Sources that people have and encoders do not expect: gaps, turned pixels, changing sizes, values that are none."""

import math
import struct
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import PIL.Image
import pytest
import torch
from clips import ffmpeg, moving, probe, sine, write_file
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes import errors
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.play import Play
from xavi9videos.nodes.video.source import TensorSource, open_source
from xavi9videos.nodes.video.write import write


@pytest.fixture
def saved(tmp_path):
    def save(video, key="mp4-h264", audio=None, **options):
        chosen = all_formats()[key].settings(options)
        source = open_source(video, chosen.pixel_format)
        return write(source, Target(tmp_path, "v", 1, ""), {"format": key, **options}, audio, {})

    return save


def tensor(images, rate=Fraction(24), audio=None):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate, audio=audio))


def file(path):
    return InputImpl.VideoFromFile(str(path))


def times(path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [it.pts * it.time_base for it in container.decode(video=0)]


@pytest.mark.parametrize(
    ("key", "size"), [("mp4-av1", (256, 24)), ("webm-av1", (24, 640)), ("mp4-h265", (48, 64)), ("mp4-h265", (64, 48))]
)
def test_pictures_on_which_an_encoder_hangs_or_crashes_are_refused(saved, tmp_path, key, size):
    with pytest.raises(errors.EncoderRefused, match="takes no side below"):
        saved(tensor(torch.zeros(30, size[1], size[0], 3)), key)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", sorted(all_formats()))
def test_8193_pixels_are_wide_enough_for_nobody_to_fail(saved, key):
    path, written = saved(tensor(torch.rand(1, 64, 8193, 3).repeat(3, 1, 1, 1)), key, preset=None)
    assert written.frames == 3 and written.width in (8193, 8194) and written.height == 64


def test_sound_after_a_gap_is_heard_when_it_was(saved, tmp_path):
    whole, gap = tmp_path / "whole.mp4", tmp_path / "gap.mp4"
    click = "aevalsrc='if(between(t,1,1.02),0.9,0.05*sin(3000*t))':s=48000:d=2"
    ffmpeg("-f", "lavfi", "-i", "color=c=gray:s=64x64:r=24:d=2", "-f", "lavfi", "-i", click, "-c:a", "aac", whole)
    ffmpeg("-i", whole, "-af", "aselect='not(between(t,0.3,0.8))'", "-c:v", "copy", "-c:a", "aac", gap)
    for key in ("mp4-h264", "mkv-ffv1"):
        path, _ = saved(file(gap), key)
        with av.open(str(path)) as container:
            peaks = [(np.abs(it.to_ndarray().astype(float)).max(), it.time) for it in container.decode(audio=0)]
        assert max(peaks)[1] == pytest.approx(1, abs=0.1)


def test_a_slow_fade_in_webp_has_every_picture(saved):
    fade = torch.full((10, 64, 64, 3), 0.5) + torch.arange(10)[:, None, None, None] / 255
    path, _ = saved(tensor(fade), "webp")
    with PIL.Image.open(path) as image:
        assert image.n_frames == 10


def test_what_was_drawn_before_does_not_show_through_a_clear_webp(saved):
    images = torch.zeros(4, 64, 64, 4)
    for index in range(4):
        images[index, :, index * 16 : index * 16 + 16] = 1
    path, _ = saved(tensor(images), "webp")
    with PIL.Image.open(path) as image:
        for index in range(4):
            image.seek(index)
            clear = np.asarray(image.convert("RGBA"))[32, 8::16, 3] > 128
            assert list(clear) == [it == index for it in range(4)]


def test_pixels_that_are_not_square_turn_with_the_picture(saved, tmp_path):
    flat, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=192x96:r=24:d=0.5", "-vf", "setsar=16/11", flat)
    data = bytearray(flat.read_bytes())
    # The matrix in the track header (ISO 14496-12, 8.3.2), of a quarter turn.
    header = data.index(b"tkhd")
    struct.pack_into(">4i", data, header + 44, 0, 1 << 16, 0, -1 << 16)
    struct.pack_into(">i", data, header + 60, 0)
    turned.write_bytes(data)
    path, _ = saved(file(turned))
    video = probe(path)["video"]
    assert (video["width"], video["height"], video["sample_aspect_ratio"]) == (96, 192, "11:16")


def test_pictures_too_close_for_a_gif_are_refused_in_words(saved, tmp_path):
    burst = tmp_path / "burst.mp4"
    ffmpeg("-i", write_file(tmp_path / "a.mp4", frames=12), "-vf", "setpts='if(lt(N,6),N*40,N*512)'",
           "-fps_mode", "passthrough", "-an", burst)  # fmt: skip
    with pytest.raises(errors.RateTooHigh, match="gif holds at most 50"):
        saved(file(burst), "gif")
    assert not list(tmp_path.glob("*.gif")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("key", ["gif", "mp4-h264", "png"])
def test_a_size_that_changes_on_the_way_becomes_the_first(saved, tmp_path, key):
    for name, size in (("a.ts", "128x96"), ("b.ts", "64x64")):
        ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r=24:d=0.5", "-c:v", "libx264", "-bf", "0", tmp_path / name)
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    _, written = saved(file(both), key)
    assert (written.width, written.height) == (128, 96) and written.frames > 12


def test_gray_pictures_are_gray_and_two_channels_are_refused(saved):
    path, _ = saved(tensor(moving(3, 64, 64)[..., :1]), "mkv-ffv1")
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.ptp(picture, axis=-1).max() == 0 and np.ptp(picture) > 200
    with pytest.raises(errors.VideoUnreadable, match="pictures are 3x64x64x2"):
        saved(tensor(torch.rand(3, 64, 64, 2)))


def test_values_that_are_no_numbers_are_black_and_said(saved):
    images = torch.ones(3, 64, 64, 3)
    images[1, :8, :8] = math.nan
    path, written = saved(tensor(images), "mkv-ffv1")
    assert written.notes == ["192 values of its pictures were NaN and are black"]
    with av.open(str(path)) as container:
        pictures = [it.to_ndarray(format="rgb24") for it in container.decode(video=0)]
    assert pictures[1][:8, :8].max() == 0 and pictures[1][8:].min() == 255 and pictures[0].min() == 255


@pytest.mark.parametrize("given", [None, "a.mp4", 7])
def test_what_is_no_video_or_no_audio_is_said(saved, given):
    with pytest.raises(errors.VideoUnreadable, match="it is no VIDEO"):
        open_source(given)
    if given:
        with pytest.raises(errors.AudioNotUsable, match="it is no AUDIO"):
            saved(tensor(torch.zeros(1, 64, 64, 3)), audio=given)


@pytest.mark.parametrize(
    ("key", "options", "error"),
    [
        ("mp4-av1", {"preset": 99}, errors.OutOfRange),
        ("mp4-h264", {"crf": 999}, errors.OutOfRange),
        ("webp", {"quality": 500}, errors.OutOfRange),
        ("gif", {"loop": 99_999}, errors.OutOfRange),
        ("mp4-h264", {"preset": "fastest"}, errors.NotOneOf),
        ("mp4-h264", {"bit_depth": "12"}, errors.NotOneOf),
        ("mp4-h264", {"encoder": "gpu"}, errors.NotOneOf),
    ],
)
def test_an_option_that_came_by_a_link_is_named(saved, key, options, error):
    with pytest.raises(error, match=f"{next(iter(options))} is "):
        saved(tensor(torch.zeros(1, 64, 64, 3)), key, **options)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(60000, 1001), Fraction(60)])
def test_a_steady_matroska_file_keeps_its_exact_rate(saved, tmp_path, rate):
    first, _ = saved(tensor(moving(70, 64, 64), rate), "mkv-ffv1")
    for source in (file(first), InputImpl.VideoFromFile(str(first), start_time=0.5)):
        path, _ = saved(source)
        video = probe(path)["video"]
        assert Fraction(video["avg_frame_rate"]) == Fraction(video["r_frame_rate"]) == rate
    assert int(video["nb_read_frames"]) == 70 - math.ceil(rate / 2)


def test_an_unsteady_matroska_file_keeps_its_times(saved, tmp_path):
    uneven = tmp_path / "uneven.mkv"
    ffmpeg("-i", write_file(tmp_path / "a.mp4", frames=12), "-vf", "setpts='N*512+if(gt(N,5),200,0)'",
           "-fps_mode", "passthrough", "-an", uneven)  # fmt: skip
    path, _ = saved(file(uneven))
    assert [float(it) for it in times(path)] == pytest.approx([float(it) for it in times(uneven)], abs=1e-3)


def test_sound_tracks_that_are_left_out_are_said(saved, tmp_path):
    two = tmp_path / "two.mkv"
    a = write_file(tmp_path / "a.mp4")
    ffmpeg("-i", a, "-i", a, "-map", "0", "-map", "1:a", "-c", "copy", two)
    _, written = saved(file(two))
    assert written.notes == ["of its 2 sound tracks only the first was taken"]


@pytest.mark.parametrize("rate", [Fraction(1, 2000), Fraction(1, 3), 29.97002997, 23.976023976])
def test_a_rate_is_exact_below_one_and_mended_from_a_float(saved, rate):
    expected = rate if isinstance(rate, Fraction) else Fraction(round(rate) * 1000, 1001)
    _, written = saved(tensor(torch.zeros(2, 64, 64, 3), Fraction(rate)))
    assert written.rate == expected


def test_ten_thousand_small_pictures_are_all_there(saved, tmp_path):
    def images():
        for index in range(10_000):
            yield torch.full((64, 64, 3), index % 2)

    source = TensorSource(images, (10_000, 64, 64), Fraction(24), lambda: sine(1))
    given = {"format": "mp4-h264", "preset": "ultrafast"}
    path, written = write(source, Target(tmp_path, "v", 1, ""), given, None, {})
    assert written.frames == int(probe(path)["video"]["nb_read_frames"]) == 10_000


def test_an_encoder_that_this_pyav_has_not_is_named(saved, tmp_path, monkeypatch):
    lost = replace(all_formats()["mp4-h264"], encoder="libnothing")
    monkeypatch.setitem(all_formats(), "mp4-h264", lost)
    with pytest.raises(errors.EncoderRefused, match="this PyAV has no libnothing"):
        saved(tensor(torch.zeros(2, 64, 64, 3)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", sorted(all_formats()))
def test_a_hundred_thousand_pictures_a_second_are_exact_or_refused(saved, key):
    video = tensor(moving(5, 64, 64), Fraction(100_000))
    try:
        path, written = saved(video, key)
    except errors.RateTooHigh:
        assert key in ("gif", "webp", "webm-vp9", "webm-av1", "mkv-ffv1")
    except errors.EncoderRefused:
        assert key in ("mp4-av1", "webm-av1")
    else:
        assert key in ("mp4-h264", "mp4-h265", "mov-prores", "png") and written.frames == 5
        assert path.is_dir() or Fraction(probe(path)["video"]["avg_frame_rate"]) == 100_000


def with_a_still_at_the_end(path, kind):
    """24 pictures or 4, of which the last is seen for 2 seconds; a film has 4 seconds of sound."""
    if kind == "gif":
        pictures = [PIL.Image.fromarray((it.numpy() * 255).astype(np.uint8)) for it in moving(4, 64, 96)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 100, 100, 2000])
        return Fraction(23, 10)
    made = write_file(path.with_name("made.mp4"), frames=24, bf=0)
    ffmpeg("-f", "lavfi", "-i", "sine=d=4", "-i", made, "-map", "1:v", "-map", "0:a", "-c:v", "copy",
           path.with_name("sound.mp4"))  # fmt: skip
    with av.open(str(path.with_name("sound.mp4"))) as old, av.open(str(path), "w") as new:
        streams = {it.index: new.add_stream_from_template(it) for it in old.streams}
        packets = [it for it in old.demux() if it.dts is not None]
        last = max((it for it in packets if it.stream.type == "video"), key=lambda it: it.pts)
        last.duration = round(2 / last.time_base)
        for packet in packets:
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return Fraction(23, 24) + 2


@pytest.mark.parametrize("kind", ["gif", "mp4", "mov", "mkv"])
@pytest.mark.parametrize("key", ["mp4-h264", "webm-vp9", "gif"])
def test_the_last_picture_is_seen_as_long_as_it_was(saved, tmp_path, kind, key):
    path = tmp_path / f"still.{kind}"
    length = with_a_still_at_the_end(path, kind)
    made, written = saved(file(path), key)
    assert written.seconds == pytest.approx(float(length), abs=0.02)
    assert float(probe(made)["format"]["duration"]) == pytest.approx(float(length), abs=0.06)
    expected = [it - times(path)[0] for it in times(path)]
    assert times(made)[:-1] == pytest.approx(expected, abs=0.011)
    assert "its last picture, seen for 2.00 s, is there twice" in written.notes
    if kind != "gif" and key == "mp4-h264":
        assert float(probe(made)["audio"]["duration"]) == pytest.approx(float(length), abs=0.05)


def test_a_cut_in_the_last_picture_ends_there(saved, tmp_path):
    path = tmp_path / "still.mp4"
    with_a_still_at_the_end(path, "mp4")
    cut = InputImpl.VideoFromFile(str(path), start_time=0.5, duration=1.0)
    _, written = saved(cut)
    assert written.seconds == pytest.approx(1.0, abs=0.05)


def test_a_still_in_the_middle_is_seen_as_long_as_it_was(tmp_path):
    path = tmp_path / "still.gif"
    with_a_still_at_the_end(path, "gif")
    source, target = open_source(file(path)), Target(tmp_path, "v", 1, "")
    made, written = write(source, target, {"format": "mp4-h264"}, None, {}, Play(pingpong=True))
    assert [float(it) for it in times(made)] == pytest.approx([0, 0.1, 0.2, 0.3, 2.3, 2.4], abs=0.001)
    for part in ("format", "video"):
        assert written.seconds == pytest.approx(float(probe(made)[part]["duration"]), abs=0.02)


def programmes(folder, *sounds):
    """A transport stream of a second for each (channels, rate), whose clock begins anew with each."""
    data = b""
    for channels, rate in sounds:
        part = folder / "part.ts"
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=128x96:r=24:d=1", "-f", "lavfi", "-i", f"sine=d=1:r={rate}",
               "-c:v", "libx264", "-ac", channels, "-c:a", "aac", part)  # fmt: skip
        data += part.read_bytes()
    path = folder / "whole.ts"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("second", [(1, 48_000), (2, 48_000), (1, 44_100)])
def test_one_recording_behind_the_other_is_seen_and_heard_whole(saved, tmp_path, second):
    made, written = saved(file(programmes(tmp_path, (1, 48_000), second)))
    assert written.frames == 48 and written.seconds == pytest.approx(2, abs=0.05)
    seen = times(made)
    assert all(float(b - a) == pytest.approx(1 / 24, abs=0.002) for a, b in pairwise(seen))
    assert float(probe(made)["audio"]["duration"]) == pytest.approx(2, abs=0.1)


def test_another_sound_ends_with_pictures_that_last_unequally(tmp_path):
    path = tmp_path / "gap.mp4"
    ffmpeg("-i", write_file(tmp_path / "a.mp4"), "-vf", "setpts='PTS+gt(N,20)*3/TB'", "-fps_mode", "passthrough", "-an",
           "-c:v", "libx264", "-bf", "3", path)  # fmt: skip
    source, target = open_source(file(path)), Target(tmp_path, "v", 1, "")
    made, written = write(source, target, {"format": "auto"}, sine(10), {}, Play())
    assert written.encoder == "copy" and written.seconds == pytest.approx(5, abs=0.01)
    assert float(probe(made)["audio"]["duration"]) == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("shape", [(64, 64, 3), (2, 0, 64, 3), (2, 64, 64, 0), (2, 64, 64, 5), (1, 2, 64, 64, 3)])
def test_what_are_no_pictures_is_refused_in_words(saved, shape):
    with pytest.raises(errors.VideoUnreadable, match=f"pictures are {'x'.join(map(str, shape))}, and not frames x"):
        saved(tensor(torch.zeros(shape)))


def test_a_copy_keeps_what_people_wrote_and_says_what_it_leaves_out(tmp_path):
    (tmp_path / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    path = tmp_path / "rich.mp4"
    ffmpeg("-i", write_file(tmp_path / "a.mp4"), "-i", tmp_path / "s.srt", "-map", "0:v", "-map", "0:a", "-map", "0:a",
           "-map", "1", "-c", "copy", "-c:s", "mov_text", "-metadata", "title=Mine", "-metadata:s:a:0", "language=deu",
           "-metadata:s:a:1", "language=fra", path)  # fmt: skip
    source, target = open_source(file(path)), Target(tmp_path, "v", 1, "")
    made, written = write(source, target, {"format": "auto"}, None, {"prompt": "{}"}, Play())
    assert written.notes == ["1 of its tracks, further pictures, subtitles or data, were left out"]
    with av.open(str(made)) as container:
        assert (container.metadata["title"], container.metadata["prompt"]) == ("Mine", "{}")
        assert [it.language for it in container.streams.audio] == ["deu", "fra"]
