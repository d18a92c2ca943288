"""Pictures again and again, and sound that is longer or shorter: every picture, its time, and the words about it."""

import subprocess
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import moving, packets, pictures, probe, sine, write_file
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes.host.paths import Target
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.play import Play
from xavi9videos.nodes.video.source import TensorSource, open_source
from xavi9videos.nodes.video.write import write

FORWARD, BACK = [0, 1, 2, 3], [2, 1]
ORDERS = {
    (False, 1): FORWARD * 2,
    (True, 0): FORWARD + BACK,
    (True, 2): (FORWARD + BACK) * 3,
}


@pytest.fixture
def saved(tmp_path):
    def save(video, format="mkv-ffv1", audio=None, play=Play(), **options):
        target = Target(tmp_path, "v", 1, "")
        return write(open_source(video), target, {"format": format, **options}, audio, {}, play)

    return save


def tensor(count=4, audio=None, rate=Fraction(24)):
    images = moving(count, 64, 96)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate, audio=audio))


def times(path):
    with av.open(str(path)) as container:
        return [it.pts * it.time_base for it in container.decode(video=0)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_pictures_come_again_in_order_bit_for_bit(saved, order):
    path, written = saved(tensor(), play=Play(*order))
    plain, found = pictures(saved(tensor())[0]), pictures(path)
    assert written.frames == len(found) == len(ORDERS[order])
    assert all(np.array_equal(it, plain[index]) for it, index in zip(found, ORDERS[order], strict=True))
    assert written.seconds == pytest.approx(len(found) / 24)


@pytest.mark.parametrize("key", sorted(all_formats()))
def test_every_format_repeats(saved, key):
    path, written = saved(tensor(8), key, play=Play(pingpong=True, loop_count=1), bit_depth=None)
    assert written.frames == 2 * (8 + 6)
    if path.is_dir():
        assert len(list(path.iterdir())) == 28
    elif path.suffix != ".webp":
        assert int(probe(path)["video"]["nb_read_frames"]) == 28


def test_one_picture_has_no_way_back(saved):
    _, written = saved(tensor(1), play=Play(pingpong=True))
    assert written.frames == 1


def test_a_picture_lasts_as_long_on_the_way_back(saved, tmp_path):
    """Of a file with a changing rate: shown for 1, 2, 3, 4 units, then the same backwards."""
    file, uneven = write_file(tmp_path / "a.mp4", frames=4), tmp_path / "uneven.mp4"
    command = ["ffmpeg", "-v", "error", "-i", file, "-vf", "setpts='N*(N+1)/2*512'", "-fps_mode", "passthrough", "-an"]
    subprocess.run([*command, uneven], check=True)
    begins = times(uneven)
    path, _ = saved(InputImpl.VideoFromFile(str(uneven)), "mp4-h264", play=Play(pingpong=True))
    found = times(path)
    assert found[:4] == begins
    lasts = [end - begin for begin, end in zip(found, found[1:], strict=False)]
    assert lasts[4] == lasts[2] and lasts[:3] == [end - begin for begin, end in zip(begins, begins[1:], strict=False)]


def test_memory_does_not_grow_with_the_pictures_and_nothing_is_left(saved, tmp_path):
    def peak(count):
        blank = torch.zeros(270, 480, 3)
        source = TensorSource(lambda: (blank for _ in range(count)), (count, 270, 480), Fraction(24), lambda: None)
        tracemalloc.start()
        write(source, Target(tmp_path, "v", 1, ""), {"format": "mp4-h264", "preset": "ultrafast"}, None, {}, Play(True))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(5)
    assert peak(200) < peak(20) + 500_000
    assert all(it.suffix == ".mp4" for it in tmp_path.iterdir())


def heard(path) -> float:
    """Seconds of sound, without the silence that an encoder pads with."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return 0
        samples = np.concatenate([it.to_ndarray() for it in container.decode(audio=0)], -1)
        stream = container.streams.audio[0].codec_context
    if not stream.format.is_planar:
        samples = samples.reshape(-1, stream.layout.nb_channels).T / 32768
    loud, rate = np.abs(samples).max(0) > 0.02, stream.sample_rate
    return (len(loud) - loud[::-1].argmax()) / rate if loud.any() else 0


@pytest.mark.parametrize(
    ("sound", "seconds", "frames", "lasts", "words"),
    [
        ("cut sound", 2, 24, 1, "the sound was cut at 1.00 s"),
        ("cut sound", 0.5, 24, 0.5, "the sound ends at 0.50 s, before the picture"),
        ("cut sound", 1.05, 24, 1, None),
        ("repeat sound", 0.3, 24, 1, None),
        ("repeat sound", 2, 24, 1, None),
        ("hold picture", 1.5, 36, 1.5, "the last picture is held from 1.00 s until the sound ends"),
        ("hold picture", 0.5, 24, 0.5, "before the picture"),
        ("cut picture", 0.5, 12, 0.5, "the picture was cut at 0.5"),
        ("cut picture", 1.5, 24, 1, "the sound was cut at 1.00 s"),
        ("no sound", 1, 24, 0, None),
    ],
)
@pytest.mark.parametrize("own", [True, False], ids=["own", "given"])
@pytest.mark.parametrize("format", ["mkv-ffv1", "mp4-h264", "auto"])
def test_sound_and_picture_are_made_one_length(saved, sound, seconds, frames, lasts, words, own, format):
    audio = sine(seconds)
    video = tensor(24, audio if own else sine(0.7))
    if format == "auto":
        # A file whose picture is copied, with the sound under test inside or given.
        video = InputImpl.VideoFromFile(str(file_with(saved, audio if own else sine(0.7))))
    path, written = saved(video, format, None if own else audio, Play(sound=sound))
    assert written.frames == int(probe(path)["video"]["nb_read_frames"])
    # A file's AAC ends with its packet, up to 21 ms later.
    assert written.frames - frames in ((0, 1) if format == "auto" and own else (0,))
    if format == "auto" and own and sound == "cut sound":
        # The file's own sound is copied with it, whole.
        assert written.encoder == "copy" and heard(path) == pytest.approx(seconds, abs=0.03) and not written.notes
        return
    assert heard(path) == pytest.approx(lasts, abs=0.05)
    if words:
        assert any(words in it for it in written.notes)
    else:
        assert written.notes == []
    assert written.seconds == pytest.approx(written.frames / 24)
    if format == "auto":
        assert (written.encoder == "copy") == (sound not in ("hold picture", "cut picture"))


def file_with(saved, audio):
    """An MP4 of 24 pictures whose sound may be longer."""
    path, _ = saved(tensor(24), "mp4-h264")
    long = path.with_name("long.mp4")
    with av.open(str(path)) as old, av.open(str(long), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        sound = new.add_stream("aac", rate=48_000, layout="stereo")
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                new.mux(packet)
        samples = np.ascontiguousarray(audio["waveform"][0].numpy())
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        new.mux([*sound.encode(frame), *sound.encode(None)])
    path.unlink()
    return long


def test_a_repeated_sound_has_no_gap(saved):
    audio = sine(0.25)
    path, _ = saved(tensor(48), "mov-prores", audio, Play(sound="repeat sound"))
    with av.open(str(path)) as container:
        found = np.concatenate([it.to_ndarray().reshape(-1, 2) for it in container.decode(audio=0)])
    one = audio["waveform"][0].T.numpy()
    expected = np.concatenate([one] * 8)
    assert found.shape == expected.shape
    assert np.abs(found / 2**31 - expected).max() < 1e-3


def test_a_copied_picture_is_the_same_beside_another_sound(saved, tmp_path):
    file = write_file(tmp_path / "a.mp4")
    path, written = saved(InputImpl.VideoFromFile(str(file)), "auto", play=Play(sound="no sound"))
    assert written.encoder == "copy" and packets(path) == packets(file) and probe(path)["audio"] is None


def test_the_tag_that_apples_players_want_stays_with_a_copy(saved):
    path, _ = saved(tensor(4), "mp4-h265")
    again, written = saved(InputImpl.VideoFromFile(str(path)), "auto")
    assert written.encoder == "copy" and probe(again)["video"]["codec_tag_string"] == "hvc1"


def clicks(path) -> list[float]:
    """Seconds at which it is loud, each once."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = np.concatenate([it.to_ndarray() for it in container.decode(stream)], -1)
    at = np.flatnonzero(np.abs(samples).max(0) > 0.4) / stream.rate
    return [float(it) for index, it in enumerate(at) if index == 0 or it - at[index - 1] > 0.1]


@pytest.mark.parametrize("pingpong", [False, True])
def test_a_repeated_sound_begins_with_each_pass_of_the_pictures(saved, tmp_path, pingpong):
    """An AAC track is longer than its picture by what pads its last packet."""
    click = "aevalsrc='if(between(t,0.5,0.51),0.9,0)':s=48000:d=1"
    file = tmp_path / "click.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=24:d=1"]
    subprocess.run(["ffmpeg", "-v", "error", *picture, "-f", "lavfi", "-i", click, "-c:a", "aac", file], check=True)
    play = Play(pingpong, 20, "repeat sound")
    path, written = saved(InputImpl.VideoFromFile(str(file)), "mp4-h264", play=play)
    first, found = clicks(file)[0], clicks(path)
    length = (24 + 22 * pingpong) / 24
    assert written.seconds == pytest.approx(21 * length)
    # There and back lasts longer than the sound, which is then heard a second time, for as long as that lasts.
    assert [it for it in found if (it % length) < 0.8] == pytest.approx(
        [it * length + first for it in range(21)], abs=0.005
    )


