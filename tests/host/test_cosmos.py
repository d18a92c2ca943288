"""The Cosmos node in a real server: quick, polite to the NIM, stoppable, and in words when it fails."""

import itertools
import json
import re
import threading
import time
from pathlib import Path

import pytest
from comfy_host import ComfyHost, PromptRejected
from graphs import until
from nim import faults
from setup_host import REPO

KEY = "nvapi-0123456789-very-secret"
SEEDS = itertools.count(1000)
SLEEPER = '''
import time
from comfy_api.latest import ComfyExtension, io

class TestSleep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestSleep", inputs=[io.Float.Input("seconds")], outputs=[io.Float.Output()],
                         not_idempotent=True)

    @classmethod
    def execute(cls, seconds):
        time.sleep(seconds)
        return io.NodeOutput(seconds)

class Pack(ComfyExtension):
    async def get_node_list(self):
        return [TestSleep]

async def comfy_entrypoint():
    return Pack()
'''


@pytest.fixture(scope="module")
def guarded(nim, tmp_path_factory):
    """A server with a key, small limits, and a node that blocks."""
    pack = tmp_path_factory.mktemp("packs") / "sleeper"
    pack.mkdir()
    (pack / "__init__.py").write_text(SLEEPER)
    limits = {"COSMOS_TIMEOUT_SECONDS": "3", "XAVI9_MAX_REPLY_MB": "1"}
    with ComfyHost(tmp_path_factory.mktemp("guarded"), packs=[REPO, pack],
                   env={"COSMOS_NIM_URL": nim.url, "NGC_API_KEY": KEY, **limits}) as host:
        yield host


def cosmos(**inputs) -> dict:
    """The node with its defaults, at the smallest size; each call another seed, so that nothing is cached."""
    given = {"prompt": "a fox", "negative_prompt": "", "aspect_ratio": "16:9", "resolution": "256", "frames": 25,
             "fps": 24, "steps": 35, "guidance_scale": 7.0, "seed": next(SEEDS), "prompt_upsampling": True, **inputs}
    return {"class_type": "Xavi9CosmosText2World", "inputs": given}


def graph(*nodes: dict, **others: dict) -> dict:
    """These Cosmos nodes as "1", "2" ..., each with a node that asks for its text, and others."""
    numbered = {str(number): node for number, node in enumerate(nodes, 1)}
    shown = {f"text{number}": {"class_type": "PreviewAny", "inputs": {"source": [number, 1]}} for number in numbered}
    return {**numbered, **shown, **others}


def blocking(seconds: float) -> dict:
    """A node that blocks; the host starts it last, as it is neither asynchronous nor an output."""
    return {"sleep": {"class_type": "TestSleep", "inputs": {"seconds": seconds}},
            "slept": {"class_type": "PreviewAny", "inputs": {"source": ["sleep", 0]}}}


def temp_files(host: ComfyHost) -> set[Path]:
    return set((host.base / "temp").rglob("*"))


def interrupted(host: ComfyHost, prompt_id: str) -> bool:
    return host.wait(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"


def places_with(text: str, host: ComfyHost) -> list[str]:
    """Where `text` can be read: the server's answers, and every file that it wrote."""
    routes = ["/history", "/queue", "/system_stats", "/object_info", "/api/jobs"]
    found = [it for it in routes if text in host.http.get(it).text]
    files = [it for it in host.base.rglob("*") if it.is_file() and "custom_nodes" not in it.parts]
    return found + [str(it) for it in files if text.encode() in it.read_bytes()]


def test_during_a_job_the_server_is_quick_and_the_node_says_each_second_what_happens(server, nim):
    nim.job_seconds = 3.3
    with server.events() as events:
        prompt_id = server.post(graph(cosmos()))
        waits = []
        while not server.http.get(f"/history/{prompt_id}").json():
            asked = time.monotonic()
            server.http.get("/queue").raise_for_status()
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
    assert len(waits) > 20 and max(waits) < 1
    texts = [it for it in events if it["type"] == "progress_text"]
    assert {it["node"] for it in texts} == {"1"}
    making = [it for it in texts if it["text"].startswith("Cosmos3 is making the video - ")]
    seconds = [int(re.search(r"(\d+) s$", it["text"])[1]) for it in making]
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds))) and len(seconds) >= 3
    assert all(0.5 < after["at"] - before["at"] < 1.6 for before, after in itertools.pairwise(making))
    assert re.fullmatch(r"Done in \d+ s, 0\.0 MB", texts[-1]["text"])


