"""Makes the shipped workflows in the real editor: `.venv/bin/python tests/make_workflows.py [NAME ...]`.

Each description below becomes workflows/NAME.json (the editor's format), workflows/api/NAME.json (what POST /prompt
takes) and workflows/NAME.jpg (the thumbnail, from a run against the loopback NIM).
"""

import json
import logging
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import av
from comfy_host import ComfyHost
from editor import Editor
from nim.loopback import LoopbackNIM
from samples import put_samples
from setup_host import REPO

FOLDER = REPO / "workflows"
PICTURE = REPO / "assets" / "editor.jpg"
PICTURED = "cosmos_text2world"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """values are by widget name; a widget that is not named keeps its default. Both sizes must fit both renderers."""

    type: str
    pos: tuple[int, int]
    size: tuple[int, int]
    values: dict = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class Workflow:
    """id is a random uuid, for ever. Nodes are numbered from 1 in their order.

    A link is ("node.output", "node.input").
    """

    id: str
    nodes: dict[str, Node]
    links: list[tuple[str, str]]


# Nothing in backticks: Nodes 2.0 shows code in a note blue on blue.
START = """\
**1. Start Cosmos.** It is a NIM, a container of its own: **nvcr.io/nim/nvidia/cosmos3**. This node looks for it at \
**http://localhost:8000**, or at the address in the environment variable **{setting}**. The first start downloads \
the model and may take more than half an hour. {older}
"""
FIND = """\
**3. Find the video** in ComfyUI's folder **output/xavi9videos**. It is the NIM's own file, not re-encoded, and \
carries this workflow: drop it on the editor to open it again.
"""
T2W_START = START.format(setting="COSMOS_NIM_URL",
                         older="The older Predict1 NIM works too, on x86_64 machines only.")
V2W_START = START.format(setting="COSMOS_VIDEO2WORLD_URL or COSMOS_NIM_URL",
                         older="The older Predict1 NIM works too, on x86_64 machines only: its video2world container.")

COSMOS_NOTE = f"""\
## Text to video with NVIDIA Cosmos

{T2W_START}
**2. Describe the scene and press Run.** Cosmos knows the physical world: say what moves, on what ground, in what \
light, and where the camera is.

- *frames* / *fps* is the length: 121 / 24 is 5 seconds. *resolution* and *aspect_ratio* give the size.
- More *steps* is finer and slower. The same *seed* gives the same video.

{FIND}"""

IMAGE_NOTE = f"""\
## A picture set in motion with NVIDIA Cosmos

{V2W_START}
**2. Choose your picture** in Load Image, **say what happens in it** and press Run. The picture becomes the first frame.

- It is cropped to the shape of *aspect_ratio*, from both sides alike, never squeezed.
- Say what moves and how, and what the camera does; what the picture shows already needs few words.
- *frames* / *fps* is the length: 121 / 24 is 5 seconds.

{FIND}"""

CLIP_NOTE = f"""\
## On from a clip with NVIDIA Cosmos

{V2W_START}
**2. Choose your clip** in Load Video, **say how it goes on** and press Run.

- The clip's beginning counts: the new video starts from its first pictures. Put a *Video Slice* node between to \
start somewhere else.
- It is fitted into the new video's size, on black where the shapes differ, at its frame rate and without sound.
- *frames* / *fps* is the length: 121 / 24 is 5 seconds.

{FIND}"""

