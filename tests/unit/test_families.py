"""What each family is sent, and what it refuses before anything is sent."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from nim.rules import check
from xavi9videos.nodes import errors
from xavi9videos.nodes.cosmos import families
from xavi9videos.nodes.cosmos.families import (
    FAMILIES,
    Cosmos3,
    Cosmos3FourStep,
    Family,
    Job,
    Predict1,
    Predict2_5,
    family_set,
)
from xavi9videos.nodes.cosmos.media import Media
from xavi9videos.nodes.cosmos.recognise import recognise

DEFAULT = Job("a fox", "", "16:9", "720", 121, 24, 35, 7.0, 0, True)
CONDITIONED = replace(DEFAULT, prompt_upsampling=False)
IMAGE = Media("image", Path("sent"), 1, "MARK")
CLIP = Media("video", Path("sent"), 121, "MARK")


def body(family, job=DEFAULT, media=None):
    family.check(job)
    return family.request(job, media).body()


def test_predict1_body_is_the_documented_one():
    assert body(Predict1, replace(DEFAULT, negative_prompt="blurry", seed=4)) == {
        "prompt": "a fox",
        "negative_prompt": "blurry",
        "prompt_upsampling": True,
        "seed": 4,
        "guidance_scale": 7.0,
        "steps": 35,
        "video_params": {"height": 704, "width": 1280, "frames_count": 121, "frames_per_sec": 24},
    }


def test_cosmos3_body_is_the_documented_one():
    sent = body(Cosmos3)
    assert sent == {
        "model_mode": "text2video",
        "prompt": "a fox",
        "resolution": "720_16_9",
        "num_frames": 121,
        "fps": 24.0,
        "num_inference_steps": 35,
        "guidance_scale": 7.0,
        "seed": 0,
    }
    assert isinstance(sent["fps"], float) and isinstance(sent["num_frames"], int)


def test_predict2_5_body_is_the_documented_one():
    assert body(Predict2_5, replace(DEFAULT, resolution="480", frames=93, seed=92014)) == {
        "prompt": "a fox",
        "resolution": "480_16_9",
        "num_output_frames": 93,
        "steps": 35,
        "guidance_scale": 7.0,
        "seed": 92014,
    }


FIVE = Media("video", Path("sent"), 5, "MARK")
FOUR = Media("video", Path("sent"), 4, "MARK")
CONDITION = {"condition_frame_indexes_vision": [0, 1], "condition_video_keep": "first"}


@pytest.mark.parametrize(
    "family, media, more",
    [
        (Predict1, IMAGE, {"image": "MARK"}),
        (Predict1, CLIP, {"video": "MARK"}),
        (Predict2_5, IMAGE, {"image": "data:image/png;base64,MARK"}),
        (Predict2_5, CLIP, {"video": "data:video/mp4;base64,MARK"}),
        (Cosmos3, IMAGE, {"model_mode": "image2video", "input_reference": "data:image/png;base64,MARK"}),
        (Cosmos3, CLIP, {"model_mode": "video2video", "input_reference": "data:video/mp4;base64,MARK", **CONDITION}),
        # Latent frame 1 stands for pictures 1 to 4 of the clip.
        (
            Cosmos3,
            FIVE,
            {"model_mode": "video2video", "input_reference": "data:video/mp4;base64,MARK", **CONDITION},
        ),
        (
            Cosmos3,
            FOUR,
            {
                "model_mode": "video2video",
                "input_reference": "data:video/mp4;base64,MARK",
                **CONDITION,
                "condition_frame_indexes_vision": [0],
            },
        ),
    ],
)
def test_media_goes_where_each_family_takes_it_and_nothing_else_changes(family, media, more):
    text_only = body(family)
    text_only.pop("prompt_upsampling", None)  # which video2world refuses
    assert body(family, CONDITIONED, media) == {**text_only, **more}


def test_a_four_step_model_is_sent_none_of_its_own_numbers():
    sent = body(Cosmos3FourStep, CONDITIONED, IMAGE)
    full = body(Cosmos3, CONDITIONED, IMAGE)
    assert full.keys() - sent.keys() == {"num_inference_steps", "guidance_scale"}
    assert sent.items() <= full.items()


def test_a_field_that_a_family_lacks_is_logged_once(caplog):
    families.say_not_sent.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            body(Predict2_5)
    assert [it.message for it in caplog.records] == [
        "Predict2.5 has no fps; it is not sent.",
        "Predict2.5 has no prompt_upsampling; it is not sent.",
    ]


def test_a_further_family_is_one_class(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", known := dict(FAMILIES))

    class Transfer2_5(Family):
        model_name = "cosmos-transfer2[.]5"

    assert known["transfer2.5"] is Transfer2_5 and family_set("Transfer2.5") is Transfer2_5


@pytest.mark.parametrize("negative", ["", "  \n"])
@pytest.mark.parametrize("family", FAMILIES.values())
def test_an_empty_negative_prompt_is_not_sent(family, negative):
    assert "negative_prompt" not in body(family, replace(DEFAULT, negative_prompt=negative))


STAND_INS = {"predict1": "predict1", "predict2.5": "predict2_5", "cosmos3": "cosmos3", "cosmos3fourstep": "cosmos3"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_size_is_one_that_the_stand_in_takes(family):
    """The stand-in's rules are transcribed on their own, so this compares two readings of the same facts."""
    for resolution, ratios in FAMILIES[family].sizes.items():
        for ratio, size in ratios.items():
            for frames in (FAMILIES[family].frames[resolution][0], FAMILIES[family].frames[resolution][-1]):
                job = replace(DEFAULT, resolution=resolution, aspect_ratio=ratio, frames=frames)
                taken = check(STAND_INS[family], "text2world", body(FAMILIES[family], job))
                assert (taken.width, taken.height, taken.frames) == (*size, frames)


