"""Every shipped workflow in the real editor, in both of its node renderers."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from editor import BLANK, SAVED, Editor
from PIL import Image
from setup_host import REPO
from tiny.models import lowered

WORKFLOWS = sorted((REPO / "workflows").glob("*.json"))
NODES = sorted(path.stem for path in (REPO / "web" / "docs").glob("*.md"))
SIZES = dict.fromkeys(("cosmos_text2world", "cosmos_image2world", "cosmos_video2world"), (1280, 720))
SIZES |= {"ltx2_text_to_video": (256, 160), "ltx2_image_to_video": (256, 160), "ltx2_two_stage_1080p": (512, 270)}
SIZES |= {"ltx23_keyframes": (256, 160), "ltx23_sound_to_video": (512, 270), "ltx23_extend_video": (960, 540),
          "ltx23_dev_guidance": (256, 160)}
SIZES |= {"svd_xt_image_to_video": (256, 144), "generate_video": (256, 160)}
UNKNOWN = "app.graph.nodes.map(it => it.type).filter(it => !(it in LiteGraph.registered_node_types))"
SET = """changes => {
    for (const [id, values] of Object.entries(changes))
        for (const [key, value] of Object.entries(values))
            app.graph.getNodeById(id).widgets.find(it => it.name === key).value = value
}"""
# Notes that scroll, on the classic canvas; in Nodes 2.0 a note grows with its text.
CUT_OFF = """[...document.querySelectorAll(".comfy-markdown .ProseMirror")]
    .filter(it => it.scrollHeight > it.parentElement.clientHeight + 1).map(it => it.innerText.slice(0, 40))"""
# The classic canvas lays the video over the graph, not into its node.
VIDEO = f"() => {{ const video = {SAVED}" + """
    const box = video.getBoundingClientRect(), {scale, offset} = app.canvas.ds
    const canvas = app.canvas.canvas.getBoundingClientRect()
    return [(box.x - canvas.x) / scale - offset[0], (box.y - canvas.y) / scale - offset[1],
            box.width / scale, box.height / scale]
}"""


# What the renderer has no part in is looked at in one of them.
ONCE = pytest.mark.parametrize("open_editor", [True], ids=["nodes2"], indirect=True)
# A saver of each width of graph, whose video the classic canvas lays over it.
CLASSIC = [it for it in WORKFLOWS if it.stem in ("cosmos_text2world", "ltx2_two_stage_1080p", "ltx23_extend_video")]


@pytest.fixture(scope="module", params=[True, False], ids=["nodes2", "classic"])
def open_editor(server, request):
    with Editor(server, vue=request.param) as opened:
        yield opened


@pytest.fixture
def editor(open_editor):
    yield open_editor
    # One that fails must not fail the next: its errors, and a dialog that it left open.
    open_editor.errors.clear()
    open_editor.page.keyboard.press("Escape")


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return request.param


def overlaps(boxes: dict) -> list[tuple]:
    return [(a, b) for (a, (ax, ay, aw, ah)), (b, (bx, by, bw, bh)) in combinations(boxes.items(), 2)
            if ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah]


def essence(graph: dict) -> tuple:
    """What a person sees of a graph in the editor's format, and its links."""
    # ComfyUI's Load Audio has "" or None for its button.
    nodes = {node["id"]: (node["type"], node.get("title"), list(node["pos"]),
                          [None if it == "" else it for it in node["widgets_values"]],
                          node["properties"].get("models")) for node in graph["nodes"]}
    return nodes, sorted(graph["links"])


def shipped_api(workflow: Path) -> dict:
    return json.loads((workflow.parent / "api" / workflow.name).read_text("utf-8"))


def plain(prompt: dict) -> dict:
    """A graph in API format without _meta, the titles that the editor adds."""
    return {key: {part: value for part, value in node.items() if part != "_meta"} for key, node in prompt.items()}


def lower(editor: Editor) -> None:
    """Sets the widgets of local models in the open graph to what two cores can run."""
    prompt, _ = editor.export()
    editor.page.evaluate(SET, {key: {name: value for name, value in node["inputs"].items()
                                     if value != prompt[key]["inputs"][name]}
                               for key, node in lowered(prompt).items()})


def test_opens_whole(editor, workflow):
    editor.load(workflow)
    assert editor.page.evaluate(UNKNOWN) == []
    assert editor.page.get_by_test_id("error-overlay").count() == 0
    assert overlaps(editor.boxes()) == []
    assert editor.page.evaluate(CUT_OFF) == []
    prompt, graph = editor.export()
    assert plain(prompt) == shipped_api(workflow)
    assert essence(graph) == essence(json.loads(workflow.read_text("utf-8")))
    assert editor.errors == []


