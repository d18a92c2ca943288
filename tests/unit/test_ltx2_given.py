"""What LTX-2 starts from: keyframes in their places, the end of a clip, and a sound that is kept or changed."""

from fractions import Fraction

import pytest
import torch
from clips import numbered, write_file, write_lossless
from comfy_api.latest import InputImpl, Types
from tiny.ltx2 import write_checkpoint
from xavi9videos.nodes.errors import (
    AudioNotUsable,
    ClipTooShort,
    KeyframesClash,
    NotOffered,
    OutOfRange,
    OverlapTooLong,
    VideoUnreadable,
)
from xavi9videos.nodes.ltx2 import decode, sampling, sound, upscale
from xavi9videos.nodes.ltx2.checkpoint import LTX2
from xavi9videos.nodes.ltx2.keyframes import Ending, LTX2Extend
from xavi9videos.nodes.ltx2.shot import Keyframe, Shot
from xavi9videos.nodes.ltx2.text_encoder import Conditioning

FRAMES, FPS = 17, 25
PICTURE = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(1))


def shot(*keyframes, frames=FRAMES, **more):
    return Shot(128, 96, frames, FPS, keyframes or more.pop("keyframes", ()), **more)


def test_frames_are_counted_from_both_ends_and_strength_0_is_none():
    given = Keyframe(PICTURE, -1), Keyframe(PICTURE, -15), Keyframe(PICTURE, 5, 0.0), Keyframe(PICTURE, 9, 0.3)
    assert [(it.frame, it.strength) for it in shot(*given).shown] == [(16, 1), (2, 1), (9, 0.3)]
    assert len(shot(Keyframe(PICTURE, 3), Keyframe(PICTURE, 3, 0.0)).shown) == 1


@pytest.mark.parametrize("frame", [17, -18, 400])
def test_a_frame_that_is_not_there_is_refused(frame):
    with pytest.raises(OutOfRange, match=rf"frame is {frame}; -17 to 16 are allowed"):
        shot(Keyframe(PICTURE, frame)).shown


@pytest.mark.parametrize("one, other, clash", [
    (Keyframe(PICTURE, 16), Keyframe(PICTURE, -1), 16), (Keyframe(PICTURE), Keyframe(PICTURE), 0),
    (Keyframe(PICTURE.expand(9, -1, -1, -1)), Keyframe(PICTURE, 8), 8)])
def test_two_pictures_at_one_frame_are_refused(one, other, clash):
    with pytest.raises(KeyframesClash, match=f"at frame {clash} of the video.*take one away"):
        shot(one, other).shown


def test_a_clip_that_is_as_long_as_the_video_or_longer():
    clip = PICTURE.expand(25, -1, -1, -1)
    assert shot(Keyframe(clip), frames=26).shown[0].frame == 0
    with pytest.raises(OverlapTooLong, match="25 frames, and the new video has 25.*Set overlap to 17 or less"):
        shot(Keyframe(clip), frames=25).shown
    assert shot(Keyframe(PICTURE), frames=1).shown


def clip(path, count, rate=FPS):
    return InputImpl.VideoFromFile(write_lossless(path, numbered(count), rate))


def shown(ending, fps=FPS):
    return (ending.at(fps).pictures[:, 40, 40, 0] // 3).tolist()


def test_the_end_of_a_file_is_its_last_frames(tmp_path):
    video = clip(tmp_path / "a.mkv", 40)
    assert shown(Ending(video, 9, 1.0)) == list(range(31, 40))
    assert shown(Ending(video, 33, 1.0)) == list(range(7, 40))
    # Twice as many a second, and half: each is seen as long as before.
    assert shown(Ending(video, 9, 1.0), 50) == [35, 36, 36, 37, 37, 38, 38, 39, 39]
    assert shown(Ending(clip(tmp_path / "b.mkv", 40, 50), 9, 1.0), 25)[-3:] == [35, 37, 39]


def test_the_end_of_a_trimmed_file_is_the_trims(tmp_path):
    video = clip(tmp_path / "a.mkv", 40).as_trimmed(start_time=0.4, duration=0.8)
    assert shown(Ending(video, 9, 1.0)) == list(range(21, 30))


def test_the_end_of_a_made_video_is_its_last_frames():
    images = (torch.arange(12) * 3 / 255).view(-1, 1, 1, 1).expand(-1, 96, 128, 3)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(FPS)))
    assert shown(Ending(video, 9, 1.0)) == list(range(3, 12))