def test_a_sound_without_a_sample_is_none(saved, tmp_path):
    """A trim behind the end of a short sound."""
    file = file_with(saved, sine(0.3))
    cut = InputImpl.VideoFromFile(str(file), start_time=0.6)
    path, written = saved(cut, "mp4-h264", play=Play(sound="cut picture"))
    assert written.frames == 24 - 15 and probe(path)["audio"] is None


@pytest.mark.parametrize("key", ["mov-prores", "mkv-ffv1", "mp4-h264"])
@pytest.mark.parametrize("frames", [1, 5, 12])
def test_a_sound_longer_than_a_pass_begins_with_each(saved, key, frames):
    """Its first second is read at once, while the pictures of a pass are still being counted."""
    wave = torch.zeros(1, 1, 96_000)
    wave[..., :240] = 0.9
    audio = {"waveform": wave, "sample_rate": 48_000}
    path, written = saved(tensor(frames), key, audio, Play(False, 9, "repeat sound"))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [it.to_ndarray().reshape(1, -1)[0].astype(float) for it in container.decode(stream)]
    samples = np.concatenate(parts)
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 2)
    begins = [int(it) for index, it in enumerate(loud) if index == 0 or it - loud[index - 1] > 400]
    assert written.frames == 10 * frames
    expected = [it * frames * 2000 for it in range(10)]
    assert len(begins) == 10 and np.abs(np.array(begins) - begins[0] - expected).max() <= (
        64 if key == "mp4-h264" else 0
    )