WORKFLOWS = {
    "cosmos_text2world": Workflow(
        id="2448b1c3-20a7-4fa6-bc9c-9ca9cd4a3456",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 310), {"text": COSMOS_NOTE}, title="Start here"),
            "cosmos": Node("Xavi9CosmosText2World", (500, 0), (500, 600), {
                "prompt": "Low drone shot over desert dunes at sunrise. A six-wheeled rover climbs a steep crest, its "
                          "wheels sinking and pushing small avalanches of sand downhill. The camera drifts sideways, "
                          "wind lifts dust off the ridges, long shadows, warm rim light, realistic physics."}),
            "save": Node("Xavi9VideoSave", (1060, 0), (480, 520)),
        },
        links=[("cosmos.video", "save.video")]),
    "cosmos_image2world": Workflow(
        id="2b742e94-5c6c-4d8a-8946-f57881c9387a",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 340), {"text": IMAGE_NOTE}, title="Start here"),
            "image": Node("LoadImage", (0, 600), (440, 400), {"image": "example.png"}),
            "cosmos": Node("Xavi9CosmosVideo2World", (500, 0), (500, 600), {
                "prompt": "The scene comes alive: everything in it that can move begins to move, gently and at its "
                          "natural pace. The camera moves slowly forward, the light stays the same, realistic physics."
            }),
            "save": Node("Xavi9VideoSave", (1060, 0), (480, 520)),
        },
        links=[("image.IMAGE", "cosmos.image"), ("cosmos.video", "save.video")]),
    "cosmos_video2world": Workflow(
        id="903cc1db-efeb-4e49-9acc-9171242d0998",
        nodes={
            "note": Node("MarkdownNote", (0, 0), (440, 340), {"text": CLIP_NOTE}, title="Start here"),
            "clip": Node("LoadVideo", (0, 600), (440, 400), {"file": "clip.mp4"}),
            "cosmos": Node("Xavi9CosmosVideo2World", (500, 0), (500, 600), {
                "prompt": "The shot goes on without a cut: the same place and the same light, every movement continues "
                          "at its pace. The camera keeps its path, realistic physics."}),
            "save": Node("Xavi9VideoSave", (1060, 0), (480, 520)),
        },
        links=[("clip.VIDEO", "cosmos.video"), ("cosmos.video", "save.video")]),
}

BUILD = """async ({id, nodes, links, version}) => {
    await app.loadGraphData({id, version: 0.4, nodes: [], links: [], groups: [], config: {}, extra: {}})
    const made = {}
    for (const [name, {type, title, pos, size, values}] of Object.entries(nodes)) {
        const node = made[name] = LiteGraph.createNode(type)
        app.graph.add(node)
        Object.assign(node, {pos, size}, title && {title})
        if (type.startsWith("Xavi9")) Object.assign(node.properties, {cnr_id: "xavi9videos", ver: version})
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


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make(name: str, editor: Editor, version: str) -> None:
    """Writes the two files of a workflow."""
    workflow = WORKFLOWS[name]
    nodes = {key: vars(node) for key, node in workflow.nodes.items()}
    editor.page.evaluate(BUILD, {"id": workflow.id, "nodes": nodes, "links": workflow.links, "version": version})
    editor.settle()
    prompt, graph = editor.export()
    # Without a stored view the editor shows the whole graph, whatever the size of its window.
    write_json(FOLDER / f"{name}.json", {**graph, "extra": {}})
    write_json(FOLDER / "api" / f"{name}.json",
               {key: {part: value for part, value in node.items() if part != "_meta"} for key, node in prompt.items()})


def picture(name: str, editor: Editor) -> None:
    """Runs a workflow in the editor and writes its thumbnail; of one of them also the picture in the README."""
    editor.load(FOLDER / f"{name}.json")
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
    names = sys.argv[1:] or WORKFLOWS
    with (tempfile.TemporaryDirectory() as base, LoopbackNIM() as nim,
          ComfyHost(Path(base), env={"COSMOS_NIM_URL": nim.url}) as host):
        put_samples(host.base)
        version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
        # The classic canvas writes the sizes as described, and Nodes 2.0 is what new installations show.
        with Editor(host, vue=False) as editor:
            for name in names:
                make(name, editor, version)
        with Editor(host, vue=True, height=720) as editor:
            for name in names:
                picture(name, editor)
                log.info("%s", name)


if __name__ == "__main__":
    main()
