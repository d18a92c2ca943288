"""What the stand-in for NVIDIA's NIM does with an image or a clip, and with the families and models that take them."""

import base64
import io

import av
import httpx
import numpy as np
import pytest
from nim.picture import moving_crop, video
from nim.rules import Refusal, check
from PIL import Image

PARAMS = {"height": 704, "width": 960, "frames_count": 25, "frames_per_sec": 24}
PREDICT1 = {"prompt": "a red kite", "seed": 7, "video_params": PARAMS}
PREDICT2_5 = {"prompt": "a red kite", "resolution": "256", "num_output_frames": 25, "seed": 7}
COSMOS3 = {"model_mode": "text2video", "prompt": "a red kite", "resolution": "256", "num_frames": 25, "seed": 7}
GONE = ...
CLIENT = httpx.Client(timeout=20)


@pytest.fixture(autouse=True)
def video2world(nim):
    nim.mode = "video2world"


def infer(nim, body):
    return CLIENT.post(f"{nim.url}/v1/infer", json=body)


def changed(body, change):
    return {name: value for name, value in (body | change).items() if value is not GONE}


def text(data):
    return base64.b64encode(data).decode()


def url(kind, data):
    return f"data:{kind}/{'png' if kind == 'image' else 'mp4'};base64,{text(data)}"


def conditioned(family, kind, data):
    """A request of the family that starts from `data`, an "image" or a "video"."""
    return {
        "predict1": PREDICT1 | {kind: text(data)},
        "predict2_5": PREDICT2_5 | {kind: url(kind, data)},
        "cosmos3": COSMOS3 | {"model_mode": f"{kind}2video", "input_reference": url(kind, data)},
    }[family]


def image(angle=0, size=(300, 300)):
    """A PNG that runs from black at the top to white at the bottom, turned by `angle` degrees."""
    picture = Image.linear_gradient("L").rotate(angle).resize(size).convert("RGB")
    picture.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def clip(width=960, height=704, frames=25, fps=24, codec="libx264", pix_fmt="yuv420p", sound=False):
    """An MP4 that gets brighter from frame to frame, 30 times."""
    with av.open(file := io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if sound:
            track = container.add_stream("aac", rate=48_000, layout="stereo")
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            silence.sample_rate = 48_000
            container.mux([*track.encode(silence), *track.encode(None)])
        for index in range(frames):
            rows = np.full((height * 3 // 2, width), 128, np.uint8)
            rows[:height] = 40 + 6 * index % 180
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rows, "yuv420p").reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return file.getvalue()


def lumas(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray()[: frame.height].astype(int) for frame in container.decode(video=0)]


IMAGE = image()
# Families other than Predict1 take any size, length and codec. Of 25 frames, one clip has too many, one too few.
CLIPS = {"predict1": clip(), "predict2_5": clip(320, 192, 40), "cosmos3": video("clip", 1, 640, 480, 7, 30)}
MEDIA = [(family, kind, IMAGE if kind == "image" else CLIPS[family]) for family in CLIPS for kind in ("image", "video")]
RAW_IMAGE, RAW_CLIP = text(IMAGE), text(CLIPS["predict1"])
I2V, V2V = conditioned("cosmos3", "image", IMAGE), conditioned("cosmos3", "video", CLIPS["cosmos3"])
SIZES = {"predict1": (960, 704), "predict2_5": (320, 192), "cosmos3": (320, 192)}


# The moving crop


@pytest.mark.parametrize(("family", "kind", "media"), MEDIA, ids=lambda value: value if isinstance(value, str) else "")
def test_the_reply_is_a_moving_crop_of_what_was_sent(nim, family, kind, media):
    nim.family = family
    reply = infer(nim, conditioned(family, kind, media))
    assert reply.status_code == 200
    assert (nim.requests[0].media, nim.requests[0].media_kind) == (media, kind)
    got = lumas(base64.b64decode(reply.json()["b64_video"]))
    expected = [planes[0] for planes in moving_crop(media, *SIZES[family], 25)]
    # The encoder's own loss is about 0.3, and the crop one frame further on differs by more than 1.
    assert max(np.abs(a - b).mean() for a, b in zip(got, expected, strict=True)) < 1


def test_the_window_slides_from_the_top_left_to_the_bottom_right():
    down, across = image(), image(90)
    for media, axis in ((down, 0), (across, 1)):
        profiles = [planes[0].mean(axis=1 - axis) for planes in moving_crop(media, 320, 192, 25)]
        # Black is 16 and white 235; the window sees 7/8 of the way between them.
        ends = [(profile[0], profile[-1]) for profile in (profiles[0], profiles[12], profiles[24])]
        expected = [(16 + 219 * start, 16 + 219 * (start + 7 / 8)) for start in (0, 1 / 16, 1 / 8)]
        assert np.abs(np.array(ends) - expected).max() < 3
    assert [plane.shape for plane in next(moving_crop(down, 320, 192, 1))] == [(192, 320), (96, 160), (96, 160)]


def test_a_clip_is_followed_frame_by_frame_and_its_last_one_stays():
    means = [planes[0].mean() for planes in moving_crop(clip(320, 192, 7), 320, 192, 10)]
    assert np.abs(np.array(means) - [40, 46, 52, 58, 64, 70, 76, 76, 76, 76]).max() < 2


def test_the_colours_are_bt709_in_limited_range():
    Image.new("RGB", (64, 64), "red").save(file := io.BytesIO(), "PNG")
    assert [plane[0, 0] for plane in next(moving_crop(file.getvalue(), 64, 64, 1))] == [63, 102, 240]


def test_the_media_alone_decides_the_picture():
    arguments = (320, 192, 25, 24.0)
    first = video("a", 1, *arguments, IMAGE)
    assert video("b", 2, *arguments, IMAGE) == first
    video.cache_clear()
    assert video("a", 1, *arguments, IMAGE) == first
    assert len({first, video("a", 1, *arguments), video("a", 1, *arguments, image(90))}) == 3


# What is accepted and refused


@pytest.mark.parametrize("body", [COSMOS3, I2V | {"input_reference": V2V["input_reference"]}])
def test_a_request_without_accepted_media_records_none(nim, body):
    infer(nim, body)
    assert (nim.requests[0].media, nim.requests[0].media_kind) == (None, None)


def test_media_is_recorded_although_the_job_fails(nim):
    nim.fault = "error_500"
    assert infer(nim, conditioned("cosmos3", "image", IMAGE)).status_code == 500
    assert (nim.requests[0].media, nim.requests[0].media_kind) == (IMAGE, "image")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"image": RAW_IMAGE, "video": RAW_CLIP},
        {"image": RAW_CLIP},
        {"video": RAW_IMAGE},
        {"image": url("image", IMAGE)},
        {"video": url("video", CLIPS["predict1"])},
        {"image": RAW_IMAGE, "prompt_upsampling": False},
        *[{"image": value} for value in ("", "@@@@", RAW_IMAGE[:-3], "http://host/a.png", text(b"text"), None)],
    ],
    ids=lambda change: str(change)[:60],
)
def test_predict1_refuses(nim, change):
    nim.family = "predict1"
    assert infer(nim, PREDICT1 | change).status_code == 422