@pytest.mark.parametrize(
    "family, change, allowed, nearest",
    [
        (Predict1, {"resolution": "480"}, "720", "720"),
        (Predict1, {"frames": 24}, "25 to 121", 25),
        (Predict1, {"frames": 189}, "25 to 121", 121),
        (Predict1, {"fps": 60}, "12 to 40", 40),
        (Predict1, {"steps": 51}, "1 to 50", 50),
        (Predict1, {"guidance_scale": 10.5}, "1 to 10", "10"),
        (Predict2_5, {"guidance_scale": 20.5}, "1 to 20", "20"),
        (Predict2_5, {"frames": 24}, "25 to 397", 25),
        (Cosmos3, {"resolution": "512"}, "256, 480, 720", "480"),
        (Cosmos3, {"frames": 120}, "25 to 197 in steps of 4", 121),
        (Cosmos3, {"frames": 201}, "25 to 197 in steps of 4", 197),
        (Cosmos3, {"frames": 401, "resolution": "256"}, "25 to 397 in steps of 4", 397),
        (Cosmos3, {"fps": 61}, "1 to 60", 60),
        (Cosmos3, {"guidance_scale": 7.5}, "1 to 7", "7"),
        (Cosmos3, {"guidance_scale": float("nan")}, "1 to 7", "7"),
        (Cosmos3, {"aspect_ratio": "21:9"}, "16:9, 9:16, 1:1, 4:3, 3:4", "16:9"),
    ],
)
def test_a_value_outside_the_family_is_refused_with_what_it_has(family, change, allowed, nearest):
    with pytest.raises(errors.NotOffered) as caught:
        family.check(replace(DEFAULT, **change))
    assert caught.value.values["allowed"] == allowed
    assert caught.value.values["nearest"] == nearest
    for said in (family.label, str(list(change.values())[0]), allowed, str(nearest)):
        assert said in str(caught.value)


@pytest.mark.parametrize("family, prompt, allowed", [(Predict1, "a " * 251, "250"), (Cosmos3, "x" * 20_001, "20000")])
def test_a_prompt_that_is_too_long_is_refused(family, prompt, allowed):
    with pytest.raises(errors.PromptTooLong, match=allowed):
        family.check(replace(DEFAULT, prompt=prompt))


@pytest.mark.parametrize("family", FAMILIES.values())
def test_an_empty_prompt_is_refused(family):
    with pytest.raises(errors.EmptyPrompt):
        family.check(replace(DEFAULT, prompt=" \n"))


def openapi(properties):
    schema = {"$ref": "#/components/schemas/Body"}
    return {
        "paths": {"/v1/infer": {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}},
        "components": {"schemas": {"Body": {"properties": {name: {} for name in properties}}}},
    }


@pytest.mark.parametrize(
    "metadata, description, known",
    [
        ({"modelInfo": [{"shortName": "cosmos-predict1-7b-text2world:1.0.0"}]}, {}, (Predict1, "text2world")),
        ({"modelInfo": [{"shortName": "cosmos-predict1-7b-video2world"}]}, {}, (Predict1, "video2world")),
        ({"modelInfo": [{"shortName": "cosmos-predict1"}]}, {}, (Predict1, None)),
        ({"modelInfo": [{"modelUrl": "ngc://nim/nvidia/cosmos-predict2.5-2b:1.0.0"}]}, {}, (Predict2_5, None)),
        ({"assetInfo": ["ngc://nim/nvidia/cosmos3:2.1.0"]}, {}, (Cosmos3, None)),
        ({"model_variant": "nano"}, {}, (Cosmos3, None)),
        ({"model_variant": "super-i2v-4step"}, {}, (Cosmos3FourStep, None)),
        ({}, openapi(["prompt", "video_params"]), (Predict1, None)),
        ({}, openapi(["prompt", "model_mode"]), (Cosmos3, None)),
        ({}, openapi(["prompt", "num_output_frames", "image", "video"]), (Predict2_5, None)),
        # Cosmos3-Generator 1.x bears the name, but takes other fields; the reasoner makes no video.
        ({"modelInfo": [{"shortName": "cosmos3-generator"}]}, openapi(["prompt", "num_output_frames"]), None),
        ({"modelInfo": [{"shortName": "cosmos3-reasoner:1.7.0"}]}, {}, None),
        ({"modelInfo": [{"shortName": "flux.1-dev"}]}, {"paths": {}}, None),
        ({"modelInfo": None}, {"paths": []}, None),
    ],
)
def test_the_family_is_told_by_metadata_then_openapi(metadata, description, known):
    if known:
        assert recognise(metadata, description, "http://nim") == known
        return
    with pytest.raises(errors.CosmosFamilyUnknown) as caught:
        recognise(metadata, description, "http://nim")
    for said in ("COSMOS_FAMILY", "predict1", "predict2.5", "cosmos3", "http://nim"):
        assert said in str(caught.value)


def test_cosmos_family_takes_a_class_name_or_says_which_there_are():
    assert family_set("auto") is None
    assert family_set("Cosmos3") is family_set("cosmos3") is Cosmos3
    with pytest.raises(errors.BadSetting, match="COSMOS_FAMILY=cosmos9.*auto, predict1, predict2.5, cosmos3"):
        family_set("cosmos9")