def test_two_nodes_of_one_graph_take_turns(server, nim):
    nim.job_seconds = 0.8
    with server.events() as events:
        entry = server.run(graph(cosmos(), cosmos()))
    assert server.error(entry) is None
    first, second = nim.requests
    assert first.ended <= second.started
    assert any("Waiting for an earlier job" in it.get("text", "") for it in events)


def test_two_prompts_queued_at_once_are_both_made(server, nim):
    seeds = [next(SEEDS), next(SEEDS)]
    prompts = [server.post(graph(cosmos(seed=seed))) for seed in seeds]
    assert all(server.error(server.wait(it)) is None for it in prompts)
    assert [it.body["seed"] for it in nim.requests] == seeds
    assert nim.requests[0].ended <= nim.requests[1].started


@pytest.mark.parametrize("fault", ["silence", "stall"])
def test_interrupt_frees_the_nim_within_a_second_and_leaves_nothing(server, nim, fault):
    server.run(graph(cosmos()))
    before = temp_files(server)
    nim.fault = fault
    prompt_id = server.post(graph(cosmos()))
    until(lambda: nim.requests[1:] and nim.requests[1].began)
    time.sleep(0.3)
    asked = time.monotonic()
    server.interrupt()
    assert interrupted(server, prompt_id)
    assert time.monotonic() - asked < 1
    record = nim.requests[1]
    until(lambda: record.ended)
    assert record.ended - asked < 1
    assert temp_files(server) == before
    nim.fault = None
    assert server.error(server.run(graph(cosmos()))) is None


def test_interrupt_reaches_a_node_that_waits_for_another_job(server, nim):
    nim.fault = "silence"
    with server.events() as events:
        prompt_id = server.post(graph(cosmos(), cosmos()))
        until(lambda: [it for it in events if "Waiting for an earlier job" in it.get("text", "")])
        until(lambda: nim.requests and nim.requests[0].began)
        asked = time.monotonic()
        server.interrupt()
        assert interrupted(server, prompt_id)
        assert time.monotonic() - asked < 1
    nim.fault = None
    assert server.error(server.run(graph(cosmos()))) is None
    assert [it.outcome for it in nim.requests] == ["disconnected", "replied"]


def test_a_node_that_blocks_beside_it_slows_neither_the_reply_nor_the_words(guarded, nim):
    nim.job_seconds = 2.2
    with guarded.events() as events:
        posted = time.monotonic()
        entry = guarded.run(graph(cosmos(), **blocking(5.0)))
    assert guarded.error(entry) is None and time.monotonic() - posted >= 5
    [record] = nim.requests
    assert record.started - posted < 2.5 and record.ended - record.started < 3.5
    making = [it["at"] for it in events if "is making the video" in it.get("text", "")]
    assert len(making) >= 2 and max(after - before for before, after in itertools.pairwise(making)) < 1.6


def test_interrupt_frees_the_nim_while_another_node_blocks(guarded, nim):
    before = temp_files(guarded)
    nim.fault = "silence"
    prompt_id = guarded.post(graph(cosmos(), **blocking(4.0)))
    until(lambda: nim.requests and nim.requests[0].began)
    asked = time.monotonic()
    guarded.interrupt()
    until(lambda: nim.requests[0].ended)
    assert nim.requests[0].outcome == "disconnected" and nim.requests[0].ended - asked < 1
    assert not guarded.http.get(f"/history/{prompt_id}").json(), "the other node had already ended"
    assert interrupted(guarded, prompt_id)
    assert temp_files(guarded) == before


