"""The walk sees what is there, says so of what is not, and goes on; on a server of its own and on one elsewhere."""

import logging
import os
import subprocess
from itertools import count
from pathlib import Path

import pytest
import walk
from graphs import node
from walk import Needs, Running, Walk, told

COLORS = count(1)


def video() -> dict:
    """A graph of a short video, another one each time."""
    image = {"width": 64, "height": 48, "batch_size": 5, "color": next(COLORS)}
    save = {"video": ["source", 0], "filename_prefix": "walk/v", "format": "mp4-h264"}
    return {"image": node("EmptyImage", **image), "source": node("CreateVideo", images=["image", 0], fps=24.0),
            "save": node("Xavi9VideoSave", **save)}


@pytest.fixture(params=["ours", "elsewhere"])
def tour(server, request):
    if request.param == "ours":
        yield Walk(server)
    else:
        with Running(server.url + "/") as host:
            yield Walk(host)


def test_health_is_seen_and_what_is_not_ready_is_not(server, nim):
    tour = Walk(server)
    verdict, seen = told(Walk.ready, tour)
    assert verdict == "seen" and "cosmos_text2world ready" in seen and "svd " in seen
    nim.fault = "not_ready"
    verdict, seen = told(Walk.ready, tour)
    assert verdict == "not seen" and "Cosmos Text to World: starting" in seen


def test_a_video_that_is_gone_is_not_seen(tour, server):
    made = tour.run(video())
    path = server.base / "output" / made["subfolder"] / made["filename"]
    assert told(Walk.download, tour)[0] == "seen"
    assert "all 1 in GET" in told(Walk.history, tour)[1]
    content, times = path.read_bytes(), path.stat()
    path.unlink()
    assert told(Walk.history, tour) == ("not seen", "AssertionError: GET /xavi9/videos lacks some of them")
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    tour.made[made["id"]] = True
    assert told(Walk.history, tour)[0] == "not seen", "no editor's workflow is inside"


def test_bytes_that_are_not_the_files_are_not_seen(tour, monkeypatch):
    made = tour.run(video())
    content = Walk.content
    monkeypatch.setattr(Walk, "content", lambda *given: content(*given)[:-1])
    verdict, seen = told(Walk.download, tour)
    assert verdict == "not seen" and f"{made['bytes'] - 1} of {made['bytes']} bytes" in seen


def test_a_node_that_fails_is_told_with_its_words(tour):
    prompt = {"load": node("LoadVideo", file="clip.mp4"),
              "save": node("Xavi9VideoSave", video=["load", 0], format="mp4-h264", filename_prefix="../../v")}
    assert told(lambda it: it.run(prompt), tour)[0] == "not seen"


def test_a_model_that_stays_loaded_is_not_seen(tour, monkeypatch):
    monkeypatch.setattr(walk, "FREE_SECONDS", 0)
    states = {"modes": [{"mode": "svd", "state": "loaded"}], "machine": {"total": 5, "free": 3}}
    monkeypatch.setattr(Walk, "health", lambda _: states)
    assert told(Walk.memory, tour) == ("not seen", "AssertionError: loaded: svd")


def test_memory_that_does_not_come_back_is_not_seen(tour, monkeypatch):
    monkeypatch.setattr(Walk, "free", lambda _: 12_000_000)
    tour.empty = 10_000_000
    verdict, seen = told(Walk.memory, tour)
    assert verdict == "not seen" and "then 12, before loading 10" in seen


def test_the_nodes_that_a_server_elsewhere_lacks_are_told(server, monkeypatch):
    with Running(server.url) as host:
        tour = Walk(host)
        assert told(Walk.editor, tour)[0] == "seen"
        monkeypatch.setattr(walk, "NODES", [*walk.NODES, "Xavi9Other"])
        assert told(Walk.editor, tour)[0] == "not seen"


def test_one_that_cannot_be_seen_here_says_what_it_takes(tour, monkeypatch):
    monkeypatch.setattr(walk.lint, "docker", list)
    monkeypatch.setenv("PATH", "")
    verdict, seen = told(Walk.compose, tour)
    assert verdict == "needs an engine" and "no Docker engine answers" in seen
    monkeypatch.setattr(walk.lint, "docker", lambda: ["compose.yaml is wrong"])
    assert told(Walk.compose, tour) == ("not seen", "AssertionError: ['compose.yaml is wrong']")


@pytest.mark.parametrize(("failing", "status"), [(False, 0), (True, 1)])
def test_all_are_told_and_one_that_is_not_seen_makes_the_status(server, monkeypatch, caplog, failing, status):
    def bad(_):
        raise OSError("gone")

    def absent(_):
        raise Needs("a GPU", "not here")

    first = bad if failing else lambda _: "fine"
    monkeypatch.setattr(walk, "PLAN", {"one": first, "two": absent, "three": lambda _: "x"})
    monkeypatch.setattr("sys.argv", ["walk", server.url])
    caplog.set_level(logging.INFO)
    with pytest.raises(SystemExit) as ended:
        walk.main()
    lines = [it.getMessage() for it in caplog.records if it.name == "walk"]
    assert ended.value.code == status
    assert [it.split()[0] for it in lines[-3:]] == ["1", "2", "3"] and "needs a GPU" in lines[-2]
    assert ("not seen" in lines[-3]) == failing


def test_an_address_where_nobody_answers(monkeypatch):
    monkeypatch.setattr("sys.argv", ["walk", "http://127.0.0.1:9"])
    with pytest.raises(SystemExit, match=r"No ComfyUI with this pack answers at http://127\.0\.0\.1:9"):
        walk.main()


def test_the_program_can_be_run():
    program = Path(walk.__file__).with_suffix("")
    assert os.access(program, os.X_OK) and not subprocess.run(["bash", "-n", program]).returncode