def test_predict1_needs_no_prompt(nim):
    nim.family = "predict1"
    assert infer(nim, changed(PREDICT1, {"prompt": GONE, "image": RAW_IMAGE})).status_code == 200


@pytest.mark.parametrize(
    "other",
    [
        {"frames": 24},
        {"frames": 26},
        {"frames": 121},
        {"fps": 30},
        {"width": 962},
        {"height": 702},
        {"codec": "mpeg4"},
        {"pix_fmt": "yuv444p"},
        {"sound": True},
    ],
    ids=str,
)
def test_predict1_takes_only_a_clip_like_the_video_asked_for(nim, other):
    nim.family = "predict1"
    reply = infer(nim, PREDICT1 | {"video": text(clip(**other))})
    assert reply.status_code == 500
    assert "autoencoder expects exactly 960x704 x 25 frames x 24fps, h264 yuv420p" in reply.json()["detail"]


def test_predict1_takes_other_counts_and_rates_when_asked_for():
    params = {"height": 704, "width": 960, "frames_count": 30, "frames_per_sec": 16}
    body = {"video_params": params, "video": text(clip(frames=30, fps=16))}
    job = check("predict1", "video2world", body)
    assert (job.frames, job.fps, job.media_kind) == (30, 16, "video")


@pytest.mark.parametrize("family", CLIPS)
def test_a_full_range_clip_is_refused(nim, family):
    nim.family = family
    reply = infer(nim, conditioned(family, "video", clip(pix_fmt="yuvj420p")))
    assert reply.status_code == 422 and "UnsupportedVideoFormat: 'yuvj420p'" in reply.text


CONDITIONS = {"condition_frame_indexes_vision": [0, 6], "condition_video_keep": "last"}


