"""The index of our own videos: where a video came from, and lines that stay whole whoever writes."""

import json
import math
import subprocess
import sys

import pytest
from xavi9videos.nodes import index

APPENDS = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("index", sys.argv[1])
index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(index)
for _ in range(200):
    index.add(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), number=int(sys.argv[4]), prompt="\\u4e2d" * 5000)
"""
NOTHING = {"mode": None, "seed": None, "prompt": None}


def cosmos(**inputs):
    return {"class_type": "Xavi9CosmosText2World", "inputs": {"prompt": "a fox", "seed": 7, **inputs}}


def node(kind="Other", **inputs):
    return {"class_type": kind, "inputs": inputs}


def save(**inputs):
    return node("Xavi9VideoSave", filename_prefix="x", **inputs)


@pytest.mark.parametrize("links", range(4))
def test_the_origin_is_found_through_any_number_of_nodes(links):
    prompt = {"0": cosmos(), "save": save(video=[str(links), 0])}
    prompt |= {str(it): node(video=[str(it - 1), 0], fps=24.0) for it in range(1, links + 1)}
    assert index.origin(prompt, "save") == {"mode": "Xavi9CosmosText2World", "seed": 7, "prompt": "a fox"}


@pytest.mark.parametrize("order", [("audio", "video"), ("video", "audio")])
def test_the_nearest_of_our_nodes_is_the_origin(order):
    sources = {"audio": ["between", 0], "video": ["near", 0]}
    prompt = {
        "far": cosmos(seed=1, prompt="far"),
        "near": cosmos(seed=2, prompt="near", negative_prompt=["far", 1]),
        "save": save(**{it: sources[it] for it in order}),
        "between": node(video=["far", 0]),
    }
    assert index.origin(prompt, "save") == {"mode": "Xavi9CosmosText2World", "seed": 2, "prompt": "near"}


def test_nodes_that_are_not_ours_and_not_upstream_do_not_count():
    prompt = {
        "1": node("KSampler", seed=5, prompt="theirs"),
        "2": cosmos(),
        "save": save(video=["1", 0]),
        "after": node(video=["save", 0]),
    }
    assert index.origin(prompt, "save") == NOTHING


def test_a_linked_prompt_is_unknown_and_a_linked_seed_leaves_the_mode():
    prompt = {"0": node("PrimitiveString", value="text"), "1": cosmos(prompt=["0", 0]), "save": save(video=["1", 0])}
    assert index.origin(prompt, "save") == {"mode": "Xavi9CosmosText2World", "seed": 7, "prompt": None}
    prompt["1"] = cosmos(seed=["0", 0])
    assert index.origin(prompt, "save") == {"mode": "Xavi9CosmosText2World", "seed": None, "prompt": "a fox"}


def test_a_linked_prompt_is_not_replaced_by_that_of_another_video():
    prompt = {
        "0": node("PrimitiveString", value="text"),
        "far": cosmos(prompt="another video's"),
        "1": cosmos(prompt=["0", 0], video=["far", 0]),
        "save": save(video=["1", 0]),
    }
    assert index.origin(prompt, "save")["prompt"] is None


def test_seed_and_prompt_may_stand_on_two_of_our_nodes():
    prompt = {
        "text": node("Xavi9LTX2TextEncode", prompt="a fox"),
        "sampler": node("Xavi9LTX2Sampler", conditioning=["text", 0], seed=7),
        "decode": node("Xavi9LTX2Decode", latents=["sampler", 0]),
        "save": save(video=["decode", 0]),
    }
    assert index.origin(prompt, "save") == {"mode": "Xavi9LTX2Sampler", "seed": 7, "prompt": "a fox"}


@pytest.mark.parametrize("seed", [0, 4294967295, 2**63])
def test_every_seed_counts(seed):
    assert index.origin({"1": cosmos(seed=seed), "save": save(video=["1", 0])}, "save")["seed"] == seed


@pytest.mark.parametrize(
    "odd", [[1, 0], ["9", 0], [["1"], 0], [{"a": 1}, 0], [None, 0], [1.5, 2.5], [], ["1"], {"a": 1}]
)
def test_what_is_no_link_to_a_node_is_passed_over(odd):
    prompt = {"1": cosmos(), "save": save(odd=odd, video=["1", 0])}
    assert index.origin(prompt, "save")["seed"] == 7


class Patient(dict):
    """A prompt that may be asked for nodes 200 times."""

    asked = 0

    def get(self, key, default=None):
        self.asked += 1
        assert self.asked <= 200
        return super().get(key, default)

    def __getitem__(self, key):
        return self.get(key)


def test_a_cycle_ends():
    prompt = {"1": node(video=["2", 0]), "2": node(video=["1", 0]), "save": save(video=["1", 0])}
    assert index.origin(Patient(prompt), "save") == NOTHING


def test_an_unknown_node_has_no_origin():
    assert index.origin({}, "1.0.0.2") == NOTHING


def test_a_diamond_of_many_layers_is_walked_once():
    prompt = {"0": cosmos(), "save": save(video=["60", 0])}
    prompt |= {str(it): node(a=[str(it - 1), 0], b=[str(it - 1), 1]) for it in range(1, 61)}
    assert index.origin(Patient(prompt), "save")["seed"] == 7


@pytest.mark.parametrize(
    "text", ["zorro \u00e9\u4e2d\U0001f98a", 'quotes " and \\', "two\nlines\r\u2028\x00", "half \ud83d"]
)
def test_a_line_holds_any_text_and_the_files_own_facts(tmp_path, text):
    video = tmp_path / "v\u00eddeo_00001_.mp4"
    video.write_bytes(b"12345")
    for _ in range(2):
        index.add(tmp_path / "videos.jsonl", video, seconds=1.5, prompt=text)
    first, second = (tmp_path / "videos.jsonl").read_bytes().splitlines()
    expected = {"path": str(video), "bytes": 5, "mtime": video.stat().st_mtime, "seconds": 1.5, "prompt": text}
    assert json.loads(first) == json.loads(second) == expected


def test_the_index_is_nobody_elses_business(tmp_path):
    (tmp_path / "v").touch()
    index.add(tmp_path / "videos.jsonl", tmp_path / "v")
    assert (tmp_path / "videos.jsonl").stat().st_mode & 0o077 == 0


def test_processes_that_append_at_once_leave_whole_lines(tmp_path):
    file, video = tmp_path / "videos.jsonl", tmp_path / "v"
    video.touch()
    command = [sys.executable, "-c", APPENDS, index.__file__, file, video]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    assert [it.wait(60) for it in workers] == [0] * 4
    lines = [json.loads(it) for it in file.read_text(encoding="utf-8").splitlines()]
    assert sorted(it["number"] for it in lines) == [number for number in range(4) for _ in range(200)]
    assert all(it["prompt"] == "\u4e2d" * 5000 for it in lines)


def test_what_is_no_seed_and_no_prompt_is_left_out():
    prompt = {"make": {"class_type": "Xavi9CosmosText2World", "inputs": {"seed": math.nan, "prompt": {"a": [1]}}},
              "save": {"class_type": "Xavi9VideoSave", "inputs": {"video": ["make", 0], "seed": 3, "prompt": "mine"}}}
    assert index.origin(prompt, "save") == {"mode": "Xavi9CosmosText2World", "seed": None, "prompt": None}


def test_a_line_holds_nothing_that_a_browser_cannot_read(tmp_path):
    file, video = tmp_path / "videos.jsonl", tmp_path / "v"
    video.write_bytes(b"video")
    index.add(file, video, seconds=math.nan, poster="x")
    video.with_suffix(".jpg").touch()
    [line] = index.read(file)
    assert line["seconds"] is None
    assert index.remove(file, lambda lines: lines) == ([line], [])
    assert video.with_suffix(".jpg").exists()