def runs_and_its_video_reopens_it(editor, workflow, server, nim) -> None:
    editor.load(workflow)
    lower(editor)
    asked, drawn = editor.export()
    assert plain(asked) == lowered(shipped_api(workflow))
    video = editor.run()
    assert (video["width"], video["height"]) == SIZES[workflow.stem]
    assert [record.outcome for record in nim.requests] == ["replied"] * workflow.stem.startswith("cosmos")
    boxes = editor.boxes()
    assert overlaps(boxes) == []
    if not editor.vue:
        left, top, width, height = editor.page.evaluate(VIDEO)
        x, y, w, h = max(boxes.values())  # the saver stands at the right
        assert x <= left and y <= top and left + width <= x + w and top + height <= y + h
    saved = max((server.base / "output").rglob("*.mp4"), key=lambda path: path.stat().st_mtime)
    editor.page.evaluate(BLANK)
    editor.drop(saved)
    prompt, graph = editor.export()
    assert plain(prompt) == plain(asked)
    assert essence(graph) == essence(drawn)
    assert editor.errors == []


# Two tests, because pytest opens an editor for each row of parameters that fixtures share.
@ONCE
def test_runs_and_its_video_reopens_it(editor, workflow, server, nim, uncached):
    runs_and_its_video_reopens_it(editor, workflow, server, nim)


@pytest.mark.parametrize("open_editor", [False], ids=["classic"], indirect=True)
@pytest.mark.parametrize("workflow", CLASSIC, ids=lambda path: path.stem, indirect=True)
def test_runs_and_its_video_reopens_it_on_the_classic_canvas(editor, workflow, server, nim, uncached):
    runs_and_its_video_reopens_it(editor, workflow, server, nim)


@pytest.mark.parametrize("key", ["auto", "mp4-h264"])
def test_a_saver_added_by_hand_has_room_for_its_video(editor, key):
    editor.page.evaluate(BLANK)
    width, height = editor.page.evaluate("""async key => {
        const node = LiteGraph.createNode("Xavi9VideoSave")
        app.graph.add(node)
        node.widgets.find(it => it.name === "format").value = key
        await new Promise(done => setTimeout(done, 300))
        return [...node.size]
    }""", key)
    assert width >= 400 and height >= 400


@ONCE
def test_template_browser_shows_and_opens_it(editor, workflow):
    page = editor.page
    page.evaluate(BLANK)
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("xavi9videos", exact=True).click()
    card = page.get_by_test_id(f"template-workflow-{workflow.stem}")
    card.scroll_into_view_if_needed()
    # Its size tells the thumbnail from the picture that stands in for a missing one.
    page.wait_for_function("([card, [width, height]]) => [...card.querySelectorAll('img')].some(it =>"
                           " it.naturalWidth === width && it.naturalHeight === height)",
                           arg=[card.element_handle(), Image.open(workflow.with_suffix(".jpg")).size])
    card.click()
    page.wait_for_function("app.graph.nodes.length > 0")
    editor.settle()
    assert plain(editor.export()[0]) == shipped_api(workflow)
    assert editor.errors == []


def test_every_node_has_a_help_page(server):
    assert NODES == sorted(name for name in server.object_info() if name.startswith("Xavi9"))


@ONCE
@pytest.mark.parametrize("node", NODES)
def test_help_page(editor, node):
    page = editor.page
    page.evaluate(BLANK)
    page.evaluate("""type => {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        app.canvas.selectNode(node)
    }""", node)
    page.get_by_test_id("info-button").click()
    text = (REPO / "web" / "docs" / f"{node}.md").read_text("utf-8")
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    help_text = page.locator(".node-help-content").first
    for heading in headings:
        help_text.get_by_role("heading", name=heading, exact=True).first.wait_for()
    assert editor.errors == []


@ONCE
def test_failure_shows_the_remedy(editor, nim, uncached):
    nim.fault = "guardrail"
    editor.load(REPO / "workflows" / "cosmos_text2world.json")
    page = editor.page
    page.get_by_test_id("queue-button").click()
    overlay = page.get_by_test_id("error-overlay")
    overlay.wait_for()
    page.locator(".p-toast-close-button").click()  # our own toast, which lies on it
    page.get_by_text(re.compile("View details|See Errors")).first.click()  # the latter up to ComfyUI 0.27
    page.get_by_text("Reword the prompt").first.wait_for()
