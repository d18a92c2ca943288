"""Video Join: every frame of both in its place, at the first one's size and rate, and the sound with them."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import moving, numbered, sine, write_file, write_lossless
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes.errors import OutOfRange, VideoEmpty
from xavi9videos.nodes.video.join import joined


def made(images, rate=24, audio=None):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(rate)))


def greys(count, first=0, height=8, width=12):
    """Frames of one value each: first / 255, (first + 1) / 255, ..."""
    return ((torch.arange(count) + first) / 255).view(-1, 1, 1, 1).expand(-1, height, width, 3).clone()


def values(video):
    """The value of each frame's middle, as it was given to greys()."""
    images = video.get_components().images
    return [round(float(it[it.shape[0] // 2, it.shape[1] // 2, 0]) * 255) for it in images]


def test_all_frames_of_both_in_their_order_bit_for_bit():
    images = moving(9, 96, 128), moving(5, 96, 128).flip(2)
    video = joined(made(images[0]), made(images[1]), 0)
    assert video.get_frame_count() == 14 and video.get_dimensions() == (128, 96) and video.get_frame_rate() == 24
    # As the encoder gets them: 16 bits of each.
    assert (video.get_components().images - torch.cat(images)).abs().max() <= 0.5 / 65535


def test_what_overlaps_is_shown_once():
    assert values(joined(made(greys(10)), made(greys(10, 7)), 3)) == list(range(17))


@pytest.mark.parametrize("rate, expected", [
    (48, [0, 1, 2, 3, 10, 12, 14, 16]), (12, [0, 1, 2, 3, *(it for it in range(10, 18) for _ in "ab")])])
def test_the_second_is_shown_at_the_firsts_rate(rate, expected):
    assert values(joined(made(greys(4)), made(greys(8, 10), rate), 0)) == expected


def test_an_overlap_counts_the_seconds_own_frames():
    assert values(joined(made(greys(4)), made(greys(8, 10), 48), 4)) == [0, 1, 2, 3, 14, 16]


@pytest.mark.parametrize("size", [(8, 24), (16, 24), (9, 7), (1, 1)])
def test_another_shape_lies_on_black(size):
    images = joined(made(torch.zeros(2, 16, 24, 3)), made(torch.ones(2, *size, 3)), 0).get_components().images[2:]
    assert images.shape[1:3] == (16, 24)
    scale = min(16 / size[0], 24 / size[1])
    share = size[0] * size[1] * scale**2 / (16 * 24)
    assert float(images[0].mean()) == pytest.approx(share, abs=0.15) and float(images[0, 8, 12].min()) > 0.99


def test_odd_sizes_are_kept():
    images = joined(made(greys(2, height=7, width=9)), made(greys(2, 50, 20, 30)), 0).get_components().images
    assert images.shape == (4, 7, 9, 3)


def test_pixels_that_are_not_square(tmp_path):
    path = write_lossless(tmp_path / "wide.mp4", numbered(4, 10), 24, aspect=2)
    wide = InputImpl.VideoFromFile(path)
    square = made(greys(4, 40, 96, 256))
    for video in (joined(wide, square, 0), joined(square, wide, 0)):
        assert video.get_dimensions() == (256, 96) and sorted(values(video)) == [0, 10, 20, 30, 40, 41, 42, 43]


def test_a_recording_that_stands_still_in_between_loses_nothing(tmp_path):
    still = InputImpl.VideoFromFile(write_lossless(tmp_path / "a.mp4", numbered(20), 30, [*range(10), *range(40, 50)]))
    seen = [it // 3 for it in values(joined(still, made(greys(2, 90), 30), 0))]
    assert seen == [*range(10), *[9] * 30, *range(10, 20), 30, 30]
    # Of the second, too, an overlap counts frames as they are seen.
    seen = [it // 3 for it in values(joined(made(greys(2, 90), 30), still, 38))]
    assert seen == [30, 30, 9, 9, *range(10, 20)]


def test_a_file_whose_times_begin_later(tmp_path):
    """A flash and a tone at the same moment stay together."""
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream, track = container.add_stream("ffv1", rate=24), container.add_stream("pcm_s16le", rate=48_000)
        stream.height, stream.width, stream.pix_fmt = 8, 12, "bgr0"
        for it in range(48):
            frame = av.VideoFrame.from_ndarray(np.full((8, 12, 3), 255 * (it == 24), np.uint8), format="rgb24")
            frame.pts, frame.time_base = it + 120, Fraction(1, 24)
            container.mux(stream.encode(frame))
        samples = np.zeros((1, 2 * 48_000 * 2), np.int16)
        samples[0, 2 * 48_000 : 2 * 50_000] = 20_000
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 5 * 48_000, Fraction(1, 48_000)
        container.mux(track.encode(frame))
        for it in (stream, track):
            container.mux(it.encode(None))
    late = InputImpl.VideoFromFile(str(path))
    for video, at in ((joined(made(greys(24, height=8, width=12)), late, 0), 2), (joined(late, late, 12), 1)):
        flashes = [index for index, it in enumerate(values(video)) if it == 255]
        heard = (video.audio()["waveform"][0, 0] > 0.3).nonzero()[:, 0]
        assert flashes[0] == at * 24 and int(heard[0]) == pytest.approx(at * 48_000, abs=50)
        assert video.get_frame_count() == (72 if at == 2 else 84)


def test_files_and_their_trim(tmp_path):
    file = InputImpl.VideoFromFile(write_lossless(tmp_path / "a.mkv", numbered(12, 10), 25))
    cut = file.as_trimmed(start_time=0.2, duration=0.2)
    assert values(joined(cut, file, 10)) == [50, 60, 70, 80, 90, 100, 110]
    # Asked again it begins again.
    video = joined(file, cut, 0)
    assert values(video) == values(video) == [*range(0, 120, 10), 50, 60, 70, 80, 90]


def test_a_video_of_a_video(tmp_path):
    first = joined(made(greys(3)), made(greys(3, 3)), 0)
    assert values(joined(first, joined(made(greys(3, 6)), made(greys(3, 9)), 0), 0)) == list(range(12))


def tone(audio, start, end):
    """The strongest frequency between two seconds, and how loud it is there."""
    rate = audio["sample_rate"]
    part = audio["waveform"][0, 0, round(start * rate) : round(end * rate)].numpy()
    found = np.abs(np.fft.rfft(part))
    return found.argmax() * rate / len(part), float(np.abs(part).max())


def test_the_sound_of_both_without_what_overlaps():
    first, second = made(greys(24), 24, sine(1, frequency=440)), made(greys(36), 24, sine(1.5, 32_000, 1, 1000))
    audio = joined(first, second, 12).audio()
    assert audio["sample_rate"] == 48_000 and audio["waveform"].shape == (1, 2, 96_000)
    assert tone(audio, 0.1, 0.9)[0] == pytest.approx(440, abs=2)
    assert tone(audio, 1.1, 1.9)[0] == pytest.approx(1000, abs=2)
    rest = sine(1.5, frequency=1000)["waveform"][0, 0, 24_000:]
    assert (audio["waveform"][0, 0, 48_300:95_900] - rest[300:-100]).abs().max() < 0.02
    # Two tones that have nothing to do with each other meet without a step.
    assert audio["waveform"][0, 0, 47_900:48_100].diff().abs().max() < 0.07


@pytest.mark.parametrize("with_sound", ["first", "second", "neither"])
def test_where_one_has_no_sound_it_is_silent(with_sound):
    audios = [sine(1, frequency=440) if with_sound == name else None for name in ("first", "second")]
    audio = joined(*(made(greys(24), 24, it) for it in audios), 0).audio()
    if with_sound == "neither":
        assert audio is None
        return
    heard = [tone(audio, 0.1, 0.9)[1] > 0.4, tone(audio, 1.1, 1.9)[1] > 0.4]
    assert heard == [with_sound == "first", with_sound == "second"] and audio["waveform"].shape[-1] == 96_000


def test_the_sound_of_a_file(tmp_path):
    file = InputImpl.VideoFromFile(str(write_file(tmp_path / "a.mp4")))
    video = joined(file, made(greys(24), 24, sine(1, frequency=1000)), 0)
    audio = video.audio()
    assert audio["waveform"].shape == (1, 2, 3 * 48_000)
    assert tone(audio, 0.2, 1.8)[0] == pytest.approx(440, abs=2)
    assert tone(audio, 2.1, 2.9)[0] == pytest.approx(1000, abs=2)
    expected = sine(2)["waveform"][0, 0]
    assert (audio["waveform"][0, 0, 2000:90_000] - expected[2000:90_000]).abs().max() < 0.1


def test_nothing_left_of_the_second_is_refused():
    with pytest.raises(OutOfRange, match="overlap is 4; 0 to 3"):
        joined(made(greys(4)), made(greys(4)), 4)
    with pytest.raises(VideoEmpty):
        joined(made(torch.zeros(0, 8, 8, 3)), made(greys(4)), 0)
