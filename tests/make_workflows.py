"""Makes the shipped workflows in the real editor: `.venv/bin/python tests/make_workflows.py [NAME ...]`.

Each description in workflow_files.py becomes workflows/NAME.json (the editor's format), workflows/api/NAME.json (what
POST /prompt takes) and workflows/NAME.jpg (the thumbnail, from a run against the loopback NIM, or of the graph), or
subgraphs/NAME.json.
"""

import io
import json
import logging
import sys
import tempfile
import tomllib
from pathlib import Path

import av
from comfy_host import ComfyHost
from editor import Editor
from nim.loopback import LoopbackNIM
from PIL import Image
from samples import put_samples
from setup_host import REPO
from tiny.models import put_models
from workflow_files import BLUEPRINTS, WORKFLOWS

FOLDER, SUBGRAPHS = REPO / "workflows", REPO / "subgraphs"
PICTURE = REPO / "assets" / "editor.jpg"
PICTURED = "cosmos_text2world"
log = logging.getLogger(__name__)


BUILD = """async ({id, nodes, links, version}) => {
    await app.loadGraphData({id, version: 0.4, nodes: [], links: [], groups: [], config: {}, extra: {}})
    const made = {}
    for (const [name, {type, title, pos, size, values, models}] of Object.entries(nodes)) {
        const node = made[name] = LiteGraph.createNode(type)
        app.graph.add(node)
        Object.assign(node, {pos, size}, title && {title})
        if (type.startsWith("Xavi9")) Object.assign(node.properties, {cnr_id: "xavi9videos", ver: version})
        if (models.length) node.properties.models = models
        // Fixed, so that a shipped workflow repeats its results.
        for (const [key, value] of Object.entries({...values, control_after_generate: "fixed"})) {
            const widget = node.widgets.find(it => it.name === key)
            if (widget) widget.value = value
            else if (key in values) throw Error(`${type} has no widget ${key}`)
        }
    }
    for (const [from, to] of links.map(ends => ends.map(end => end.split("."))))
        if (!made[from[0]].connect(from[1], made[to[0]], to[1])) throw Error(`no link ${from} ${to}`)
}"""

FOLD = """([asked, given, name]) => {
    const {subgraph, node} = app.graph.convertToSubgraph(new Set(app.graph.nodes))
    const part = type => subgraph.nodes.find(it => it.type === type)
    for (const [type, key] of asked) {
        // The editor brings a seed out by itself.
        if (subgraph.inputs.some(it => it.name === key)) continue
        const inner = part(type), slot = inner.inputs.find(it => it.name === key)
        subgraph.addInput(key, slot.type).connect(slot, inner)
    }
    for (const [type, key] of given) {
        const inner = part(type), slot = inner.outputs.find(it => it.name === key)
        subgraph.addOutput(key, slot.type).connect(slot, inner)
    }
    subgraph.name = node.title = name
    Object.assign(node, {pos: [0, 0], size: [440, 480]})
}"""

# Where the nodes are on the screen, in Nodes 2.0, with a margin.
AREA = """() => {
    const boxes = [...document.querySelectorAll("[data-node-id]")].map(it => it.getBoundingClientRect())
    const [x, y] = ["left", "top"].map(side => Math.min(...boxes.map(box => box[side])) - 8)
    const [right, bottom] = ["right", "bottom"].map(side => Math.max(...boxes.map(box => box[side])) + 8)
    return {x, y, width: right - x, height: bottom - y}
}"""


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(name: str, editor: Editor, version: str) -> None:
    """Writes the two files of a workflow."""
    workflow = WORKFLOWS[name]
    nodes = {key: vars(node) for key, node in workflow.nodes.items()}
    editor.page.evaluate(BUILD, {"id": workflow.id, "nodes": nodes, "links": workflow.links, "version": version})
    editor.settle()
    prompt, graph = editor.export()
    write_json(FOLDER / f"{name}.json", {**graph, "extra": workflow.extra()})
    write_json(FOLDER / "api" / f"{name}.json",
               {key: {part: value for part, value in node.items() if part != "_meta"} for key, node in prompt.items()})


def fold(name: str, editor: Editor, version: str) -> None:
    """Writes the file of a blueprint."""
    blueprint = BLUEPRINTS[name]
    nodes = {key: vars(node) for key, node in blueprint.nodes.items()}
    editor.page.evaluate(BUILD, {"id": blueprint.id, "nodes": nodes, "links": blueprint.links, "version": version})
    asked, given = ([(blueprint.nodes[part].type, key) for part, _, key in (it.partition(".") for it in names)]
                    for names in (blueprint.asked, blueprint.given))
    editor.page.evaluate(FOLD, [asked, given, name])
    editor.settle()
    _, graph = editor.export()
    graph["definitions"]["subgraphs"][0] |= {"category": "Xavi9Videos", "description": blueprint.description}
    SUBGRAPHS.mkdir(exist_ok=True)
    write_json(SUBGRAPHS / f"{name}.json", {**graph, "extra": {}})


def picture(name: str, editor: Editor) -> None:
    """Writes a workflow's thumbnail; of one workflow also the picture in the README.

    Cosmos: the first frame of a run in the editor. A local model, whose tiny weights make noise: the graph itself.
    """
    editor.load(FOLDER / f"{name}.json")
    if any(node.models for node in WORKFLOWS[name].nodes.values()):
        image = Image.open(io.BytesIO(editor.page.screenshot(clip=editor.page.evaluate(AREA)))).convert("RGB")
    else:
        editor.run()
        video = max((editor.host.base / "output").rglob("*.mp4"), key=lambda path: path.stat().st_mtime)
        with av.open(str(video)) as container:
            image = next(container.decode(video=0)).to_image()
    image.thumbnail((512, 512))
    image.save(FOLDER / f"{name}.jpg", quality=88, optimize=True)
    if name == PICTURED:
        PICTURE.parent.mkdir(exist_ok=True)
        editor.page.mouse.move(0, 0)
        editor.page.wait_for_timeout(4000)  # until the player hides its controls
        editor.screenshot(PICTURE, type="jpeg", quality=85)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    names = sys.argv[1:] or [*WORKFLOWS, *BLUEPRINTS]
    with (tempfile.TemporaryDirectory() as base, LoopbackNIM() as nim,
          ComfyHost(Path(base), env={"COSMOS_NIM_URL": nim.url}) as host):
        put_samples(host.base)
        put_models(host.base / "models")
        version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
        # The classic canvas writes the sizes as described, and Nodes 2.0 is what new installations show.
        with Editor(host, vue=False) as editor:
            for name in names:
                (make if name in WORKFLOWS else fold)(name, editor, version)
        with Editor(host, vue=True, height=720) as editor:
            for name in WORKFLOWS.keys() & names:
                picture(name, editor)
                log.info("%s", name)


if __name__ == "__main__":
    main()
