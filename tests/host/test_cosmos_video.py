"""Cosmos Video to World through POST /prompt, against every family's stand-in."""

import io
import json
import re

import av
import numpy as np
import pytest
from clips import write_file
from comfy_host import PromptRejected
from nim.picture import moving_crop

SEEDS = iter(range(1_000, 9_999))
IMAGE = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
CLIP = {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}}
SIZES = {
    "cosmos3": ("256", 320, 192, 24), "predict1": ("720", 1280, 704, 24), "predict2_5": ("256", 320, 192, 16)
}


def graph(save=None, **inputs) -> dict:
    cosmos = {"prompt": "steam rises", "negative_prompt": "", "aspect_ratio": "16:9", "resolution": "256",
              "frames": 25, "fps": 24, "steps": 35, "guidance_scale": 7.0, "seed": next(SEEDS), **inputs}
    show = {"class_type": "Xavi9VideoSave", "inputs": {"video": ["1", 0], "filename_prefix": "v2w/v", "format": "auto"}}
    return {"1": {"class_type": "Xavi9CosmosVideo2World", "inputs": cosmos}, "save": show,
            "image": IMAGE, "clip": CLIP}


def luma(video: bytes, size: int) -> list[np.ndarray]:
    with av.open(io.BytesIO(video)) as container:
        return [it.to_ndarray(format="yuv420p")[:size].astype(int) for it in container.decode(video=0)]


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_video_shows_what_was_connected(server, nim, kind, family):
    resolution, width, height, fps = SIZES[family]
    nim.family, nim.mode = family, "video2world"
    link = ["image", 0] if kind == "image" else ["clip", 0]
    entry = server.run(graph(resolution=resolution, **{kind: link}))
    assert server.error(entry) is None
    [record] = nim.requests
    assert record.media_kind == kind
    with av.open(io.BytesIO(record.media)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (width, height)
        frames = sum(1 for _ in container.decode(stream))
        assert frames == (1 if kind == "image" else 25)
        assert kind == "image" or (stream.average_rate, stream.format.name) == (24, "yuv420p")
    [saved] = server.files(entry)
    made = luma(saved.read_bytes(), height)
    expected = [planes[0].astype(int) for planes in moving_crop(record.media, width, height, 25)]
    assert max(np.abs(a - b).mean() for a, b in zip(made, expected, strict=True)) < 6
    with av.open(str(saved)) as container:
        assert container.streams.video[0].average_rate == fps


def test_conditions_are_sent_for_clips_only(server, nim):
    server.run(graph(video=["clip", 0]))
    server.run(graph(image=["image", 0]))
    clip, image = (it.body for it in nim.requests)
    assert (clip["condition_frame_indexes_vision"], clip["condition_video_keep"]) == ([0, 1], "first")
    assert not any(it.startswith("condition") for it in image) and image["model_mode"] == "image2video"
    assert all("prompt_upsampling" not in it for it in (clip, image))


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({}, "it was given neither"),
        ({"image": ["image", 0], "video": ["clip", 0]}, "it was given both"),
        ({"image": ["image", 0], "prompt": " "}, "The prompt is empty"),
        ({"image": ["image", 0], "seed": 4294967296}, "4294967295"),
        ({"image": ["clip", 0]}, "return_type_mismatch"),
    ],
)
def test_a_wrong_input_is_refused_before_anything_runs(server, nim, inputs, words):
    with pytest.raises(PromptRejected) as rejected:
        server.post(graph(**inputs))
    assert rejected.value.status == 400 and words in json.dumps(rejected.value.body)
    assert nim.seen == []


BAD = {
    "batch": ({"batch": {"class_type": "EmptyImage",
                         "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 0}}},
              {"image": ["batch", 0]}, "ImageNotUsable", "a batch of 3"),
    "words": ({}, {"image": ["image", 0], "prompt": "words " * 5000}, "PromptTooLong", "20000"),
    "resolution": ({}, {"image": ["image", 0], "resolution": "512"}, "NotOffered", "Set resolution to 480"),
    "frames": ({}, {"image": ["image", 0], "frames": 26}, "NotOffered", "Set frames to 25"),
    "cut clip": ({"cut": {"class_type": "LoadVideo", "inputs": {"file": "cut.mp4"}}}, {"video": ["cut", 0]},
                 "VideoUnreadable", "cut.mp4"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_only_a_run_can_tell_is_told_in_our_words_and_never_sent(server, nim, name):
    nodes, inputs, kind, words = BAD[name]
    data = write_file(server.base / "input" / "whole.mp4", 24).read_bytes()
    (server.base / "input" / "cut.mp4").write_bytes(data[: len(data) // 2])
    before = set((server.base / "temp").rglob("*"))
    error = server.error(server.run({**graph(**inputs), **nodes}))
    assert error["exception_type"].rsplit(".", 1)[-1] == kind and re.search(words, error["exception_message"])
    assert nim.requests == []
    assert set((server.base / "temp").rglob("*")) == before


def test_the_container_of_the_other_mode_is_named_with_the_setting(server, nim):
    nim.family, nim.mode = "predict1", "text2world"
    error = server.error(server.run(graph(resolution="720", image=["image", 0])))
    assert error["exception_type"].endswith("CosmosOtherMode")
    for said in ("text2world", "video2world", "set COSMOS_VIDEO2WORLD_URL"):
        assert said in error["exception_message"]
    assert nim.requests == []


@pytest.mark.parametrize("fault", ["error_500", "guardrail", "reset_mid_body", "not_a_video"])
def test_a_failure_leaves_neither_reply_nor_fitted_file(server, nim, fault):
    server.run(graph(image=["image", 0]))
    before = set((server.base / "temp").rglob("*"))
    nim.fault = fault
    assert server.error(server.run(graph(video=["clip", 0])))
    assert set((server.base / "temp").rglob("*")) == before
