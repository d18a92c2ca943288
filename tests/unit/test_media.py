"""Conditioning media: what is sent has just the size, rate and length that a family takes."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import moving, packets, pictures, probe, write_file
from comfy_api.latest import InputImpl, Types
from PIL import Image
from xavi9videos.nodes import errors
from xavi9videos.nodes.cosmos.media import at_rate, check_media, fit_clip, fit_image


def fitted(tmp_path, image, size=(160, 96)):
    assert fit_image(image, size, tmp_path / "sent").frames == 1
    with Image.open(tmp_path / "sent") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize("height, width", [(1, 1), (96, 160), (97, 33), (33, 97), (1, 500), (2000, 2000)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_of_any_size_becomes_a_png_of_the_videos_size(tmp_path, height, width, channels):
    fitted(tmp_path, torch.full((1, height, width, channels), 0.5))


def test_an_image_of_8000_by_8000_is_fitted(tmp_path):
    fitted(tmp_path, torch.zeros(1, 1, 1, 3).expand(1, 8000, 8000, 3), (1280, 704))


@pytest.mark.parametrize("wide", [True, False])
def test_an_image_is_cropped_evenly_and_not_squeezed(tmp_path, wide):
    # A disc in the middle, red edges at the two sides that go.
    across = torch.arange(96) - 47.5
    disc = (across[:, None] ** 2 + across**2 < 40**2).float()
    image = torch.zeros(96, 288, 3)
    image[..., 0] = 1
    image[:, 96:192] = disc[..., None]
    sent = fitted(tmp_path, (image if wide else image.transpose(0, 1))[None], (96, 96))
    reference = (disc.numpy() * 255)[..., None]
    assert np.abs(sent - reference).mean() < 3


def test_what_is_transparent_lies_on_black_and_does_not_bleed(tmp_path):
    image = torch.zeros(1, 96, 160, 4)
    image[..., 0] = 1
    image[:, :, :80, 3] = 1
    image[:, :, 80:, 1:3] = 1  # white, but not to be seen
    sent = fitted(tmp_path, image)
    assert (sent[:, :78] == [255, 0, 0]).all() and (sent[:, 82:] == 0).all()


@pytest.mark.parametrize(
    "image, video, kind, words",
    [
        (None, None, errors.OneOfImageAndVideo, "given neither"),
        (torch.zeros(1, 8, 8, 3), object(), errors.OneOfImageAndVideo, "given both"),
        (torch.zeros(4, 8, 8, 3), None, errors.ImageNotUsable, "a batch of 4.*Get Image from Batch"),
        (torch.zeros(0, 8, 8, 3), None, errors.ImageNotUsable, "no pixels"),
        (torch.full((1, 8, 8, 3), float("nan")), None, errors.ImageNotUsable, "NaN"),
    ],
)
def test_what_is_not_one_picture_or_one_clip_is_refused(image, video, kind, words):
    with pytest.raises(kind, match=words):
        check_media(image, video)


def frames_at(times, rate=1000):
    for value, time in enumerate(times):
        frame = av.VideoFrame(16, 16, "gray")
        frame.pts, frame.time_base, frame.opaque = round(time * rate), Fraction(1, rate), value
        yield frame


@pytest.mark.parametrize(
    "times, rate, fps, shown",
    [
        ([0, 1 / 24, 2 / 24, 3 / 24], 24, 24, [0, 1, 2, 3]),  # of milliseconds, rounded up and down
        ([it / 48 for it in range(8)], 48, 24, [0, 2, 4, 6]),
        ([0, 1 / 12], 12, 24, [0, 0, 1, 1]),
        ([0, 0.25, 0.3], 24, 12, [0, 0, 0, 1, 2]),  # variable
        ([0], 120, 12, [0]),  # one picture stays one
        ([], 24, 24, []),
    ],
)
def test_frames_are_those_seen_at_the_new_rate(times, rate, fps, shown):
    made = [(it.opaque, it.pts, it.time_base) for it in at_rate(frames_at(times), Fraction(rate), fps, hold=False)]
    assert made == [(value, count, Fraction(1, fps)) for count, value in enumerate(shown)]


def clip(tmp_path, video, size=(160, 96), fps=24, frames=25, hold=False):
    media = fit_clip(video, size, fps, frames, hold, tmp_path / "sent", lambda: None)
    found = probe(tmp_path / "sent")
    stream = found["video"]
    assert (stream["codec_name"], stream["pix_fmt"], found["audio"]) == ("h264", "yuv420p", None)
    assert ((stream["width"], stream["height"]), stream["avg_frame_rate"]) == (size, f"{fps}/1")
    assert int(stream["nb_read_frames"]) == media.frames
    return pictures(tmp_path / "sent")


def file(tmp_path, frames=48, **options):
    return InputImpl.VideoFromFile(str(write_file(tmp_path / "clip.mp4", frames)), **options)


@pytest.mark.parametrize("frames, hold, made", [(48, True, 25), (48, False, 25), (10, True, 25), (10, False, 10)])
def test_a_clip_is_cut_and_held_only_where_asked(tmp_path, frames, hold, made):
    sent = clip(tmp_path, file(tmp_path, frames), hold=hold)
    assert len(sent) == made
    if made > frames:
        assert np.abs(sent[frames - 1].astype(int) - sent[-1]).mean() < 2


def test_a_clip_of_one_frame_is_one_or_held(tmp_path):
    assert len(clip(tmp_path, file(tmp_path, 1))) == 1
    assert len(clip(tmp_path, file(tmp_path, 1), hold=True)) == 25


def test_a_clip_is_fitted_on_black_and_shows_its_own_pictures(tmp_path):
    sent = clip(tmp_path, file(tmp_path), (160, 96), frames=5)
    source = [(it.numpy() * 255) for it in moving(48, 96, 128)[:5]]
    for ours, theirs in zip(sent, source, strict=True):
        assert ours[:, :14].max() < 20 and ours[:, -14:].max() < 20
        assert np.abs(ours[:, 16:-16].astype(int) - theirs).mean() < 6


def test_the_trim_of_a_clip_counts(tmp_path):
    whole = pictures(write_file(tmp_path / "clip.mp4", 48))
    sent = clip(tmp_path, file(tmp_path, start_time=1.0, duration=0.5), (128, 96))
    assert len(sent) == 12
    assert np.abs(sent[0].astype(int) - whole[24]).mean() < 4


def test_a_clip_of_tensors_is_fitted_too(tmp_path):
    parts = Types.VideoComponents(images=moving(30, 50, 70), frame_rate=Fraction(30), audio=None)
    assert len(clip(tmp_path, InputImpl.VideoFromComponents(parts))) == 24


def test_nothing_inside_the_trim_is_an_error(tmp_path):
    with pytest.raises(errors.VideoEmpty, match="trim"):
        clip(tmp_path, file(tmp_path, start_time=9.0, duration=1.0))


def test_poll_stops_the_work(tmp_path):
    class Stop(BaseException):
        """As ComfyUI's interrupt and asyncio's cancellation are."""

    def poll():
        raise Stop

    with pytest.raises(Stop):
        fit_clip(file(tmp_path), (160, 96), 24, 25, True, tmp_path / "sent", poll)


def test_a_clip_with_a_broken_frame_is_refused_by_name(tmp_path):
    path = write_file(tmp_path / "broken.mp4", 48)
    data, tenth = path.read_bytes(), packets(path)[10]
    path.write_bytes(data.replace(tenth, bytes(len(tenth))))
    with pytest.raises(errors.VideoUnreadable, match="broken.mp4"):
        clip(tmp_path, InputImpl.VideoFromFile(str(path)), frames=48)


def test_of_a_long_clip_only_what_is_needed_is_read(tmp_path):
    path = write_file(tmp_path / "long.mp4", 45 * 24)
    polls = []
    video = InputImpl.VideoFromFile(str(path))
    media = fit_clip(video, (160, 96), 24, 25, True, tmp_path / "sent", lambda: polls.append(1))
    # A poll for each packet read and each picture made; the decoder reads some ahead.
    assert media.frames == 25 and len(polls) < 200


def test_a_clip_of_variable_rate_keeps_its_times(tmp_path):
    with av.open(str(tmp_path / "vfr.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for value, time in enumerate([0, 1 / 24, 0.5, 1.0]):
            frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), 60 * value, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * 24), Fraction(1, 24)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    sent = clip(tmp_path, InputImpl.VideoFromFile(str(tmp_path / "vfr.mp4")), frames=25)
    shown = [round(it.mean() / 60) for it in sent]
    assert shown == [0, *[1] * 11, *[2] * 12, 3]
