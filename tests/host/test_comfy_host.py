"""The server that the other tests trust: it starts, answers, and always ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comfy_host import ComfyHost, HostError, PromptRejected
from graphs import until
from setup_host import REPO, host_path

PROBE = '''
import os, time
import comfy.model_management
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

class Probe(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Probe", is_output_node=True, inputs=[io.Float.Input("seconds")], outputs=[],
                         hidden=[io.Hidden.unique_id], not_idempotent=True)

    @classmethod
    def execute(cls, seconds):
        PromptServer.instance.send_progress_text("caf\\u00e9 " + os.environ["PROBE"], cls.hidden.unique_id)
        if seconds < 0:
            raise ValueError("negative")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.01)
        return io.NodeOutput()

class Pack(ComfyExtension):
    async def get_node_list(self):
        return [Probe]

async def comfy_entrypoint():
    return Pack()
'''
STARTS_AND_WAITS = '''
import sys, time
from comfy_host import ComfyHost
ComfyHost._wait_until_ready = lambda self: None
with ComfyHost(sys.argv[1], packs=()) as host:
    sys.stdout.write(f"{host.process.pid}\\n")
    sys.stdout.flush()
    time.sleep(600)
'''


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    pack = tmp_path_factory.mktemp("packs") / "probe"
    pack.mkdir()
    (pack / "__init__.py").write_text(PROBE)
    before = tree(host_path())
    with ComfyHost(tmp_path_factory.mktemp("a base"), env={"PROBE": "here"}, args=["--disable-api-nodes"],
                   packs=[pack]) as host:
        yield host
    assert tree(host_path()) == before
    assert host.process.returncode == 0, host.log()


def probe(seconds: float) -> dict:
    return {"1": {"class_type": "Probe", "inputs": {"seconds": seconds}}}


def test_files_of_a_graph(host):
    workflow = {"nodes": [], "links": []}
    entry = host.run({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/picture"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }, workflow)
    assert entry["prompt"][3]["extra_pnginfo"]["workflow"] == workflow
    assert host.error(entry) is None
    assert {path.parent.relative_to(host.base).as_posix() for path in host.files(entry)} == {"output/sub", "temp"}
    assert all(path.is_file() for path in host.files(entry))


def test_rejected_prompt(host):
    with pytest.raises(PromptRejected) as rejected:
        host.post({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert rejected.value.status == 400
    assert rejected.value.body["error"]["type"] == "missing_node_type"


def test_events(host):
    with host.events() as events:
        host.run(probe(0))
    kinds = [event["type"] for event in events]
    assert kinds.index("execution_start") < kinds.index("progress_text") < kinds.index("execution_success")
    text = events[kinds.index("progress_text")]
    assert (text["node"], text["text"]) == ("1", "caf\u00e9 here")
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_error(host):
    error = host.error(host.run(probe(-1)))
    assert (error["exception_message"].strip(), error["node_id"]) == ("negative", "1")


def test_interrupt(host):
    with host.events() as events:
        prompt_id = host.post(probe(60))
        until(lambda: "progress_text" in [event["type"] for event in events])
        host.interrupt()
        entry = host.wait(prompt_id, timeout=30)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


def test_wait_gives_up(host):
    prompt_id = host.post(probe(60))
    with pytest.raises(TimeoutError, match=prompt_id):
        host.wait(prompt_id, timeout=0.5)
    host.interrupt()
    host.wait(prompt_id)


def test_early_death_shows_the_log(tmp_path):
    with pytest.raises(HostError, match="(?s)ended with status 2.*unrecognized arguments: --no-such-flag"):
        ComfyHost(tmp_path, args=["--no-such-flag"], packs=()).__enter__()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_parent(tmp_path, number):
    parent = subprocess.Popen([sys.executable, "-c", STARTS_AND_WAITS, tmp_path], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPO / "tests")})
    server = Path("/proc", parent.stdout.readline().strip())
    assert "main.py" in (server / "cmdline").read_text()
    parent.send_signal(number)
    parent.wait(120)
    limit = time.monotonic() + 30
    while server.exists() and (server / "stat").read_text().split()[2] != "Z":
        assert time.monotonic() < limit, "the server lives on"
        time.sleep(0.05)