FAULTS = {
    "not_ready": ("CosmosNotReady", ["HTTP 503", "docker compose restart cosmos3", "COSMOS_NIM_URL"]),
    "reset_mid_body": ("CosmosConnectionLost", ["not sent again", "docker compose ps cosmos3"]),
    "reset_before_reply": ("CosmosConnectionLost", ["0.0 MB"]),
    "silence": ("CosmosTimedOut", ["3 seconds", "try a shorter video or fewer steps", "COSMOS_TIMEOUT_SECONDS"]),
    "bad_base64": ("CosmosBadReply", ["damaged or cut", "docker compose logs cosmos3"]),
    "truncated_base64": ("CosmosBadReply", ["damaged or cut"]),
    "not_a_video": ("CosmosBadReply", ["not a video"]),
    "html_502": ("CosmosFailed", ["HTTP 502", "502 Bad Gateway", "docker compose restart cosmos3"]),
    "error_500": ("CosmosFailed", [faults.BACKEND]),
    "guardrail": ("CosmosGuardrail", [faults.GUARDRAIL, "Reword the prompt"]),
    "no_video": ("CosmosNoVideo", ["without a video", "reword the prompt"]),
    "null_video": ("CosmosNoVideo", ["without a video"]),
    "huge": ("CosmosReplyTooLarge", ["1 MB", "raise XAVI9_MAX_REPLY_MB"]),
    "huge_chunked": ("CosmosReplyTooLarge", ["1 MB", "raise XAVI9_MAX_REPLY_MB"]),
    "redirect": ("CosmosRedirected", ["HTTP 302", "Set COSMOS_NIM_URL"]),
    "redirect_health": ("CosmosRedirected", ["HTTP 302"]),
    "error_detail_list": ("CosmosRefused", [f"body.steps: {faults.WORDS}", "Change the input"]),
    "error_problem": ("CosmosRefused", ["HTTP 400", faults.WORDS]),
    "not_json": ("CosmosBadReply", ["upstream says OK"]),
}


def from_image() -> dict:
    inputs = cosmos()["inputs"] | {"image": ["image", 0]}
    del inputs["prompt_upsampling"]
    return {"class_type": "Xavi9CosmosVideo2World", "inputs": inputs}


@pytest.mark.parametrize("node", [cosmos, from_image], ids=["text2world", "video2world"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_stands_in_the_history_with_its_cure_and_the_key_stands_nowhere(guarded, nim, fault, node):
    nim.fault, nim.huge_bytes, before = fault, 3_000_000, temp_files(guarded)
    image = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    entry = guarded.run(graph(made := node(), image=image))
    error = guarded.error(entry)
    kind, words = FAULTS[fault]
    assert error["exception_type"].rsplit(".", 1)[-1] == kind
    assert error["node_id"] == "1" and error["node_type"] == made["class_type"]
    for said in [nim.url, *words]:
        assert said in error["exception_message"]
    assert temp_files(guarded) == before
    assert places_with(KEY, guarded) == []


def test_nobody_at_the_address_and_the_key_is_nowhere(guarded, nim, monkeypatch):
    words = f"bad header: Bearer {KEY}"
    monkeypatch.setitem(faults.CANNED, "error_text", (400, "text/plain", words))
    nim.fault = "error_text"
    error = guarded.error(guarded.run(graph(cosmos())))
    assert "bad header: Bearer ***" in error["exception_message"]
    nim.fault = None
    save = {"class_type": "Xavi9VideoSave",
            "inputs": {"video": ["1", 0], "filename_prefix": "kept", "format": "auto", "save_to": "output"}}
    entry = guarded.run(graph(cosmos(prompt="findable words"), save=save), {"nodes": []})
    assert guarded.error(entry) is None
    [record] = nim.requests[1:]
    assert KEY not in json.dumps(record.headers)
    assert any("kept_" in it for it in places_with("findable words", guarded)), "the search itself works"
    assert places_with(KEY, guarded) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": " \n\t"},
        {"prompt": ["text"]},
        {"prompt": ["image", 0]},
        {"seed": 4294967296},
        {"seed": -1},
        {"seed": "many"},
        {"resolution": "1080"},
        {"resolution": 720},
        {"aspect_ratio": "21:9"},
        {"frames": 398},
        {"frames": 0},
        {"fps": 61},
        {"steps": 101},
        {"guidance_scale": 10.5},
    ],
)
def test_a_wrong_input_is_refused_before_anything_runs(server, nim, wrong):
    image = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    with pytest.raises(PromptRejected) as rejected:
        server.post(graph(cosmos(**wrong), image=image))
    assert rejected.value.status == 400
    [name] = wrong
    details = json.dumps(rejected.value.body["node_errors"]["1"])
    assert ("The prompt is empty. Describe" if str(wrong[name]).isspace() or wrong[name] == "" else name) in details
    assert nim.seen == []


