"""Generate Video: it makes what its nodes make, bit for bit, and refuses what they refuse, before anything runs."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from comfy_host import ComfyHost
from graphs import GEMMA_FILE, LTX2, LTX2_FILE, SVD, changed, encoders, index, node, opened, refused, run, settle

COSMOS = {"aspect_ratio": "16:9", "resolution": "256", "frames": 25, "fps": 24, "steps": 20, "guidance_scale": 6.0,
          "negative_prompt": "blur"}  # fmt: skip
FILES = {"checkpoint": LTX2_FILE, "text_encoder": GEMMA_FILE}
SIZES = {"width": 96, "height": 64, "frames": 9, "fps": 25}
FOX = "A red fox runs through snow."
IMAGE = {"picture": node("LoadImage", image="example.png")}
CLIP = {"clip": node("LoadVideo", file="clip.mp4")}


def generate(model: str, nested: dict, *more: dict, prompt: str = FOX, seed: int = 1) -> dict:
    """A graph of the node and a lossless file of what it makes. nested: the inputs of the chosen mode."""
    inputs = {"prompt": prompt, "seed": seed, "model": model} | {f"model.{key}": it for key, it in nested.items()}
    return saved({"made": node("Xavi9GenerateVideo", **inputs)}, ["made", 0], *more)


def saved(graph: dict, video: list, *more: dict) -> dict:
    save = node("Xavi9VideoSave", video=video, filename_prefix="generate/video", format="mkv-ffv1")
    for nodes in more:
        graph = graph | nodes
    return graph | {"kept": save}


def decoded(path: Path) -> list[np.ndarray]:
    """Every picture and every sample of a file."""
    with av.open(str(path)) as container:
        frames = [it.to_ndarray(format="rgb24") for it in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [it.to_ndarray() for it in container.decode(audio=0)] if container.streams.audio else []
    return frames + sound


def kept(host: ComfyHost, graph: dict) -> Path:
    """The lossless file: what the node shows of it is a preview."""
    run(host, graph)
    return Path(index(host)[-1]["path"])


def same(host: ComfyHost, graph: dict, other: dict) -> bool:
    ours = decoded(kept(host, graph))
    # Else the host takes the other's nodes out of its cache: they are the same.
    host.free(free_memory=True)
    settle(host)
    theirs = decoded(kept(host, other))
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def by_nodes(model: str, nested: dict) -> dict:
    """The same by the nodes that it stands for."""
    if model == "LTX-2 (FP8)":
        given = {"text_negative_prompt": nested.get("negative_prompt", ""), "sample_seed": 1}
        if "image" in nested:
            given |= {"sample_first_image": nested["image"], "sample_image_strength": nested["image_strength"]}
        graph = changed(LTX2, **given, **{f"sample_{key}": value for key, value in SIZES.items()})
        return saved({key: it for key, it in graph.items() if key != "save"}, ["decode", 0], IMAGE)
    if model == "SVD-XT":
        graph = {key: it for key, it in SVD.items() if key != "write"}
        return saved(graph, ["animate", 0])
    kind = {"Cosmos Text2World": "Xavi9CosmosText2World", "Cosmos Video2World": "Xavi9CosmosVideo2World"}[model]
    return saved({"cosmos": node(kind, prompt=FOX, seed=1, **nested)}, ["cosmos", 0], IMAGE, CLIP)


DEFAULTS = {"negative_prompt": "", "aspect_ratio": "16:9", "resolution": "256", "frames": 121, "fps": 24, "steps": 35,
            "guidance_scale": 7.0, "prompt_upsampling": True}  # fmt: skip
SVD_SIZES = {key: SVD["animate"]["inputs"][key] for key in
             ("width", "height", "frames", "fps", "steps", "motion_bucket_id", "noise_aug_strength", "min_guidance",
              "max_guidance", "decode_chunk")}  # fmt: skip
LINK = {"image": ["picture", 0]}
WAYS = {
    "text to world": ("Cosmos Text2World", COSMOS),
    "image to world": ("Cosmos Video2World", COSMOS | LINK),
    "clip to world": ("Cosmos Video2World", COSMOS | {"video": ["clip", 0]}),
    "ltx2 text": ("LTX-2 (FP8)", FILES | SIZES | {"negative_prompt": "rain"}),
    "ltx2 image": ("LTX-2 (FP8)", FILES | SIZES | LINK | {"image_strength": 0.7}),
    "svd": ("SVD-XT", SVD_SIZES | LINK),
}


def without_media(body: dict) -> dict:
    return {key: it for key, it in body.items() if not isinstance(it, str) or len(it) < 1000}


@pytest.mark.parametrize("way", WAYS)
def test_it_makes_what_its_nodes_make(server, nim, way):
    model, nested = WAYS[way]
    if model == "Cosmos Text2World":
        theirs = by_nodes(model, nested | {"prompt_upsampling": True})
    else:
        theirs = by_nodes(model, nested)
    alike = same(server, generate(model, nested, IMAGE, CLIP), theirs)
    # Of a clip x264 does not always make the same bytes, which the stand-in draws from.
    assert alike or way == "clip to world"
    if model.startswith("Cosmos"):
        ours, other = nim.requests
        assert without_media(ours.body) == without_media(other.body) and ours.body["seed"] == 1
        assert ours.media_kind == other.media_kind == {"image to world": "image", "clip to world": "video"}.get(way)


def test_what_an_old_file_does_not_have_gets_its_default(server, nim):
    run(server, generate("Cosmos Text2World", {"resolution": "256"}))
    run(server, saved({"cosmos": node("Xavi9CosmosText2World", prompt=FOX, seed=2, **DEFAULTS)}, ["cosmos", 0]))
    ours, theirs = (it.body for it in nim.requests)
    assert ours == theirs | {"seed": 1}
    run(server, generate("SVD-XT", SVD_SIZES | LINK | {"width": 64}, IMAGE))


def errors_of(host: ComfyHost, graph: dict) -> str:
    """What the host says of the node when it refuses the graph, each text once."""
    body = json.loads(refused(host, graph))
    assert list(body["node_errors"]) == ["made"]
    found = {it["details"].partition(" - ")[2] or it["message"] for it in body["node_errors"]["made"]["errors"]}
    return " | ".join(sorted(found))


@pytest.mark.parametrize(("model", "nested", "prompt", "words"), [
    ("Sora", {}, FOX, r"model is missing or not known; known are Cosmos Text2World, Cosmos Video2World, LTX-2 \(FP8\)"),
    ("Cosmos Text2World", {}, " ", r"The prompt is empty"),
    ("Cosmos Text2World", {"frames": 24}, FOX, r"frames is 24; 25 to 397"),
    ("Cosmos Text2World", {"resolution": "1080"}, FOX, r"resolution is '1080'; 720, 512, 480, 256 are"),
    ("Cosmos Video2World", {}, FOX, r"given neither"),
    ("Cosmos Video2World", LINK | {"video": ["clip", 0]}, FOX, r"given both"),
    ("Cosmos Video2World", {"image": ["clip", 0]}, FOX, r"image takes IMAGE, and what is connected to it gives VIDEO"),
    ("LTX-2 (FP8)", {}, "", r"The prompt is empty"),
    ("LTX-2 (FP8)", {"checkpoint": "no.safetensors"}, FOX, r"no.safetensors is not in .*download_models.sh ltx2"),
    ("LTX-2 (FP8)", {"text_encoder": "../x"}, FOX, r"\.\./x is not in .*text_encoders"),
    ("LTX-2 (FP8)", {"steps": 9}, FOX, r"distilled schedule has 8 steps, and steps is 9"),
    ("LTX-2 (FP8)", {"image_strength": 1.1}, FOX, r"image_strength is 1.1; 0 to 1"),
    ("LTX-2 (FP8)", {"width": 31}, FOX, r"width is 31; 32 to 4096"),
    ("SVD-XT", {}, "", r"SVD-XT needs an image"),
    ("SVD-XT", LINK | {"checkpoint": "no.safetensors"}, "", r"no.safetensors is not in .*download_models.sh svd"),
    ("SVD-XT", LINK | {"motion_bucket_id": 0}, "", r"motion_bucket_id is 0; 1 to 1023"),
    ("SVD-XT", LINK | {"checkpoint": {"a": 1}}, "", r"is not in .*download_models.sh svd"),
    ("LTX-2 (FP8)", {"text_encoder": 5}, FOX, r"5 is not in .*text_encoders"),
    ("SVD-XT", LINK | {"fps": ["picture", 0]}, "", r"fps takes INT, and what is connected to it gives IMAGE"),
])  # fmt: skip
def test_what_its_nodes_refuse_is_refused_before_anything_runs(server, model, nested, prompt, words):
    found = errors_of(server, generate(model, nested, IMAGE, CLIP, prompt=prompt))
    assert re.search(words, found) and "|" not in found


@pytest.mark.parametrize("given", ["wide", {"a": 1}])
def test_what_is_no_number_is_refused_in_words(server, given):
    # The host tries to make a number of it first, and says that it could not.
    found = errors_of(server, generate("SVD-XT", LINK | {"width": given}, IMAGE))
    assert f"width is {given}; 64 to 4096" in found and "Failed to convert" in found and found.count("|") == 1


def test_a_prompt_or_seed_that_no_mode_takes(server):
    assert "seed is 4294967296; 0 to 4294967295" in errors_of(server, generate("SVD-XT", LINK, IMAGE, seed=2**32))
    graph = generate("SVD-XT", LINK, IMAGE)
    graph["made"]["inputs"]["seed"] = ["picture", 0]
    assert "seed takes INT" in errors_of(server, graph)
    del graph["made"]["inputs"]["model"], graph["made"]["inputs"]["seed"]
    assert "known are" in (found := errors_of(server, graph)) and "Required input is missing" in found


def test_a_link_that_another_mode_would_take_is_left_alone(server):
    run(server, generate("SVD-XT", SVD_SIZES | LINK | {"video": ["clip", 0]}, IMAGE, CLIP))


def test_linked_values_are_checked_when_they_are_there(server):
    number = {"number": node("PrimitiveInt", value=2000)}
    graph = generate("SVD-XT", SVD_SIZES | LINK | {"motion_bucket_id": ["number", 0]}, IMAGE, number)
    error = server.error(server.run(graph))
    assert error["node_id"] == "made" and "motion_bucket_id is 2000; 1 to 1023" in error["exception_message"]
    text = {"text": node("PrimitiveString", value=" ")}
    error = server.error(server.run(generate("LTX-2 (FP8)", SIZES, text, prompt=["text", 0])))
    assert error["node_id"] == "made" and "The prompt is empty" in error["exception_message"]


def test_a_batch_of_pictures_is_refused_before_a_model_is_opened(server, uncached):
    two = {"two": node("RepeatImageBatch", image=["picture", 0], amount=2)}
    before = opened(server)
    for model, sizes in (("SVD-XT", SVD_SIZES), ("LTX-2 (FP8)", SIZES)):
        error = server.error(server.run(generate(model, sizes | {"image": ["two", 0]}, IMAGE, two)))
        assert "it is a batch of 2" in error["exception_message"]
    assert opened(server) == before


def test_only_a_new_seed_opens_no_file_and_loads_no_text_encoder(server, uncached):
    model, nested = WAYS["ltx2 text"]
    for seed in (1, 1, 2, 3):
        run(server, generate(model, nested, prompt="Only the seed changes.", seed=seed))
        if seed == 1:
            before = opened(server), encoders(server)
    assert (opened(server), encoders(server)) == before


def test_the_index_says_which_mode_it_was(server):
    run(server, generate(*WAYS["svd"], IMAGE, seed=77))
    line = index(server)[-1]
    assert (line["mode"], line["seed"], line["prompt"]) == ("SVD-XT", 77, FOX)


def test_a_failure_and_the_progress_inside_are_shown_on_the_node(server, nim):
    nim.fault = "guardrail"
    with server.events() as events:
        error = server.error(server.run(generate("Cosmos Text2World", COSMOS, seed=12)))
        assert error["exception_message"].startswith("Cosmos at")
        data = [it["data"] for it in events if it["type"] == "executing"]
    assert {it.get("display_node", it["node"]) for it in data} <= {"made", "kept", None}


def test_a_room_that_could_not_load_says_so_and_the_others_work(tmp_path):
    with ComfyHost(tmp_path, env={"COSMOS_NIM_URL": "ftp://nowhere"}) as host:
        options = host.object_info()["Xavi9GenerateVideo"]["input"]["required"]["model"][1]["options"]
        assert {it["key"]: bool(sum(map(len, it["inputs"].values()))) for it in options} == {
            "Cosmos Text2World": False, "Cosmos Video2World": False, "LTX-2 (FP8)": True, "SVD-XT": True}
        assert "COSMOS_NIM_URL=ftp://nowhere is not usable" in errors_of(host, generate("Cosmos Text2World", {}))
        assert "(none chosen) is not in" in errors_of(host, generate("LTX-2 (FP8)", {}))
        health = {it["mode"]: it for it in host.http.get("/xavi9/health").json()["modes"]}
        for mode in ("cosmos_text2world", "cosmos_video2world"):
            assert health[mode]["state"] == "room failed" and "COSMOS_NIM_URL=ftp" in health[mode]["what"]
        assert health["svd"]["state"] == "files missing"


def test_what_one_input_is_called_and_told_is_the_same_in_every_mode(server):
    """The editor's translations know an input of a mode by its name alone."""
    told = {}
    for option in server.object_info()["Xavi9GenerateVideo"]["input"]["required"]["model"][1]["options"]:
        for inputs in option["inputs"].values():
            for name, (_, facts) in inputs.items():
                told.setdefault(name, set()).add(facts["tooltip"])
    assert [name for name, texts in told.items() if len(texts) > 1] == []
    assert {"image", "video", "checkpoint", "text_encoder", "decode_chunk"} <= set(told)
