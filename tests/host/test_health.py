"""Health: what each mode says of itself as files, a NIM and a room come and go; asked at once, and soon answered."""

import asyncio
import contextlib
import http.server
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from graphs import LTX2, SVD

KEPT = 2.1  # seconds, and a little: how long an answer serves all who ask
NODE = {"health": {"class_type": "Xavi9ModelHealth", "inputs": {}},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["health", 0]}}}


def asked(host: ComfyHost) -> dict[str, dict]:
    """Each mode by its name. What was kept of the last time is let go first."""
    time.sleep(KEPT)
    return {it["mode"]: it for it in host.http.get("/xavi9/health").raise_for_status().json()["modes"]}


@pytest.fixture(scope="module")
def bare(tmp_path_factory, nim):
    """A server without any model, and with an address where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        env = {"COSMOS_TEXT2WORLD_URL": url, "COSMOS_VIDEO2WORLD_URL": nim.url, "NGC_API_KEY": "nvapi-secret"}
        with ComfyHost(tmp_path_factory.mktemp("bare"), env=env) as host:
            yield host


def test_all_is_well(server, nim):
    found = server.http.get("/api/xavi9/health").json()
    modes = {it["mode"]: it for it in found["modes"]}
    assert list(modes) == ["cosmos_text2world", "cosmos_video2world", "ltx2", "svd"]
    for mode in ("cosmos_text2world", "cosmos_video2world"):
        assert modes[mode]["state"] == "ready" and modes[mode]["place"] == nim.url and "Cosmos3" in modes[mode]["what"]
    for mode, name in (("ltx2", "ltx-2-19b"), ("svd", "svd_xt")):
        assert modes[mode]["state"] in ("available", "loaded") and Path(modes[mode]["place"]).name.startswith(name)
        assert modes[mode]["bytes"] >= Path(modes[mode]["place"]).stat().st_size > 0
    machine = found["machine"]
    assert machine["device"] == "cpu" and not machine["unified"] and 0 < machine["free"] < machine["total"]
    versions = server.http.get("/system_stats").json()["system"]
    assert found["versions"]["ComfyUI"] == versions["comfyui_version"]
    assert found["versions"]["torch"] == versions["pytorch_version"]


def test_what_is_loaded_is_said_and_what_was_freed(server):
    server.run(SVD)
    state = asked(server)["svd"]
    assert state["state"] == "loaded" and state["on_device"] > 0 and Path(state["place"]).name == "svd_xt.safetensors"
    server.run(LTX2)
    found = asked(server)
    assert found["ltx2"]["state"] == "loaded" and found["svd"]["state"] == "available", "one local model at a time"
    server.free(unload_models=True, free_memory=True)
    server.run({"shown": {"class_type": "PreviewAny", "inputs": {"source": "go"}}})
    time.sleep(2)
    assert asked(server)["ltx2"]["on_device"] == 0


def test_missing_files_and_a_closed_port_say_what_to_do(bare, nim):
    found = asked(bare)
    assert found["ltx2"]["state"] == found["svd"]["state"] == "files missing"
    assert "ltx-2-19b-distilled-fp8.safetensors" in found["ltx2"]["what"] and "models" in found["ltx2"]["what"]
    assert "docker/download_models.sh svd" in found["svd"]["cure"]
    text = found["cosmos_text2world"]
    assert text["state"] == "unreachable" and "docker compose restart cosmos-text2world" in text["cure"]
    assert text["code"] == "cosmos_not_ready" and text["values"]["setting"] == "COSMOS_TEXT2WORLD_URL"
    assert found["cosmos_video2world"]["state"] == "ready"
    assert "nvapi-secret" not in bare.http.get("/xavi9/health").text


@pytest.mark.parametrize(
    ("fault", "state"), [("not_ready", "starting"), ("ready_but_not_status", "starting"),
                         ("redirect_health", "unreachable")])  # fmt: skip
def test_a_nim_that_is_not_ready(bare, nim, fault, state):
    nim.fault = fault
    found = asked(bare)["cosmos_video2world"]
    assert found["state"] == state and nim.url in found["what"] and found["cure"]


def test_the_container_of_the_other_mode_is_named(bare, nim):
    nim.family, nim.mode = "predict1", "text2world"
    found = asked(bare)["cosmos_video2world"]
    assert found["state"] == "unreachable" and found["code"] == "cosmos_other_mode"


def test_a_checkpoint_that_arrives_is_found_without_a_restart_and_a_wrong_one_is_not(bare, server):
    folder = bare.base / "models" / "checkpoints"
    folder.mkdir(exist_ok=True)
    wrong, right = folder / "svd_xt.safetensors", folder / "renamed.safetensors"
    wrong.write_bytes((server.base / "models/checkpoints" / "ltx-2-19b-distilled-fp8.safetensors").read_bytes())
    assert asked(bare)["svd"]["state"] == "files missing"
    right.write_bytes((server.base / "models/checkpoints/svd_xt.safetensors").read_bytes())
    assert asked(bare)["svd"]["place"] == str(right)
    for path in (wrong, right):
        path.unlink()


def test_ltx23_alone_is_ltx2(bare, server):
    files = ("checkpoints/ltx-2.3-22b-distilled-fp8.safetensors",
             "text_encoders/gemma_3_12B_it_fp8_scaled.safetensors")
    copies = [bare.base / "models" / name for name in files]
    for name, copy in zip(files, copies, strict=True):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((server.base / "models" / name).read_bytes())
    found = asked(bare)["ltx2"]
    for copy in copies:
        copy.unlink()
    assert (found["state"], found["place"]) == ("available", str(copies[0]))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """What is no NIM, on the port of one, and a server with that address. answer: bytes, or None for never."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.server.answer is None:
                return self.server.ended.wait()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(self.server.answer)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        other.answer, other.ended = None, threading.Event()
        threading.Thread(target=other.serve_forever, daemon=True).start()
        env = {"COSMOS_NIM_URL": f"http://127.0.0.1:{other.server_port}"}
        with ComfyHost(tmp_path_factory.mktemp("other"), env=env) as other.host:
            yield other
        other.ended.set()
        other.shutdown()


