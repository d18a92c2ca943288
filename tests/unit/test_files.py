"""Files as VIDEO: what of them must not be lost without a word, and what may happen to them while they are read."""

import itertools
import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import ffmpeg, sine, write_file
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes import errors
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video import show
from xavi9videos.nodes.video.matroska import promised
from xavi9videos.nodes.video.play import Play
from xavi9videos.nodes.video.source import open_source
from xavi9videos.nodes.video.write import format_of, write

LEFT_OUT = "1 of its tracks, further pictures, subtitles or data, were left out"
HOLE = ("-f", "lavfi", "-i", "testsrc2=s=64x64:r=24:d=1", "-itsoffset", "0.5", "-f", "lavfi", "-i", "sine=d=0.5")


def opened(path: Path, key: str = "mp4-h264", **trim):
    chosen = format_of({"format": key}).settings({})
    return open_source(InputImpl.VideoFromFile(str(path), **trim), chosen.pixel_format)


@pytest.fixture
def saved(tmp_path):
    def save(source, key="mp4-h264", audio=None, play=Play()):
        source = opened(source, key) if isinstance(source, Path) else source
        return write(source, Target(tmp_path, "v", 1, ""), {"format": key}, audio, {}, play)

    return save


def begins(path: Path) -> list[Fraction]:
    """The second at which the first picture and the first sound come."""
    found = []
    for kind in ("video", "audio"):
        with av.open(str(path)) as container:
            found.append(next(container.decode(**{kind: 0})).time)
    return found


@pytest.mark.parametrize("encoder", ["libvpx", "libvpx-vp9"])
def test_a_copied_webm_keeps_its_transparency(saved, tmp_path, encoder):
    colour = "color=red@0.5:s=64x64:r=24:d=0.5,format=yuva420p"
    path = ffmpeg("-f", "lavfi", "-i", colour, "-c:v", encoder, "-auto-alt-ref", 0, tmp_path / "a.webm")
    # FFmpeg's own copy says it in capitals.
    for file in (path, ffmpeg("-i", path, "-c", "copy", tmp_path / "b.webm")):
        copy, written = saved(file, "auto")
        assert written.encoder == "copy" and written.notes == []
        frame = next(open_source(InputImpl.VideoFromFile(str(copy)), "yuva420p").frames())
        assert np.frombuffer(frame.planes[3], np.uint8)[0] == pytest.approx(127, abs=2)


@pytest.mark.parametrize("ending", ["mov", "mkv"])
def test_pictures_after_more_sound_than_ffmpeg_looks_at(saved, tmp_path, ending):
    clip = write_file(tmp_path / "a.mp4", frames=24)
    noise = ("-f", "lavfi", "-i", "anoisesrc=d=40:r=48000", "-itsoffset", 39)
    late = ffmpeg(*noise, "-i", clip, "-map", "1:v", "-map", "0:a", "-ac", 2, "-c:a", "pcm_s16le", "-c:v", "copy",
                  tmp_path / f"late.{ending}")  # fmt: skip
    with av.open(str(late)) as container:
        assert container.streams.video[0].codec_context.pix_fmt is None, "else this shows nothing"
    path, written = saved(late)
    with av.open(str(path)) as container:
        assert written.frames == len(list(container.decode(video=0))) == 24
    assert written.notes == ["its sound began 39.00 s before its first picture: that was left out"]


@pytest.mark.parametrize("key", ["mp4-h264", "mov-prores", "mkv-ffv1"])
def test_a_repeated_sound_that_begins_late_does_so_each_time(saved, tmp_path, key):
    path, written = saved(ffmpeg(*HOLE, tmp_path / "late.mp4"), key, play=Play(False, 2, "repeat sound"))
    assert written.seconds == 3
    with av.open(str(path)) as container:
        # In order and not by their times, as players take those of ProRes and FFV1.
        resampler = av.AudioResampler("flt", "mono", 48000)
        found = [it.to_ndarray()[0] for frame in container.decode(audio=0) for it in resampler.resample(frame)]
    samples = np.abs(np.concatenate(found))
    # Halves of a second, but for the tenths that an encoder blurs.
    halves = [samples[it * 24000 + 4800 : it * 24000 + 19200].reshape(-1, 480).max(1) for it in range(6)]
    assert [(it > 0.01).mean() for it in halves] == [0, 1] * 3


