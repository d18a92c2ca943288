"""Model Health in the real editor: its report can be read in the node, in both renderers."""

import pytest
from editor import BLANK, Editor

REPORT = """([vue]) => {
    const node = app.graph._nodes.find(it => it.comfyClass === "Xavi9ModelHealth")
    const report = node.widgets.find(it => it.name === "health").element
    return report.isConnected && report.offsetHeight >= 150 && report.textContent.includes("GB free")
}"""


@pytest.fixture(scope="module", params=[True, False], ids=["nodes2", "classic"])
def editor(server, request):
    with Editor(server, vue=request.param) as opened:
        yield opened


def test_the_report_stands_in_the_node(editor, server):
    editor.page.evaluate(BLANK)
    editor.page.evaluate("graph => app.loadApiJson(graph, 'health')", {
        "1": {"class_type": "Xavi9ModelHealth", "inputs": {}}})  # fmt: skip
    editor.settle()
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function(REPORT, arg=[editor.vue])
    text = editor.page.locator("pre[role=status]").first.inner_text()
    assert "Cosmos Text to World: ready" in text and "LTX-2: " in text
    [node] = editor.export()[0].values()
    assert node["inputs"] == {}, "the report is not a part of the workflow"
    assert editor.errors == []