def test_a_nim_that_never_answers_costs_three_seconds_at_most(other):
    began = time.monotonic()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(other.host.http.get("/xavi9/health").json()))
               for _ in range(3)]
    for it in threads:
        it.start()
    assert other.host.http.get("/system_stats").elapsed.total_seconds() < 1, "the server answers meanwhile"
    for it in threads:
        it.join()
    assert time.monotonic() - began < 5 and len(answers) == 3
    assert {it["state"] for it in answers[0]["modes"][:2]} == {"unreachable"}


def test_the_node_says_it_anew_each_time(server, nim):
    first = server.run(NODE)
    assert server.error(first) is None
    [text] = first["outputs"]["shown"]["text"]
    for words in ("Cosmos Text to World: ready", "LTX-2: ", "SVD-XT: ", "GB free", "ComfyUI ", "torch "):
        assert words in text
    nim.fault = "not_ready"
    time.sleep(KEPT)
    [text] = server.run(NODE)["outputs"]["shown"]["text"]
    assert "Cosmos Text to World: starting" in text and "docker compose" in text


def test_other_methods_are_refused(server):
    assert server.http.post("/xavi9/health").status_code == 405


def test_one_bad_file_hides_no_good_one_and_a_broken_download_is_said(bare, server):
    folder = bare.base / "models" / "checkpoints"
    folder.mkdir(exist_ok=True)
    good = server.base / "models/checkpoints/svd_xt.safetensors"
    (folder / "aaa.safetensors").symlink_to(folder / "nowhere")
    (folder / "aab.safetensors").symlink_to(folder / "aab.safetensors")
    os.mkfifo(folder / "aac.safetensors")
    (folder / "aad.safetensors").mkdir()
    (folder / "aae.safetensors").write_bytes((10**6).to_bytes(8, "little") + b"[" * 10**6)
    broken = folder / "svd_xt.safetensors"
    broken.write_bytes(good.read_bytes()[:-100])
    state = asked(bare)["svd"]
    assert state["state"] == "files missing" and state["code"] == "wrong_model_file" and "breaks off" in state["what"]
    (folder / "svd.safetensors").write_bytes(good.read_bytes())
    assert asked(bare)["svd"]["place"] == str(folder / "svd.safetensors")
    for path in folder.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_diffusers_folder_is_known_too(bare, server):
    pipeline = server.base / "models/diffusers/stable-video-diffusion-img2vid-xt"
    assert (pipeline / "model_index.json").is_file()
    place = bare.base / "models" / "diffusers"
    place.mkdir(exist_ok=True)
    (place / "my-svd").symlink_to(pipeline)
    state = asked(bare)["svd"]
    assert state["state"] == "available" and Path(state["place"]) == place / "my-svd" and state["bytes"] > 1000
    (place / "my-svd").unlink()


@pytest.mark.parametrize(
    ("answer", "state"), [(b"[" * 100_000, "unreachable"), (b"x" * 50_000_000, "unreachable"),
                          (b'{"status": "loading"}', "starting")])  # fmt: skip
def test_what_else_may_listen_on_the_port(other, answer, state):
    other.answer = answer
    began = time.monotonic()
    found = asked(other.host)
    assert time.monotonic() - began < KEPT + 5
    assert {found[mode]["state"] for mode in ("cosmos_text2world", "cosmos_video2world")} == {state}


def test_a_room_at_a_loss_hides_nothing(monkeypatch):
    from xavi9videos.nodes.cosmos import health as cosmos
    from xavi9videos.nodes.studio import health as studio

    async def lost():
        raise RecursionError("too deep")

    monkeypatch.setattr(cosmos, "states", lost)
    monkeypatch.setattr(studio, "_asking", None)
    found = {it["mode"]: it for it in asyncio.run(studio.health())["modes"]}
    assert found["cosmos_text2world"]["state"] == "room failed" and "too deep" in found["cosmos_text2world"]["what"]
    assert found["svd"]["state"] in ("available", "files missing")


def test_a_file_system_that_does_not_answer_costs_three_seconds(monkeypatch):
    from xavi9videos.nodes import states
    from xavi9videos.nodes.studio import health as studio

    monkeypatch.setattr(states, "kind_of", lambda path: time.sleep(8) or "x")
    monkeypatch.setattr(states.paths, "checkpoint_names", lambda: ["x"])
    monkeypatch.setattr(states.paths, "checkpoint_path", lambda name, model: "/x")
    monkeypatch.setattr(studio, "_asking", None)
    began = time.monotonic()
    found = {it["mode"]: it for it in asyncio.run(studio.health())["modes"]}
    assert time.monotonic() - began < 5 and "has not answered" in found["svd"]["what"]
