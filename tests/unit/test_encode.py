"""Video files as ffprobe and a plain decoder see them: frames, rates, sizes, colours, sound, cuts."""

import errno
import io
import struct
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import moving, packets, pictures, probe, sine, write_file
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes import errors
from xavi9videos.nodes.video import copy as copy_module
from xavi9videos.nodes.video.copy import copy, copyable
from xavi9videos.nodes.video.encode import AHEAD, ahead, encode
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.play import Play
from xavi9videos.nodes.video.sound import tensor_sound
from xavi9videos.nodes.video.source import open_source

H264 = all_formats()["mp4-h264"]
RATES = [Fraction(24), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(1)]


def from_tensor(images, rate=Fraction(24), audio=None):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate, audio=audio))


def encoded(video, path, audio=None, step=lambda done: None, **options):
    settings = H264.settings(options)
    source = open_source(video, settings.pixel_format)
    sound = (lambda: tensor_sound(audio)) if audio else source.sound
    return encode(source, path, H264, settings, {}, sound, step)


def flash_and_click(path) -> tuple[int, int]:
    """The frames of the brightest picture and of the loudest sample, at 24 frames a second."""
    with av.open(str(path)) as container:
        brightness = [it.to_ndarray(format="gray").mean() for it in container.decode(video=0)]
        container.seek(0)
        loud = [(it.time, np.abs(it.to_ndarray()).max(0)) for it in container.decode(audio=0)]
    time, samples = max(loud, key=lambda it: it[1].max())
    return int(np.argmax(brightness)), int((time + samples.argmax() / 48_000) * 24)


def copied(video, path, sound=None):
    source = open_source(video)
    return copy(source, path, copyable(source), "aac", {}, sound, lambda done: None)


@pytest.mark.parametrize("rate", RATES)
def test_every_frame_is_there_at_the_exact_rate(tmp_path, rate):
    written = encoded(from_tensor(moving(25, 96, 128), rate), tmp_path / "a")
    video = probe(tmp_path / "a")["video"]
    assert int(video["nb_read_frames"]) == written.frames == 25
    assert Fraction(video["r_frame_rate"]) == Fraction(video["avg_frame_rate"]) == rate
    assert float(video["duration"]) == pytest.approx(25 / rate, abs=1e-3)
    assert written.seconds == pytest.approx(25 / rate)


@pytest.mark.parametrize("given, meant", [(29.97002997, Fraction(30000, 1001)), (29.97, Fraction(2997, 100))])
def test_a_rate_that_was_a_float_becomes_the_rate_that_was_meant(tmp_path, given, meant):
    encoded(from_tensor(moving(5, 96, 128), Fraction(given)), tmp_path / "a")
    assert Fraction(probe(tmp_path / "a")["video"]["r_frame_rate"]) == meant


@pytest.mark.parametrize("size", [(95, 127), (96, 127), (95, 128), (1, 1)])
def test_an_odd_size_keeps_every_pixel_and_says_what_was_added(tmp_path, size):
    images = moving(3, *size)
    written = encoded(from_tensor(images), tmp_path / "a", crf=1)
    even = tuple(it + it % 2 for it in size)
    assert (written.height, written.width) == even
    picture = pictures(tmp_path / "a")[0]
    assert picture.shape[:2] == even
    assert np.abs(picture[: size[0], : size[1]] / 255 - images[0].numpy()).mean() < 0.06
    assert (len(written.notes) == 1) == (even != size)


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.25, 0.75)])
@pytest.mark.parametrize("bit_depth", ["8", "10"])
def test_colours_are_bt709_tagged_and_right_within_two_levels(tmp_path, colour, bit_depth):
    encoded(from_tensor(torch.tensor(colour).float().expand(3, 96, 128, 3)), tmp_path / "a", bit_depth=bit_depth, crf=5)
    video = probe(tmp_path / "a")["video"]
    tags = [video[it] for it in ("color_space", "color_primaries", "color_transfer", "color_range")]
    assert tags == ["bt709", "bt709", "bt709", "tv"]
    assert video["pix_fmt"] == {"8": "yuv420p", "10": "yuv420p10le"}[bit_depth]
    with av.open(str(tmp_path / "a")) as container:
        frame = next(container.decode(video=0)).reformat(format="rgb24", src_colorspace="ITU709")
    assert np.abs(frame.to_ndarray().mean((0, 1)) - np.array(colour) * 255).max() <= 2.5