@pytest.mark.parametrize("body", [I2V | {"input_reference": RAW_IMAGE}, V2V | CONDITIONS], ids=["raw", "conditions"])
def test_cosmos3_accepts(nim, body):
    assert infer(nim, body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        changed(I2V, {"input_reference": GONE}),
        I2V | {"input_reference": " "},
        I2V | {"input_reference": V2V["input_reference"]},
        V2V | {"input_reference": I2V["input_reference"]},
        I2V | {"input_reference": text(IMAGE + bytes(15_000_000))},
        V2V | {"input_reference": text(CLIPS["cosmos3"] + bytes(75_000_000))},
        I2V | {"image": RAW_IMAGE},
        I2V | CONDITIONS,
        V2V | {"condition_video_keep": "middle"},
        *[V2V | {"condition_frame_indexes_vision": value} for value in ([7], [-1], [0.0], 0, None)],
    ],
    ids=lambda body: str(body)[-60:],
)
def test_cosmos3_refuses(nim, body):
    assert infer(nim, body).status_code == 422


# Predict2.5


def test_predict2_5_video_is_what_was_asked(nim):
    nim.family = "predict2_5"
    reply = infer(nim, PREDICT2_5 | {"resolution": "256_3_4", "num_output_frames": 30})
    assert set(reply.json()) == {"b64_video"}
    with av.open(io.BytesIO(base64.b64decode(reply.json()["b64_video"]))) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (256, 320, 30, 16)


RATIOS = ("16_9", "1_1", "9_16", "4_3", "3_4")


@pytest.mark.parametrize(
    ("tier", "sizes"),
    [
        ("256", [(320, 192), (256, 256), (192, 320), (320, 256), (256, 320)]),
        ("480", [(768, 432), (480, 480), (432, 768), (640, 480), (480, 640)]),
        ("512", [(640, 384), (512, 512), (384, 640), (640, 512), (512, 640)]),
        ("720", [(1280, 704), (960, 960), (704, 1280), (960, 704), (704, 960)]),
    ],
)
def test_predict2_5_sizes(tier, sizes):
    names = [tier, *(f"{tier}_{ratio}" for ratio in RATIOS)]
    jobs = [check("predict2_5", "", {"prompt": "a", "resolution": name}) for name in names]
    assert [(job.width, job.height) for job in jobs] == [sizes[0], *sizes]
    assert {(job.frames, job.fps) for job in jobs} == {(93, 16)}


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        ({"prompt": "a"}, True),
        ({"image": url("image", IMAGE)}, True),
        ({"video": url("video", CLIPS["cosmos3"])}, True),
        ({}, False),
        ({"image": url("image", IMAGE), "video": url("video", CLIPS["cosmos3"])}, False),
        ({"image": RAW_IMAGE}, False),
        ({"video": RAW_CLIP}, False),
        ({"image": url("video", CLIPS["cosmos3"])}, False),
        ({"video": url("image", IMAGE)}, False),
        *[({"prompt": "a"} | change, True) for change in ({"num_output_frames": 1}, {"guidance_scale": 20})],
        *[({"prompt": "a", name: 16}, False) for name in ("fps", "num_frames", "model_mode", "prompt_upsampling")],
        *[({"prompt": "a", "image": value}, False) for value in (None, "")],
        *[({"prompt": "a", "resolution": value}, False) for value in (720, "1080", "720_21_9", None)],
        *[({"prompt": "a", "num_output_frames": value}, False) for value in (0, 93.0, None)],
        *[({"prompt": "a", "steps": value}, False) for value in (0, 51)],
        *[({"prompt": "a", "guidance_scale": value}, False) for value in (0.5, 20.5)],
    ],
    ids=lambda value: str(value)[:60],
)
def test_predict2_5_infers_its_mode_and_is_strict(body, accepted):
    if accepted:
        check("predict2_5", "", body)
    else:
        with pytest.raises(Refusal) as refused:
            check("predict2_5", "", body)
        assert refused.value.status == 422


# Cosmos3's specialists

SAMPLING = ({"num_inference_steps": 4}, {"guidance_scale": 1.0}, {"flow_shift": 1.0})


@pytest.mark.parametrize(
    ("variant", "body", "accepted"),
    [
        *[(variant, body, True) for variant in ("nano", "super") for body in (COSMOS3, I2V, V2V)],
        *[(variant, I2V, True) for variant in ("super-i2v", "super-i2v-4step")],
        *[(variant, body, False) for variant in ("super-i2v", "super-i2v-4step") for body in (COSMOS3, V2V)],
        *[("super-t2i-4step", body, False) for body in (COSMOS3, I2V, V2V)],
        *[("super-i2v", I2V | change, True) for change in SAMPLING],
        *[("super-i2v-4step", I2V | change, False) for change in SAMPLING],
    ],
    ids=lambda value: str(value)[-30:],
)
def test_a_specialist_serves_one_mode_and_a_four_step_one_owns_its_sampling(nim, variant, body, accepted):
    nim.variant = variant
    assert infer(nim, body).status_code == (200 if accepted else 422)


def test_reset_puts_the_general_model_back(nim):
    nim.variant = "super-i2v-4step"
    nim.reset()
    assert nim.variant == "nano"
