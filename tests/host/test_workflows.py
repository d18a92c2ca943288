"""Every shipped workflow through POST /prompt, as people without a browser use it."""

import json
import re

import av
import pytest
from setup_host import REPO
from tiny.models import lowered

FOLDER = REPO / "workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
# Width, height, frames and frames per second of each workflow's video, by the family of the NIM; a local model has no
# family, and its size is the lowered one.
COSMOS = ("cosmos_text2world", "cosmos_image2world", "cosmos_video2world")
SIZES = {"cosmos3": (1280, 720), "predict1": (1280, 704)}
ASKED = {(name, family): (*size, 121, 24) for name in COSMOS for family, size in SIZES.items()}
LTX2 = {"ltx2_text_to_video": (256, 160), "ltx2_image_to_video": (256, 160), "ltx2_two_stage_1080p": (512, 270)}
LTX23_OWN = {"ltx23_keyframes": (256, 160), "ltx23_sound_to_video": (512, 270), "ltx23_dev_guidance": (256, 160)}
ASKED |= {(name, None): (*size, 17, 25) for name, size in (LTX2 | LTX23_OWN).items()}
# The clip has 60 frames at 30 a second; 8 of the new 17, at 25 a second, are after what both have in common.
ASKED["ltx23_extend_video", None] = (960, 540, 60 + round(8 / 25 * 30), 30)
ASKED |= {("svd_xt_image_to_video", None): (256, 144, 25, 7), ("generate_video", None): (256, 160, 17, 25)}
# What is shipped: these inputs of the node that samples.
SAMPLERS = {"Xavi9LTX2Sampler": ("width", "height", "frames", "fps", "schedule"),
            "Xavi9SVDImageToVideo": ("width", "height", "frames", "fps", "steps"),
            "Xavi9GenerateVideo": ("model.width", "model.height", "model.frames", "model.fps", "model")}
SHIPPED = {"ltx2_text_to_video": (768, 512, 121, 25, "distilled"),
           "ltx2_image_to_video": (768, 512, 121, 25, "distilled"),
           "ltx2_two_stage_1080p": (960, 540, 121, 25, "distilled"),
           "ltx23_keyframes": (768, 512, 121, 25, "distilled"),
           "ltx23_sound_to_video": (640, 360, 121, 25, "distilled"),
           "ltx23_extend_video": (960, 540, 121, 25, "distilled"),
           "ltx23_dev_guidance": (768, 512, 121, 25, "dev"),
           "generate_video": (768, 512, 121, 25, "LTX-2 (FP8)"),
           "svd_xt_image_to_video": (1024, 576, 25, 7, 25)}
# Which widgets name a model file, with the folder that it lies in.
FILES = {"checkpoint": "checkpoints", "model": "checkpoints", "text_encoder": "text_encoders",
         "upscaler": "latent_upscale_models"}
# What LTX-2's workflows name instead for LTX-2.3.
LTX23 = {"checkpoint": "ltx-2.3-22b-distilled-fp8.safetensors",
         "upscaler": "ltx-2.3-spatial-upscaler-x2-1.1.safetensors"}
# Those that open as a form.
FORMS = ("generate_video",)
# What Generate Video's `model` is instead.
CHOICES = ("LTX-2 (FP8)",)
# What each hands to the NIM, besides words.
MEDIA = dict(zip(COSMOS, (None, "image", "video"), strict=True))


def read(path):
    return json.loads(path.read_text("utf-8"))


def test_each_is_complete():
    for names in (FOLDER.glob("*.json"), FOLDER.glob("*.jpg"), {name for name, _ in ASKED}):
        assert sorted(getattr(name, "stem", name) for name in names) == NAMES != []


@pytest.mark.parametrize("name", NAMES)
def test_metadata(name):
    graph = read(FOLDER / f"{name}.json")
    assert (graph["version"], bool(graph["extra"])) == (0.4, name in FORMS)
    ours = [node for node in graph["nodes"] if node["type"].startswith("Xavi9")]
    assert {node["properties"]["cnr_id"] for node in ours} == {"xavi9videos"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", node["properties"]["ver"]) for node in ours)
    assert graph["nodes"][0]["type"] == "MarkdownNote"
    assert (FOLDER / f"{name}.jpg").stat().st_size <= 60_000


@pytest.mark.parametrize("name", NAMES)
def test_the_editor_can_offer_every_model_file(name):
    graph, prompt = read(FOLDER / f"{name}.json"), read(FOLDER / "api" / f"{name}.json")
    for node in graph["nodes"]:
        inputs = prompt.get(str(node["id"]), {"inputs": {}})["inputs"]
        # An input that is linked has a list of node and output for its value.
        named = {key.removeprefix("model."): value for key, value in inputs.items() if value not in CHOICES}
        wanted = [(value, FILES[key]) for key, value in named.items() if key in FILES and isinstance(value, str)]
        models = node["properties"].get("models", [])
        assert [(it["name"], it["directory"]) for it in models] == wanted
        for it in models:
            # The editor downloads from there only, and only such files.
            assert re.fullmatch(r"https://huggingface\.co/[\w-]+/[\w.-]+/resolve/main/(\w+/)*" + it["name"], it["url"])
            assert it["name"].endswith(".safetensors")


@pytest.mark.parametrize("name", SHIPPED)
def test_local_models_are_shipped_at_full_size(name):
    [asked] = [tuple(node["inputs"][key] for key in SAMPLERS[node["class_type"]])
               for node in read(FOLDER / "api" / f"{name}.json").values() if node["class_type"] in SAMPLERS]
    assert asked == SHIPPED[name]


@pytest.mark.parametrize("name, family", ASKED)
def test_runs(server, nim, uncached, name, family):
    if family:
        nim.family, nim.mode = family, "video2world" if MEDIA[name] else "text2world"
    prompt, graph = lowered(read(FOLDER / "api" / f"{name}.json")), read(FOLDER / f"{name}.json")
    entry = server.run(prompt, graph)
    assert server.error(entry) is None
    jobs = [("replied", MEDIA[name])] if family else []
    assert [(record.outcome, record.media_kind) for record in nim.requests] == jobs
    [saved] = server.files(entry)
    with av.open(str(saved)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert (stream.width, stream.height, frames, stream.average_rate) == ASKED[name, family]
        # Only LTX-2 makes sound, as long as the picture.
        heard = name.startswith("ltx2") or name in FORMS
        assert [it.codec_context.name for it in container.streams.audio] == ["aac"] * heard
        kept = json.loads(container.metadata["prompt"])
    for node in kept.values():
        node.pop("is_changed", None)  # which the host itself adds
    assert kept == prompt
    with av.open(str(saved)) as container:
        assert json.loads(container.metadata["workflow"]) == graph


@pytest.mark.parametrize("name", LTX2)
def test_ltx2s_run_with_ltx23(server, uncached, name):
    prompt = lowered(read(FOLDER / "api" / f"{name}.json"))
    for node in prompt.values():
        node["inputs"] |= {key: file for key, file in LTX23.items() if key in node["inputs"]}
    entry = server.run(prompt)
    assert server.error(entry) is None
    [saved] = server.files(entry)
    with av.open(str(saved)) as container:
        stream, sound = container.streams.video[0], container.streams.audio[0]
        assert (stream.width, stream.height, sound.rate) == (*LTX2[name], 48000)
        assert sum(1 for _ in container.decode(stream)) == 17