def test_ten_bit_holds_steps_that_eight_bit_cannot(tmp_path):
    ramp = torch.linspace(0.4, 0.42, 128).expand(2, 96, 128)[..., None].expand(-1, -1, -1, 3)
    levels = {}
    for bit_depth in ("8", "10"):
        encoded(from_tensor(ramp), tmp_path / bit_depth, bit_depth=bit_depth, crf=1)
        with av.open(str(tmp_path / bit_depth)) as container:
            plane = next(container.decode(video=0)).reformat(format="gray10le").to_ndarray()
        levels[bit_depth] = len(np.unique(plane))
    assert levels["10"] >= 2.5 * levels["8"]


def test_values_outside_0_to_1_and_half_precision_and_alpha_are_taken(tmp_path):
    images = torch.cat([moving(3, 96, 128) * 3 - 1, torch.ones(3, 96, 128, 1)], -1).half()
    encoded(from_tensor(images), tmp_path / "a", crf=1)
    assert pictures(tmp_path / "a")[0].min() < 8 and pictures(tmp_path / "a")[0].max() > 247


def test_an_empty_batch_is_refused():
    with pytest.raises(errors.VideoEmpty):
        open_source(from_tensor(torch.empty(0, 96, 128, 3)))


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 22_000, 192_000])
def test_sound_of_any_layout_and_rate_lasts_as_long_as_the_picture(tmp_path, channels, rate):
    encoded(from_tensor(moving(12, 96, 128), Fraction(24), sine(2, rate, channels)), tmp_path / "a")
    audio = probe(tmp_path / "a")["audio"]
    assert audio["codec_name"] == "aac" and audio["channels"] == channels
    assert float(audio["duration"]) == pytest.approx(0.5, abs=0.03)


def test_a_click_and_a_flash_stay_in_the_same_frame(tmp_path):
    images, audio = torch.zeros(48, 96, 128, 3), sine(2)
    images[30] = 1
    audio["waveform"].zero_()
    audio["waveform"][..., 30 * 2000 + 500 : 30 * 2000 + 600] = 0.9
    encoded(from_tensor(images, Fraction(24), audio), tmp_path / "a")
    assert flash_and_click(tmp_path / "a") == (30, 30)


def test_sound_lies_beside_its_picture_in_the_file(tmp_path):
    """A player that streams needs both at once; 40 s is more than a muxer holds back."""
    encoded(from_tensor(moving(80, 96, 128), Fraction(2), sine(40, 8000, 1)), tmp_path / "a")
    with av.open(str(tmp_path / "a")) as container:
        placed = [(it.pos, it.stream.type, float(it.dts * it.time_base)) for it in container.demux() if it.size]
    at = {"video": 0.0, "audio": 0.0}
    for _, kind, seconds in sorted(placed):
        at[kind] = seconds
        assert abs(at["video"] - at["audio"]) < 5


def test_an_intra_only_source_does_not_come_out_all_keyframes(tmp_path):
    file = write_file(tmp_path / "a.mp4", frames=24, gop=1)
    encoded(InputImpl.VideoFromFile(str(file)), tmp_path / "b")
    with av.open(str(tmp_path / "b")) as container:
        assert sum(it.is_keyframe for it in container.demux(video=0) if it.size) == 1


def test_nan_and_infinite_samples_become_silence_and_are_counted(tmp_path):
    audio = sine(1)
    audio["waveform"][0, 0, 100:110] = float("nan")
    audio["waveform"][0, 1, 500] = float("inf")
    written = encoded(from_tensor(moving(24, 96, 128), Fraction(24), audio), tmp_path / "a")
    assert written.notes == ["11 audio samples were NaN or infinite and are silent"]
    with av.open(str(tmp_path / "a")) as container:
        heard = np.concatenate([it.to_ndarray() for it in container.decode(audio=0)], 1)
    assert np.isfinite(heard).all() and np.abs(heard).max() > 0.3


