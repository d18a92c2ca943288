"""Every format of Video Save in the real editor: what it shows of a saved file, and what it gets back out of one."""

from pathlib import Path

import pytest
from editor import BLANK, Editor

SIZE = [160, 96]
# format: what the saver shows, in which folder, and the file that brings the workflow back.
FORMATS = {
    "mp4-h264": ("video", "output", "*.mp4"), "mp4-h265": ("video", "temp", "*.mp4"),
    "mp4-av1": ("video", "output", "*.mp4"), "webm-vp9": ("video", "output", "*.webm"),
    "webm-av1": ("video", "output", "*.webm"), "mov-prores": ("video", "temp", "*.mov"),
    "mkv-ffv1": ("video", "temp", None), "webp": ("image", "output", "*.webp"), "gif": ("image", "output", None),
    "png": ("video", "temp", "*/00001.png"),
}  # fmt: skip
# In the node itself: a thumbnail of the finished job stands elsewhere. The classic canvas has widgets, or draws itself.
SHOWN = """([kind, folder, width, vue]) => {
    const node = app.graph.getNodeById(3), here = it => it.src.includes(`type=${folder}`)
    const places = vue ? [document.querySelector("[data-node-id='3']")] : node.widgets.map(it => it.element)
    const found = tag => places.flatMap(it => [...it?.querySelectorAll?.(tag) ?? []]).filter(here)
    return kind === "video"
        ? found("video").some(it => it.readyState === 4 && it.videoWidth === width)
        : [...found("img"), ...(vue ? [] : node.imgs || []).filter(here)].some(it => it.naturalWidth === width)
}"""


@pytest.fixture(scope="module", params=[True, False], ids=["nodes2", "classic"])
def editor(server, request):
    with Editor(server, vue=request.param) as opened:
        yield opened


def graph(format: str, prefix: str) -> dict:
    image = {"width": SIZE[0], "height": SIZE[1], "batch_size": 9, "color": 0x3377AA}
    return {"1": {"class_type": "EmptyImage", "inputs": image},
            "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 24}},
            "3": {"class_type": "Xavi9VideoSave",
                  "inputs": {"video": ["2", 0], "filename_prefix": prefix, "format": format, "save_to": "output"}}}


@pytest.mark.parametrize("format", FORMATS)
def test_is_shown_and_gives_its_workflow_back(editor, server, format):
    kind, folder, file = FORMATS[format]
    prefix = f"browser/{'vue' if editor.vue else 'classic'}-{format}/v"
    editor.page.evaluate(BLANK)
    editor.page.evaluate("graph => app.loadApiJson(graph, 'formats')", graph(format, prefix))
    editor.settle()
    asked, _ = editor.export()
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function(SHOWN, arg=[kind, folder, SIZE[0], editor.vue])
    if file:
        [saved] = (server.base / "output" / Path(prefix).parent).rglob(file)
        editor.page.evaluate(BLANK)
        editor.drop(saved)
        assert editor.export()[0] == asked
    assert editor.errors == []