def test_a_clip_with_too_few_frames_is_refused(tmp_path):
    with pytest.raises(ClipTooShort, match="has 12 frames at .* overlap is 17. Set overlap to 9,"):
        Ending(clip(tmp_path / "a.mkv", 12), 17, 1.0).at(FPS)


def test_what_lies_before_the_end_is_not_decoded(tmp_path, monkeypatch):
    path = write_file(tmp_path / "long.mp4", frames=480)
    seen = []
    monkeypatch.setattr("xavi9videos.nodes.ltx2.keyframes.shaped",
                        lambda frames, *more: (seen.append(it) or it.reformat(format="rgb24") for it in frames))
    Ending(InputImpl.VideoFromFile(str(path)), 9, 1.0).at(24)
    assert 9 <= len(seen) <= 12


def test_an_overlap_is_8k_1():
    for given, nearest in ((12, 9), (15, 17), (24, 25), (2, 1)):
        with pytest.raises(NotOffered, match=f"no overlap {given}; it has 1, 9, 17.*Set overlap to {nearest},"):
            LTX2Extend.execute(None, given, 1.0)


def test_the_end_of_a_recording_that_stands_still_in_between(tmp_path):
    """30 pictures at 30 a second, 8 seconds of the last, 30 more; and one that ends with a picture of 2 seconds."""
    times = [*range(30), *range(270, 300)]
    video = InputImpl.VideoFromFile(write_lossless(tmp_path / "a.mp4", numbered(60), 30, times))
    assert shown(Ending(video, 9, 1.0), 30) == list(range(51, 60))
    still = InputImpl.VideoFromFile(write_lossless(tmp_path / "b.mp4", numbered(31), 30, [*range(30), 90]))
    assert shown(Ending(still, 9, 1.0), 30) == [29] * 8 + [30]