@pytest.mark.parametrize(
    "waveform, rate", [((2, 2, 100), 48_000), ((2, 100), 48_000), ((1, 9, 100), 48_000), ((1, 2, 100), 100)]
)
def test_audio_that_cannot_be_encoded_is_refused_by_name(waveform, rate):
    with pytest.raises(errors.AudioNotUsable, match="1 to 8 channels"):
        tensor_sound({"waveform": torch.zeros(waveform), "sample_rate": rate})


def test_silence_of_no_length_is_no_sound(tmp_path):
    encoded(from_tensor(moving(3, 96, 128), Fraction(24), sine(0)), tmp_path / "a")
    assert probe(tmp_path / "a")["audio"] is None


@pytest.mark.parametrize("name, codec, container", [("a.mp4", "libx264", "mp4"), ("a.webm", "libvpx-vp9", "webm")])
def test_a_copy_has_the_very_packets(tmp_path, name, codec, container):
    file = write_file(tmp_path / name, codec=codec)
    source = open_source(InputImpl.VideoFromFile(str(file)))
    assert copyable(source) == container
    written = copy(source, tmp_path / "b", container, "aac", {}, None, lambda done: None)
    assert packets(tmp_path / "b") == packets(file)
    assert packets(tmp_path / "b", "audio") == packets(file, "audio")
    assert written.frames == 48 and written.seconds == pytest.approx(2, abs=0.01)
    assert probe(tmp_path / "b")["video"]["avg_frame_rate"] == "24/1"


@pytest.mark.parametrize("frames", [25, 400])
def test_the_index_of_a_copy_stands_in_front_whatever_its_size(tmp_path, monkeypatch, frames):
    file = write_file(tmp_path / "a.mp4", frames=frames)
    tags = {"workflow": "w" * 300_000, "prompt": "\u00e4" * 1000}
    boxes = []
    for large in (0, 1 << 40):
        monkeypatch.setattr(copy_module, "LARGE_BYTES", large)
        source = open_source(InputImpl.VideoFromFile(str(file)))
        copy(source, tmp_path / "b", "mp4", "aac", tags, None, lambda done: None)
        assert packets(tmp_path / "b") == packets(file)
        with av.open(str(tmp_path / "b")) as container:
            assert {key: container.metadata[key] for key in tags} == tags
        data = (tmp_path / "b").read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")
        boxes.append((b"free" in data[data.index(b"moov") : data.index(b"mdat")], data.index(b"mdat") + 4))
    (kept_free, packets_at), _ = boxes
    assert kept_free and packets_at % 2**18 == 0


