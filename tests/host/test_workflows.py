"""Every shipped workflow through POST /prompt, as people without a browser use it."""

import json
import re

import av
import pytest
from setup_host import REPO

FOLDER = REPO / "workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
# Width, height, frames and frames per second that each workflow asks for, by the family of the NIM.
COSMOS = ("cosmos_text2world", "cosmos_image2world", "cosmos_video2world")
SIZES = {"cosmos3": (1280, 720), "predict1": (1280, 704)}
ASKED = {(name, family): (*size, 121, 24) for name in COSMOS for family, size in SIZES.items()}
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
    assert (graph["version"], graph["extra"]) == (0.4, {})
    ours = [node for node in graph["nodes"] if node["type"].startswith("Xavi9")]
    assert {node["properties"]["cnr_id"] for node in ours} == {"xavi9videos"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", node["properties"]["ver"]) for node in ours)
    assert graph["nodes"][0]["type"] == "MarkdownNote"
    assert (FOLDER / f"{name}.jpg").stat().st_size <= 60_000


@pytest.mark.parametrize("name, family", ASKED)
def test_runs(server, nim, uncached, name, family):
    nim.family, nim.mode = family, "video2world" if MEDIA[name] else "text2world"
    prompt, graph = read(FOLDER / "api" / f"{name}.json"), read(FOLDER / f"{name}.json")
    entry = server.run(prompt, graph)
    assert server.error(entry) is None
    assert [(record.outcome, record.media_kind) for record in nim.requests] == [("replied", MEDIA[name])]
    [saved] = server.files(entry)
    with av.open(str(saved)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert (stream.width, stream.height, frames, stream.average_rate) == ASKED[name, family]
        kept = json.loads(container.metadata["prompt"])
    for node in kept.values():
        node.pop("is_changed", None)  # which the host itself adds
    assert kept == prompt
    with av.open(str(saved)) as container:
        assert json.loads(container.metadata["workflow"]) == graph
