"""Generate Video in the real editor: choosing a model shows its inputs only, and its workflow is a plain form."""

import json
import re

import pytest
from editor import BLANK, Editor
from setup_host import REPO

WORKFLOW = REPO / "workflows" / "generate_video.json"
COSMOS = ["negative_prompt", "aspect_ratio", "resolution", "frames", "fps", "steps", "guidance_scale"]
SIZES = ["width", "height", "frames", "fps"]
# What each choice shows beside prompt, seed and itself: widgets, then sockets without one.
SHOWN = {
    "Cosmos Text2World": ([*COSMOS, "prompt_upsampling"], []),
    "Cosmos Video2World": (COSMOS, ["image", "video"]),
    "LTX-2 (FP8)": (["negative_prompt", "checkpoint", "text_encoder", *SIZES, "schedule", "steps", "guidance_scale",
                     "image_strength"], ["image"]),
    "SVD-XT": (["checkpoint", *SIZES, "steps", "motion_bucket_id", "noise_aug_strength", "min_guidance", "max_guidance",
                "decode_chunk"], ["image"]),
}  # fmt: skip
ADD = """() => {
    const node = LiteGraph.createNode("Xavi9GenerateVideo")
    app.graph.add(node)
    node.widgets.find(it => it.name === "prompt").value = "A fox."
    node.widgets.find(it => it.name === "seed").value = 77
}"""
NODE = """() => {
    const node = app.graph.nodes[0], widgets = node.widgets.map(it => it.name)
    return {widgets, sockets: node.inputs.map(it => it.name).filter(it => !widgets.includes(it)),
            values: Object.fromEntries(node.widgets.map(it => [it.name, it.value]))}
}"""
FORM = ["prompt", "model", "width", "height", "frames", "fps", "seed"]
# Sets what a blueprint asks for, with a picture where it takes one, and saves what it makes.
USE = """() => {
    const [made] = app.graph.nodes
    for (const [name, value] of Object.entries({prompt: "A fox.", width: 96, height: 64, frames: 9}))
        made.widgets.find(it => it.name === name).value = value
    const save = LiteGraph.createNode("Xavi9VideoSave")
    app.graph.add(save)
    made.connect("video", save, "video")
    if (!made.inputs.some(it => it.name === "first_image")) return
    const image = LiteGraph.createNode("LoadImage")
    app.graph.add(image)
    image.widgets.find(it => it.name === "image").value = "example.png"
    image.connect("IMAGE", made, "first_image")
}"""
# Of a node in the classic canvas, drawn, there is nothing else to ask than the node itself.
LABELS = "[...document.querySelectorAll('[data-node-id]')].map(it => it.innerText).join('\\n')"
CHOOSE = "choice => { app.graph.nodes[0].widgets.find(it => it.name === 'model').value = choice }"


@pytest.fixture(scope="module", params=[(True, "en"), (False, "en")], ids=["nodes2", "classic"])
def editor(server, request):
    vue, locale = request.param
    with Editor(server, vue=vue, locale=locale) as opened:
        yield opened


def choose(editor: Editor, choice: str) -> None:
    """As a person does it in Nodes 2.0; the classic canvas is a picture."""
    if editor.vue:
        editor.page.locator("[data-node-id] [role=combobox]").first.click()
        editor.page.get_by_role("option", name=choice, exact=True).click()
    else:
        editor.page.evaluate(CHOOSE, choice)
    editor.settle()


def test_choosing_a_model_shows_its_inputs_only_and_keeps_prompt_and_seed(editor):
    editor.page.evaluate(BLANK)
    editor.page.evaluate(ADD)
    editor.settle()
    for choice in (*reversed(SHOWN), "SVD-XT"):
        choose(editor, choice)
        widgets, sockets = SHOWN[choice]
        found = editor.page.evaluate(NODE)
        nested = [f"model.{name}" for name in widgets]
        assert found["widgets"] == ["prompt", "seed", "control_after_generate", "model", *nested]
        assert found["sockets"] == [f"model.{name}" for name in sockets]
        assert (found["values"]["prompt"], found["values"]["seed"]) == ("A fox.", 77)
        if editor.vue:
            seen = editor.page.evaluate(LABELS)
            others = {name for both in SHOWN.values() for side in both for name in side} - {*widgets, *sockets}
            others -= {"video"}  # the output too
            assert all(re.search(rf"^{name}$", seen, re.M) for name in (*widgets, *sockets))
            assert not any(re.search(rf"^{name}$", seen, re.M) for name in others)
    assert editor.errors == []