def test_a_missing_prompt_is_refused(server, nim):
    node = cosmos()
    del node["inputs"]["prompt"]
    with pytest.raises(PromptRejected, match="required_input_missing"):
        server.post(graph(node))


@pytest.mark.parametrize(
    "inputs, kind, words",
    [
        ({"prompt": ["words", 0]}, "EmptyPrompt", "Describe the video"),
        ({"frames": 26}, "NotOffered", "Set frames to 25"),
        ({"resolution": "512"}, "NotOffered", "Set resolution to 480"),
        ({"guidance_scale": 8.0}, "NotOffered", "Set guidance_scale to 7"),
    ],
)
def test_what_only_a_run_can_tell_is_told_in_our_words_and_never_sent(server, nim, inputs, kind, words):
    entry = server.run(graph(cosmos(**inputs), words={"class_type": "PrimitiveString", "inputs": {"value": "  "}}))
    error = server.error(entry)
    assert error["exception_type"].rsplit(".", 1)[-1] == kind and words in error["exception_message"]
    assert nim.requests == []


def test_a_linked_prompt_is_used(server, nim):
    entry = server.run(graph(cosmos(prompt=["words", 0]),
                             words={"class_type": "PrimitiveString", "inputs": {"value": "a linked fox"}}))
    assert server.error(entry) is None and nim.requests[0].body["prompt"] == "a linked fox"


def test_half_a_surrogate_pair_in_a_prompt_is_sent_or_refused_in_our_words(server, nim):
    body = json.dumps({"prompt": graph(cosmos(prompt="a fox \ud83d")), "client_id": server.client_id})
    reply = server.http.post("/prompt", content=body, headers={"Content-Type": "application/json"})
    error = server.error(server.wait(reply.raise_for_status().json()["prompt_id"]))
    assert error is None or "xavi9videos." in error["exception_type"]


def test_the_family_may_change_between_prompts_and_the_used_prompt_comes_out(server, nim):
    nim.family = "predict1"
    entry = server.run(graph(cosmos(resolution="720")))
    assert server.error(entry) is None
    assert "video_params" in nim.requests[0].body
    assert entry["outputs"]["text1"]["text"] == [
        "a fox The camera drifts slowly, the light is warm, every surface is crisp."
    ]
    nim.family = "cosmos3"
    entry = server.run(graph(cosmos()))
    assert server.error(entry) is None
    assert nim.requests[1].body["model_mode"] == "text2video"
    assert entry["outputs"]["text1"]["text"] == ["a fox"]


def test_the_same_again_is_cached_and_another_seed_is_not(server, nim):
    seed = next(SEEDS)
    for _ in range(2):
        assert server.error(server.run(graph(cosmos(seed=seed)))) is None
    assert len(nim.requests) == 1
    server.run(graph(cosmos(seed=seed + 1_000_000)))
    assert [it.body["seed"] for it in nim.requests] == [seed, seed + 1_000_000]


def test_a_large_reply_streams_to_disk(server, nim):
    def resident() -> float:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1000

    def saved() -> dict:
        save = {"class_type": "Xavi9VideoSave",
                "inputs": {"video": ["1", 0], "filename_prefix": "large/v", "format": "auto"}}
        return {"1": cosmos(), "2": save}

    server.run(saved())  # what a first run imports is not the payload's
    nim.payload_bytes = 64_000_000
    idle, peak, done = resident(), [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident())

    sampler = threading.Thread(target=sample)
    sampler.start()
    entry = server.run(saved())
    done.set()
    sampler.join()
    assert server.error(entry) is None
    [received] = [it for it in (server.base / "temp").glob("xavi9-*.mp4") if it.stat().st_size == 64_000_000]
    assert 0 < peak[0] and peak[0] - idle <= 32