def replaced(path: Path, other: Path):
    path.unlink()
    shutil.copy(other, path)


def overwritten(path: Path, other: Path):
    path.write_bytes(other.read_bytes())


def touched(path: Path, other: Path):
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [replaced, overwritten, touched])
def test_pictures_and_sound_are_of_one_file(saved, tmp_path, change):
    path, other = write_file(tmp_path / "a.mp4", frames=24), write_file(tmp_path / "b.mp4", frames=30)
    source = opened(path)
    change(path, other)
    with pytest.raises(errors.VideoUnreadable, match="a.mp4 has changed while it was read; run the workflow again"):
        saved(source)
    assert {it.name for it in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


@pytest.mark.parametrize("key", ["auto", "mp4-h264"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_source_that_is_deleted_is_read_to_its_end_or_named(saved, tmp_path, ending, key):
    path = ffmpeg("-i", write_file(tmp_path / "a.mp4", frames=24), "-c", "copy", tmp_path / f"b.{ending}")
    source = opened(path)
    path.unlink()
    if (ending, key) == ("mp4", "auto"):
        _, written = saved(source, key)
        assert (written.encoder, written.frames) == ("copy", 24)
        return
    with pytest.raises(errors.VideoUnreadable, match=f"b.{ending} is gone"):
        saved(source, key)


@pytest.mark.parametrize("trim", [{}, {"duration": 1.0}])
def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, trim):
    """Two silent recordings of one length: without a look at the end some pictures of each would be saved."""
    red, blue = (ffmpeg("-f", "lavfi", "-i", f"color={it}:s=640x360:r=24:d=2,noise=alls=60", "-g", 12,
                        tmp_path / f"{it}.mkv") for it in ("red", "blue"))  # fmt: skip
    source = opened(red, **trim)
    frames = source.frames()
    next(frames)
    overwritten(red, blue)
    with pytest.raises(errors.VideoUnreadable, match="red.mkv has changed while it was read"):
        list(frames)


def test_sound_before_the_first_picture_is_said(saved, tmp_path):
    late = ffmpeg("-f", "lavfi", "-i", "sine=d=1.5", "-itsoffset", 0.5, "-i", write_file(tmp_path / "a.mp4", frames=24),
                  "-map", "1:v", "-map", "0:a", "-c:v", "copy", tmp_path / "late.mkv")  # fmt: skip
    _, written = saved(late)
    assert written.notes == ["its sound began 0.50 s before its first picture: that was left out"]
    _, written = saved(opened(late, start_time=0.75))
    assert written.notes == []


@pytest.mark.parametrize("key", ["auto", "mp4-h264"])
def test_another_sound_begins_with_the_first_picture(saved, tmp_path, key):
    clip, long = write_file(tmp_path / "a.mp4", frames=24), write_file(tmp_path / "b.mp4")
    late = ffmpeg("-itsoffset", 0.5, "-i", clip, "-i", long,
                  "-map", "0:v", "-map", "1:a", "-c", "copy", tmp_path / "late.mp4")  # fmt: skip
    assert begins(late) == [0.5, 0]
    path, written = saved(late, key, sine(1))
    assert written.encoder == ("copy" if key == "auto" else "libx264")
    assert saved(late, "auto")[1].seconds == 1
    assert begins(path) == [0, 0] and written.seconds == 1 and written.notes == []


@pytest.mark.parametrize("key", ["auto", "mp4-h264"])
def test_an_audio_without_a_sample_is_silence_and_said(saved, tmp_path, key):
    nothing = {"waveform": torch.zeros(1, 2, 0), "sample_rate": 44100}
    path, written = saved(write_file(tmp_path / "a.mp4", frames=24), key, nothing)
    assert written.notes == ["it has no sound: the audio has no samples"]
    with av.open(str(path)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_h265_of_so_few_pictures_has_times(saved, frames):
    for grey in range(8):
        images = torch.full((frames, 64, 96, 3), grey / 8)
        video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(24)))
        path, _ = saved(open_source(video), "mp4-h265")
        with av.open(str(path)) as container:
            assert [round(it.time * 24, 3) for it in container.decode(video=0)] == list(range(frames))
        with av.open(str(path)) as container:
            shifts = {(it.pts - it.dts) * it.time_base * 24 for it in container.demux(video=0) if it.size}
            assert container.duration == round(frames / 24 * 1_000_000) and max(map(abs, shifts)) < 4


@pytest.mark.parametrize("key", ["auto", "mp4-h264"])
def test_tracks_that_are_left_out_are_said(saved, tmp_path, key):
    clip = write_file(tmp_path / "a.mp4", frames=24)
    (tmp_path / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    two = ffmpeg("-i", clip, "-i", clip, "-map", "0", "-map", "1:v", "-c", "copy", tmp_path / "two.mp4")
    subtitled = ffmpeg("-i", clip, "-i", tmp_path / "s.srt", "-c", "copy", "-c:s", "mov_text", tmp_path / "s.mp4")
    for path in (two, subtitled):
        _, written = saved(path, key)
        assert written.notes == [LEFT_OUT]


@pytest.mark.parametrize("key", ["auto", "mp4-h264"])
def test_pictures_without_a_decoder_are_refused_in_words(tmp_path, key):
    path = write_file(tmp_path / "a.mp4", frames=24)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(errors.VideoUnreadable, match="a.mp4: there is no decoder for its pictures"):
        opened(path, key)


@pytest.mark.parametrize("padding", [0, 150, *range(190, 240)])
def test_a_matroska_head_of_any_length(padding):
    """EBML header (RFC 8794, section 11.2.1): its size, then a Void element; then a Segment of 1000 bytes."""
    void = b"\xec" + bytes([0x40 | padding >> 8, padding & 255]) + bytes(padding)
    head = b"\x1a\x45\xdf\xa3" + bytes([0x40 | len(void) >> 8, len(void) & 255]) + void
    file = head + b"\x18\x53\x80\x67" + b"\x01" + (1000).to_bytes(7) + bytes(1000)
    assert promised(file[:256]) in (0, len(file))
    assert promised(file) == len(file)


def test_hdr_that_does_not_stay_hdr_is_said(saved, tmp_path):
    pq = ("-vf", "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc")
    hdr = ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=24:d=0.2", *pq, "-pix_fmt", "yuv420p10le", "-c:v", "libx265",
                 "-x265-params", "log-level=none", tmp_path / "hdr.mp4")  # fmt: skip
    bands = "it is HDR with 8 bits now, which may show bands in a sky: 10 bits do not"
    for key, notes in {"mp4-h265": [bands], "mov-prores": [], "png": ["its HDR colours were not converted: png cannot "
                       "say that they are, and looks pale"]}.items():  # fmt: skip
        assert saved(hdr, key)[1].notes == notes
    chosen = {"format": "mp4-h265", "bit_depth": "10"}
    source = open_source(InputImpl.VideoFromFile(str(hdr)), "yuv420p10le")
    path, written = write(source, Target(tmp_path, "ten", 1, ""), chosen, None, {})
    assert written.notes == []
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.color_trc == 16


def test_an_interrupted_preview_leaves_nothing(saved, tmp_path, monkeypatch):
    class Interrupt(BaseException):
        pass

    polls = itertools.count()

    def poll():
        # 300 packets are looked through before, for whether the file is steady.
        if next(polls) == 450:
            assert (tmp_path / "preview.mp4").exists()
            raise Interrupt

    path, written = saved(write_file(tmp_path / "a.mp4", frames=300), "mkv-ffv1")
    monkeypatch.setattr(show.paths, "temp_file", lambda suffix: tmp_path / f"preview{suffix}")
    monkeypatch.setattr(show.progress, "stop_if_interrupted", poll)
    with pytest.raises(Interrupt):
        show.preview(path, written)
    assert {it.name for it in tmp_path.iterdir()} == {"a.mp4", path.name}