def test_what_was_set_survives_saving_and_opening(editor):
    editor.page.evaluate(BLANK)
    editor.page.evaluate(ADD)
    choose(editor, "LTX-2 (FP8)")
    editor.page.evaluate("app.graph.nodes[0].widgets.find(it => it.name === 'model.width').value = 640")
    prompt, graph = editor.export()
    editor.page.evaluate(BLANK)
    editor.page.evaluate("graph => app.loadGraphData(graph)", graph)
    editor.settle()
    assert editor.export()[0] == prompt
    assert next(iter(prompt.values()))["inputs"]["model.width"] == 640


def test_its_workflow_is_a_form_that_runs(editor, server, uncached):
    editor.load(WORKFLOW, form=True)
    page = editor.page
    seen = [it.inner_text() for it in page.get_by_text(re.compile(r"^\w+$")).filter(visible=True).all()]
    assert [it for it in seen if it in FORM] == FORM
    assert page.locator("[data-node-id]").filter(visible=True).count() == 0
    for label, value in (("width", 128), ("height", 96), ("frames", 9)):
        page.evaluate("([name, value]) => app.graph.nodes.find(it => it.comfyClass === 'Xavi9GenerateVideo')"
                      ".widgets.find(it => it.name === name).value = value", [f"model.{label}", value])
    page.get_by_role("button", name="Run").last.click()
    page.wait_for_function("[...document.querySelectorAll('video')].some(it => it.videoWidth === 128)")
    assert editor.errors == []


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPO / "subgraphs").glob("*.json")))
def test_a_blueprint_becomes_a_node_that_runs(editor, server, name):
    page = editor.page
    listed = server.http.get("/global_subgraphs").json()
    [key] = [key for key, it in listed.items() if it["name"] == name]
    data = json.loads(server.http.get(f"/global_subgraphs/{key}").json()["data"])
    assert data["definitions"]["subgraphs"][0]["name"] == data["nodes"][0]["title"] == name
    page.evaluate("graph => app.loadGraphData(graph)", data)
    editor.settle()
    widgets = page.evaluate("app.graph.nodes[0].widgets.map(it => it.name)")
    assert {"prompt", "seed", "width", "height", "frames", "fps", "checkpoint", "text_encoder"} <= set(widgets)
    assert ("image_strength" in widgets) == ("Image" in name)
    page.evaluate(USE)
    editor.settle()
    prompt, _ = editor.export()
    encode = next(it for it in prompt.values() if it["class_type"] == "Xavi9LTX2TextEncode")
    assert encode["inputs"]["prompt"] == "A fox."
    sampler = next(it for it in prompt.values() if it["class_type"] == "Xavi9LTX2Sampler")
    assert ("first_image" in sampler["inputs"]) == ("Image" in name)
    assert server.error(server.run(prompt)) is None
    assert editor.errors == []


@pytest.mark.parametrize("editor", [(True, "es")], indirect=True, ids=["spanish"])
def test_the_spanish_editor_speaks_spanish_in_every_mode(editor):
    editor.page.evaluate(BLANK)
    editor.page.evaluate(ADD)
    editor.settle()
    for choice, words in (("Cosmos Video2World", ("relación de aspecto",)), ("SVD-XT", ("guía máxima",))):
        choose(editor, choice)
        seen = editor.page.evaluate(LABELS)
        assert "Generar video" in seen and all(word in seen for word in words)
        assert [name for both in SHOWN.values() for name in both[0] if "_" in name and name in seen] == []