@pytest.mark.parametrize("content", [b"no video at all", None])
def test_a_file_that_is_no_video_is_refused_in_our_words(tmp_path, content):
    path = tmp_path / "a.mp4"
    if content:
        path.write_bytes(content)
    with pytest.raises(VideoUnreadable, match=r"a\.mp4"):
        Ending(InputImpl.VideoFromFile(str(path)), 9, 1.0).at(FPS)


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def model(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("given") / f"ltx-{request.param}-distilled-fp8.safetensors"
    write_checkpoint(path, version=request.param)
    return LTX2(str(path))


@pytest.fixture(scope="module")
def conditioning(model):
    return Conditioning(torch.randn(1, 9, model.text_width), torch.randn(1, 5, model.text_width))


def audio(seconds=1.0, rate=16_000, channels=2):
    time = torch.arange(round(seconds * rate)) / rate
    wave = (2 * torch.pi * (300 * time + 200 * time**2)).sin() * 0.4
    return {"waveform": wave.expand(1, channels, -1).clone(), "sample_rate": rate}


def made(model, conditioning, plan=None, **more):
    with torch.inference_mode():
        plan = plan or sampling.schedule("distilled", 0, 0)
        return sampling.denoise(model, conditioning, shot(**more), plan, 7, lambda *_: None)


def normalized(model, latents):
    mean, std = sampling.statistics(model.audio_vae.module, latents)
    return ((latents.transpose(1, 2).flatten(2, 3) - mean) / std).unflatten(2, (8, 16)).transpose(1, 2)


def test_a_sound_of_strength_1_stays_and_the_picture_follows_it(model, conditioning):
    plain, given = made(model, conditioning), made(model, conditioning, audio=audio())
    with torch.inference_mode():
        expected = normalized(model, sound.encoded(model, shot(audio=audio())))
    assert torch.allclose(given[1], expected, atol=1e-6)
    assert (given[0] - plain[0]).norm() / plain[0].norm() > 0.02
    other = made(model, conditioning, audio=audio(rate=8_000))
    assert not torch.equal(other[0], given[0])


def test_a_sound_of_strength_0_is_none(model, conditioning):
    one, other = made(model, conditioning), made(model, conditioning, audio=audio(), audio_strength=0.0)
    assert all(map(torch.equal, one, other))


def test_less_strength_keeps_less_of_a_sound(model, conditioning):
    with torch.inference_mode():
        clean = normalized(model, sound.encoded(model, shot(audio=audio())))
    far = [float((made(model, conditioning, audio=audio(), audio_strength=it)[1] - clean).norm() / clean.norm())
           for it in (1.0, 0.95, 0.7, 0.3)]
    assert far[0] < 1e-5 and far == sorted(far) and far[1] > 0.01


@pytest.mark.parametrize("keyframe", [Keyframe(PICTURE), Keyframe(PICTURE, -1), Keyframe(PICTURE, 0, 0.5)])
def test_a_picture_of_one_frame(model, conditioning, keyframe):
    steps = []
    one = Shot(128, 96, 1, FPS, (keyframe,))
    with torch.inference_mode():
        plan = sampling.schedule("distilled", 0, 0)
        video, _ = sampling.denoise(model, conditioning, one, plan, 7, lambda index, clean: steps.append(clean))
    assert video.shape == (1, 128, 1, 3, 4) and len(steps) == 8


def test_a_sound_with_guidance_and_an_image(model, conditioning):
    plan = sampling.schedule("dev", 2, 4.0)
    video, held = made(model, conditioning, plan, audio=audio(), keyframes=(Keyframe(PICTURE),))
    with torch.inference_mode():
        expected = normalized(model, sound.encoded(model, shot(audio=audio())))
    assert torch.allclose(held, expected, atol=1e-6) and torch.isfinite(video).all()


@pytest.mark.parametrize("seconds", [0.001, 0.3, 0.68, 60])
@pytest.mark.parametrize("channels, rate", [(1, 8_000), (2, 16_000), (2, 48_000), (6, 44_100)])
def test_a_sound_of_any_length_has_the_pictures(model, seconds, channels, rate):
    with torch.inference_mode():
        assert sound.encoded(model, shot(audio=audio(seconds, rate, channels))).shape == (1, 8, 17, 16)


def test_what_comes_after_the_picture_changes_nothing(model):
    long, cut = audio(5), audio(5)
    cut["waveform"] = cut["waveform"][..., : round(FRAMES / FPS * 16_000) + 1024]
    with torch.inference_mode():
        assert torch.equal(*(sound.encoded(model, shot(audio=it)) for it in (long, cut)))


def test_a_kept_sound_is_given_back_as_it_came(model, conditioning):
    given = audio(0.5, 44_100, 1)
    found = decode.sound(model, torch.zeros(1, 8, 17, 16), shot(audio=given))
    assert found["sample_rate"] == 44_100 and found["waveform"].shape == (1, 1, round(FRAMES / FPS * 44_100))
    assert torch.equal(found["waveform"][..., :22_050], given["waveform"])
    assert not found["waveform"][..., 22_050:].any()
    with torch.inference_mode():
        changed = decode.sound(model, torch.zeros(1, 8, 17, 16), shot(audio=given, audio_strength=0.5))
    assert changed["sample_rate"] in (24_000, 48_000)


def test_the_second_stage_keeps_the_sound(model, conditioning, tmp_path):
    from tiny.ltx2 import write_upscaler

    path = tmp_path / "upscaler.safetensors"
    write_upscaler(path, version=model.version)
    first = shot(audio=audio(), keyframes=(Keyframe(PICTURE, -1),))
    with torch.inference_mode():
        latents = sampling.denoise(model, conditioning, first, sampling.schedule("distilled", 0, 0), 7, lambda *_: None)
        _, kept, larger = upscale.upscale(model, conditioning, first, latents, str(path), 8, lambda *_: None)
    assert torch.allclose(kept, latents[1], atol=1e-5)
    assert larger.audio is first.audio and larger.shown[0].frame == 16


@pytest.mark.parametrize("wrong, words", [
    ({"waveform": torch.zeros(2, 1, 100), "sample_rate": 16_000}, r"\(2, 1, 100\)"),
    ({"waveform": torch.zeros(1, 1, 0), "sample_rate": 16_000}, r"\(1, 1, 0\)"),
    ({"waveform": torch.zeros(1, 9, 100), "sample_rate": 16_000}, "9 channels"),
    ({"waveform": torch.zeros(1, 1, 100), "sample_rate": 100}, "sample rate is 100 Hz"),
    ({"waveform": torch.full((1, 1, 100), float("nan")), "sample_rate": 16_000}, "NaN"),
    ("a.wav", "no AUDIO"), ({}, "no AUDIO")])
def test_what_is_no_sound_is_refused(wrong, words):
    with pytest.raises(AudioNotUsable, match=words):
        sound.check_heard(wrong)