def test_a_full_disk_is_not_blamed_on_the_source():
    """Writing to /dev/full fails as a full disk does."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_file(Path(folder) / "a.mp4")
        for way in (copied, encoded):
            with pytest.raises(OSError) as caught:
                way(InputImpl.VideoFromFile(str(file)), Path("/dev/full"))
            assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("name, codec", [("a.mov", "libx264")])
def test_what_is_neither_mp4_nor_webm_is_encoded(tmp_path, name, codec):
    assert copyable(open_source(InputImpl.VideoFromFile(str(write_file(tmp_path / name, codec=codec))))) is None
    assert copyable(open_source(from_tensor(moving(2, 96, 128)))) is None


# gop 12 at 24 frames a second: a keyframe each half second.
PLAIN = {"bf": 0}
CUTS = [(0, 1, {}), (0.5, 0, {}), (0.5, 0.75, PLAIN), (0.5, 0.7, {}), (0.3, 0.7, {}), (0.3, 0, PLAIN), (1.95, 0, {})]


@pytest.mark.parametrize("start, duration, options", CUTS)
def test_a_cut_has_the_hosts_own_frames(tmp_path, start, duration, options):
    file = write_file(tmp_path / "a.mp4", **options)
    video = InputImpl.VideoFromFile(str(file), start_time=start, duration=duration)
    expected = video.get_components().images.numpy() * 255
    source = open_source(video)
    if copyable(source):
        copied(video, tmp_path / "b")
    else:
        encoded(video, tmp_path / "b", crf=1)
    found = pictures(tmp_path / "b")
    assert len(found) == len(expected)
    assert all(np.abs(a - b).mean() < 3 for a, b in zip(found, expected, strict=True))
    assert float(probe(tmp_path / "b")["video"]["start_time"]) == pytest.approx(0, abs=1e-3)
    sound = probe(tmp_path / "b")["audio"]
    assert float(sound["duration"]) == pytest.approx(len(expected) / 24, abs=0.06)


def test_a_cut_on_a_keyframe_without_b_frames_is_copied_and_others_are_not(tmp_path):
    plain = write_file(tmp_path / "plain.mp4", bf=0)

    def of(start, duration):
        return copyable(open_source(InputImpl.VideoFromFile(str(plain), start_time=start, duration=duration)))

    assert of(0.5, 0.75) == of(0, 1) == of(1, 0) == "mp4"
    assert of(0.3, 0.7) is of(0.52, 0) is None


def test_a_cut_before_a_frame_that_others_need_is_not_copied(tmp_path):
    """With three B-frames between references, a cut that drops the later reference would leave them without it."""
    file = write_file(tmp_path / "a.mp4", **{"bf": 3, "b_strategy": 0, "b-pyramid": "none"})
    taken = []
    for end in range(13, 24):
        video = InputImpl.VideoFromFile(str(file), start_time=0.5, duration=(end - 12) / 24)
        taken.append(copyable(open_source(video)) is not None)
        if taken[-1]:
            copied(video, tmp_path / "b")
            expected = video.get_components().images.numpy() * 255
            assert all(np.abs(a - b).mean() < 3 for a, b in zip(pictures(tmp_path / "b"), expected, strict=True))
    assert True in taken and False in taken


def test_a_trimmed_and_encoded_file_keeps_sound_and_picture_together(tmp_path):
    images, audio = torch.zeros(72, 96, 128, 3), sine(3)
    images[40] = 1
    audio["waveform"].zero_()
    audio["waveform"][..., 40 * 2000 + 500 : 40 * 2000 + 600] = 0.9
    encoded(from_tensor(images, Fraction(24), audio), tmp_path / "a.mp4")
    video = InputImpl.VideoFromFile(str(tmp_path / "a.mp4"), start_time=0.51, duration=2)
    encoded(video, tmp_path / "b")
    assert flash_and_click(tmp_path / "b") == (40 - 13, 40 - 13)


def test_a_replaced_sound_leaves_the_picture_as_it_is(tmp_path):
    file = write_file(tmp_path / "a.mp4")
    copied(InputImpl.VideoFromFile(str(file)), tmp_path / "b", tensor_sound(sine(9, 44_100, 1)))
    assert packets(tmp_path / "b") == packets(file)
    audio = probe(tmp_path / "b")["audio"]
    assert (audio["channels"], audio["sample_rate"]) == (1, "44100")
    assert float(audio["duration"]) == pytest.approx(2, abs=0.03)


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=24, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, at in zip(moving(5, 96, 128), (0, 40, 200, 240, 1000), strict=True):
            frame = av.VideoFrame.from_ndarray((picture * 255).byte().numpy(), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    encoded(InputImpl.VideoFromFile(str(tmp_path / "a.mp4")), tmp_path / "b")
    with av.open(str(tmp_path / "b")) as container:
        assert [round(it.time, 3) for it in container.decode(video=0)] == [0, 0.04, 0.2, 0.24, 1.0]


ONE = 1 << 16
TURNS = {90: (0, ONE, -ONE, 0), 180: (-ONE, 0, 0, -ONE), 270: (0, -ONE, ONE, 0)}


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_phone_clip_is_encoded_upright(tmp_path, turn):
    file = write_file(tmp_path / "a.mp4", frames=4)
    data = bytearray(file.read_bytes())
    # The matrix in the first track header (ISO 14496-12, 8.3.2): 40 bytes of version 0 fields stand before it.
    struct.pack_into(">4i", data, data.index(b"tkhd") + 44, *TURNS[turn][:2], 0, TURNS[turn][2])
    struct.pack_into(">i", data, data.index(b"tkhd") + 60, TURNS[turn][3])
    file.write_bytes(data)
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-crf", "1", str(tmp_path / "oracle.mp4")]
    subprocess.run(command, check=True)
    encoded(InputImpl.VideoFromFile(str(file)), tmp_path / "b", crf=1)
    ours, ffmpeg = pictures(tmp_path / "b")[0], pictures(tmp_path / "oracle.mp4")[0]
    assert ours.shape == ffmpeg.shape
    assert np.abs(ours.astype(int) - ffmpeg).mean() < 3


def test_a_full_range_source_becomes_limited_range_without_a_shift(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w", format="mp4") as output:
        stream = output.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 200, np.uint8), format="rgb24")
        output.mux(stream.encode(frame.reformat(format="yuvj420p")))
        output.mux(stream.encode(None))
    encoded(InputImpl.VideoFromFile(str(tmp_path / "a.mp4")), tmp_path / "b", crf=1)
    assert np.abs(pictures(tmp_path / "b")[0].mean() - 200) < 3


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "missing", "sound only"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, damage):
    file = write_file(tmp_path / "a.mp4")
    whole = file.read_bytes()
    if damage == "sound only":
        with av.open(str(file), "w", format="mp4") as output:
            stream = output.add_stream("aac", rate=48_000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.sample_rate = 48_000
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello" * 100, "empty": b""}[damage])
    with pytest.raises(errors.VideoUnreadable):
        open_source(InputImpl.VideoFromFile(str(file)))


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.parametrize("container", ["mkv", "webm"])
def test_a_download_that_stopped_is_not_saved_as_if_it_were_whole(tmp_path, container, place):
    whole, part = tmp_path / f"a.{container}", tmp_path / f"b.{container}"
    codec = {"mkv": "copy", "webm": "libvpx"}[container]
    command = ["ffmpeg", "-v", "error", "-i", write_file(tmp_path / "a.mp4"), "-an", "-c:v", codec, whole]
    subprocess.run(command, check=True)
    part.write_bytes(whole.read_bytes()[:-2000])
    given = str(part) if place == "disk" else io.BytesIO(part.read_bytes())
    with pytest.raises(errors.VideoUnreadable, match=f"breaks off after .* of {whole.stat().st_size} bytes"):
        encoded(InputImpl.VideoFromFile(given), tmp_path / "c")
    assert encoded(InputImpl.VideoFromFile(str(whole)), tmp_path / "c").frames == 48


@pytest.mark.parametrize("window", [(0, 0), (0.7, 0), (0.7, 1.2)], ids=["whole", "from", "from to"])
@pytest.mark.parametrize("bf", [0, 2])
def test_an_mp4_whose_download_stopped_is_not_saved_as_if_it_were_whole(tmp_path, bf, window):
    """Nor a cut that reaches into what is lost; one that ends before it is still to be had."""
    whole, part = tmp_path / "a.mp4", tmp_path / "b.mp4"
    command = ["ffmpeg", "-v", "error", "-i", write_file(tmp_path / "0.mp4", bf=bf), "-an", "-c", "copy"]
    subprocess.run([*command, "-movflags", "+faststart", whole], check=True)
    start, duration = window
    for lost in (3, whole.stat().st_size // 4):
        part.write_bytes(whole.read_bytes()[:-lost])
        with pytest.raises(errors.VideoUnreadable, match=r"breaks off after \d+ of \d+ frames"):
            encoded(InputImpl.VideoFromFile(str(part), start_time=start, duration=0 if lost == 3 else duration),
                    tmp_path / "c")
    early = InputImpl.VideoFromFile(str(part), start_time=0.2, duration=0.5)
    assert encoded(early, tmp_path / "c").frames == 12
    assert encoded(InputImpl.VideoFromFile(str(whole), start_time=start, duration=duration), tmp_path / "c").frames > 20


def test_a_recording_that_a_crash_ended_is_saved_as_far_as_it_goes(tmp_path):
    """Written as a stream, it does not say how long it was to be."""
    whole, part = tmp_path / "a.mkv", tmp_path / "b.mkv"
    command = ["ffmpeg", "-v", "error", "-i", write_file(tmp_path / "a.mp4"), "-c", "copy", "-live", "1", whole]
    subprocess.run(command, check=True)
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 12 < encoded(InputImpl.VideoFromFile(str(part)), tmp_path / "c").frames < 48


def test_a_cut_past_the_end_says_that_there_are_no_frames(tmp_path):
    video = InputImpl.VideoFromFile(str(write_file(tmp_path / "a.mp4")), start_time=50)
    with pytest.raises(errors.VideoEmpty, match="trim"):
        encoded(video, tmp_path / "b")


@pytest.mark.parametrize("way", ["encode", "copy"])
def test_a_step_that_raises_stops_the_work_at_once(tmp_path, way):
    class Interrupt(BaseException):
        pass

    seen = []

    def step(done):
        seen.append(done)
        if done == 3:
            raise Interrupt

    with pytest.raises(Interrupt):
        if way == "encode":
            encoded(from_tensor(moving(100, 96, 128)), tmp_path / "a", step=step)
        else:
            source = open_source(InputImpl.VideoFromFile(str(write_file(tmp_path / "a.mp4"))))
            copy(source, tmp_path / "b", "mp4", "aac", {}, None, step)
    assert seen == [1, 2, 3]


def test_the_sound_that_outlasts_the_picture_can_be_stopped(tmp_path):
    class Interrupt(BaseException):
        pass

    def step(done):
        if done > 100:
            raise Interrupt

    source = open_source(InputImpl.VideoFromFile(str(write_file(tmp_path / "a.mp4", frames=4))))
    play = Play(sound="hold picture")
    with pytest.raises(Interrupt):
        encode(source, tmp_path / "b", H264, H264.settings({}), {}, lambda: tensor_sound(sine(600)), step, play)


def test_reading_towards_a_far_cut_can_be_stopped(tmp_path):
    class Interrupt(BaseException):
        pass

    def poll():
        raise Interrupt

    file = write_file(tmp_path / "a.mp4")
    with pytest.raises(Interrupt):
        copyable(open_source(InputImpl.VideoFromFile(str(file), start_time=0.5), poll=poll))
    with pytest.raises(Interrupt):
        next(iter(open_source(InputImpl.VideoFromFile(str(file), start_time=0.4), poll=poll).frames()))


def test_a_replaced_sound_is_cut_where_the_picture_ends_not_the_files_own_sound(tmp_path):
    long = tmp_path / "long.mp4"
    copied(InputImpl.VideoFromFile(str(write_file(tmp_path / "a.mp4"))), long, tensor_sound(sine(6)))
    source = open_source(InputImpl.VideoFromFile(str(long)))
    assert source.seconds == pytest.approx(2, abs=0.01) and source.count == 48


def test_frames_are_made_in_inference_mode_and_a_few_at_a_time(tmp_path):
    made = []

    def frames():
        for index in range(50):
            made.append(torch.is_inference_mode_enabled())
            yield index

    for index, got in enumerate(ahead(frames())):
        assert got == index
        assert len(made) <= index + AHEAD + 1
    assert made == [True] * 50


def test_absent_options_take_their_defaults():
    found = H264.settings({"format": "mp4-h264", "crf": None, "preset": None, "bit_depth": None})
    assert (found.pixel_format, found.options) == ("yuv420p", {**H264.unchosen(), "crf": "19", "preset": "medium"})


def test_a_copy_keeps_what_an_edit_list_hides_hidden(tmp_path):
    """A cut that another program made without encoding: pictures before it are in the file, but not shown."""
    file = write_file(tmp_path / "a.mp4")
    cut = tmp_path / "cut.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "0.7", "-i", str(file), "-c", "copy", str(cut)], check=True)
    written = copied(InputImpl.VideoFromFile(str(cut)), tmp_path / "b")
    found, expected = pictures(tmp_path / "b"), pictures(cut)
    assert len(found) == len(expected) == written.frames < 48 - 12
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
