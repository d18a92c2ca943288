"""What each family is sent, and what it refuses before anything is sent."""

from dataclasses import replace

import pytest
from nim.rules import check
from xavi9videos.nodes import errors
from xavi9videos.nodes.cosmos.families import FAMILIES, Cosmos3, Job, Predict1, family_set, recognise

DEFAULT = Job("a fox", "", "16:9", "720", 121, 24, 35, 7.0, 0, True)


def test_predict1_body_is_the_documented_one():
    assert Predict1.text2world(replace(DEFAULT, negative_prompt="blurry", seed=4)).body() == {
        "prompt": "a fox",
        "negative_prompt": "blurry",
        "prompt_upsampling": True,
        "seed": 4,
        "guidance_scale": 7.0,
        "steps": 35,
        "video_params": {"height": 704, "width": 1280, "frames_count": 121, "frames_per_sec": 24},
    }


def test_cosmos3_body_is_the_documented_one():
    body = Cosmos3.text2world(DEFAULT).body()
    assert body == {
        "model_mode": "text2video",
        "prompt": "a fox",
        "resolution": "720_16_9",
        "num_frames": 121,
        "fps": 24.0,
        "num_inference_steps": 35,
        "guidance_scale": 7.0,
        "seed": 0,
    }
    assert isinstance(body["fps"], float) and isinstance(body["num_frames"], int)


@pytest.mark.parametrize("negative", ["", "  \n"])
@pytest.mark.parametrize("family", [Predict1, Cosmos3])
def test_an_empty_negative_prompt_is_not_sent(family, negative):
    assert "negative_prompt" not in family.text2world(replace(DEFAULT, negative_prompt=negative)).body()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_size_is_one_that_the_stand_in_takes(family):
    """The stand-in's rules are transcribed on their own, so this compares two readings of the same facts."""
    for resolution, ratios in FAMILIES[family].sizes.items():
        for ratio, size in ratios.items():
            for frames in (FAMILIES[family].frames[resolution][0], FAMILIES[family].frames[resolution][-1]):
                job = replace(DEFAULT, resolution=resolution, aspect_ratio=ratio, frames=frames)
                taken = check(family, "text2world", FAMILIES[family].text2world(job).body())
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
        family.text2world(replace(DEFAULT, **change))
    assert caught.value.values["allowed"] == allowed
    assert caught.value.values["nearest"] == nearest
    for said in (family.__name__, str(list(change.values())[0]), allowed, str(nearest)):
        assert said in str(caught.value)


@pytest.mark.parametrize("family, prompt, allowed", [(Predict1, "a " * 251, "250"), (Cosmos3, "x" * 20_001, "20000")])
def test_a_prompt_that_is_too_long_is_refused(family, prompt, allowed):
    with pytest.raises(errors.PromptTooLong, match=allowed):
        family.text2world(replace(DEFAULT, prompt=prompt))


@pytest.mark.parametrize("family", [Predict1, Cosmos3])
def test_an_empty_prompt_is_refused(family):
    with pytest.raises(errors.EmptyPrompt):
        family.text2world(replace(DEFAULT, prompt=" \n"))


def openapi(properties):
    schema = {"$ref": "#/components/schemas/Body"}
    return {
        "paths": {"/v1/infer": {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}},
        "components": {"schemas": {"Body": {"properties": {name: {} for name in properties}}}},
    }


@pytest.mark.parametrize(
    "metadata, description, family",
    [
        ({"modelInfo": [{"shortName": "cosmos-predict1-7b-text2world:1.0.0"}]}, {}, Predict1),
        ({"assetInfo": ["ngc://nim/nvidia/cosmos3:2.1.0"]}, {}, Cosmos3),
        ({"model_variant": "nano"}, {}, Cosmos3),
        ({}, openapi(["prompt", "video_params"]), Predict1),
        ({}, openapi(["prompt", "model_mode"]), Cosmos3),
        # Cosmos3-Generator 1.x bears the name, but takes other fields; the reasoner makes no video.
        ({"modelInfo": [{"shortName": "cosmos3-generator"}]}, openapi(["prompt", "num_output_frames"]), None),
        ({"modelInfo": [{"shortName": "cosmos3-reasoner:1.7.0"}]}, {}, None),
        ({"modelInfo": [{"shortName": "flux.1-dev"}]}, {"paths": {}}, None),
        ({"modelInfo": None}, {"paths": []}, None),
    ],
)
def test_the_family_is_told_by_metadata_then_openapi(metadata, description, family):
    if family:
        assert recognise(metadata, description, "http://nim") is family
        return
    with pytest.raises(errors.CosmosFamilyUnknown) as caught:
        recognise(metadata, description, "http://nim")
    for said in ("COSMOS_FAMILY", "predict1", "cosmos3", "http://nim"):
        assert said in str(caught.value)


def test_cosmos_family_takes_a_class_name_or_says_which_there_are():
    assert family_set("auto") is None
    assert family_set("Cosmos3") is family_set("cosmos3") is Cosmos3
    with pytest.raises(errors.BadSetting, match="COSMOS_FAMILY=cosmos9.*auto, predict1, cosmos3"):
        family_set("cosmos9")
