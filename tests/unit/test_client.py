"""The client against the strict loopback NIM: every fault, one job at a time, never twice, closed when interrupted."""

import asyncio
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import av
import pytest
from clips import write_file
from comfy_api.latest import InputImpl
from nim.faults import WORDS
from nim.loopback import LoopbackNIM
from xavi9videos.nodes import errors, settings
from xavi9videos.nodes.cosmos.client import Address, Client, address_of, reply_of, run_apart, words_of
from xavi9videos.nodes.cosmos.families import Job

JOB = Job("a fox", "", "16:9", "256", 25, 24, 35, 7.0, 3, True)
SECRET = "nvapi-very-secret"


@pytest.fixture(autouse=True)
def no_env_file(monkeypatch, tmp_path):
    monkeypatch.setitem(settings.CosmosSettings.model_config, "env_file", tmp_path / ".env")


def make(nim, path, job=JOB, tick=lambda: None, **changed):
    """One job from the outside: a client, its thread, the result."""
    chosen = settings.CosmosSettings(cosmos_nim_url=nim if isinstance(nim, str) else nim.url, **changed)
    client = Client(address_of(job.mode, chosen), chosen)
    return asyncio.run(run_apart(client.generate(job, path), tick))


@pytest.mark.parametrize("family, resolution", [("predict1", "720"), ("cosmos3", "256")])
def test_the_video_arrives_as_the_nim_sent_it(nim, tmp_path, family, resolution):
    nim.family = family
    job = Job(**{**vars(JOB), "resolution": resolution})
    result = make(nim, tmp_path / "a.mp4", job)
    with av.open(result.path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.frames, stream.average_rate) == ("vp9", 25, 24)
    used = "The camera drifts slowly" in result.prompt
    assert used == (family == "predict1")
    assert len(nim.requests) == 1 and nim.requests[0].outcome == "replied"


@pytest.mark.parametrize("metadata, openapi", [("anonymous", True), ("missing", True)])
@pytest.mark.parametrize("family, resolution", [("predict1", "720"), ("cosmos3", "256")])
def test_openapi_tells_the_family_when_metadata_does_not(nim, tmp_path, family, resolution, metadata, openapi):
    nim.family, nim.metadata, nim.openapi = family, metadata, openapi
    make(nim, tmp_path / "a.mp4", Job(**{**vars(JOB), "resolution": resolution}))
    assert [it.outcome for it in nim.requests] == ["replied"]


def test_a_nim_that_does_not_tell_gets_no_trial_job_and_the_setting_helps(nim, tmp_path):
    nim.metadata, nim.openapi = "missing", False
    with pytest.raises(errors.CosmosFamilyUnknown, match="COSMOS_FAMILY"):
        make(nim, tmp_path / "a.mp4")
    assert nim.requests == []
    make(nim, tmp_path / "a.mp4", cosmos_family="Cosmos3")
    assert [it.outcome for it in nim.requests] == ["replied"]


FAULTS = {
    "not_ready": (errors.CosmosNotReady, ["HTTP 503", "docker compose restart cosmos3", "COSMOS_NIM_URL"]),
    "ready_but_not_status": (errors.CosmosNotReady, ["HTTP 200"]),
    "reset_mid_body": (errors.CosmosConnectionLost, ["not sent again"]),
    "reset_before_reply": (errors.CosmosConnectionLost, ["0.0 MB"]),
    "truncated_base64": (errors.CosmosBadReply, ["damaged or cut"]),
    "bad_base64": (errors.CosmosBadReply, ["damaged or cut"]),
    "not_a_video": (errors.CosmosBadReply, ["not a video"]),
    "html_502": (errors.CosmosFailed, ["HTTP 502", "502 Bad Gateway", "docker compose logs cosmos3"]),
    "error_500": (errors.CosmosFailed, ["HTTP 500"]),
    "guardrail": (errors.CosmosGuardrail, ["HTTP 422", "content safety filter", "negative prompt"]),
    "no_video": (errors.CosmosNoVideo, ["without a video"]),
    "null_video": (errors.CosmosNoVideo, ["without a video"]),
    "huge": (errors.CosmosReplyTooLarge, ["1 MB", "XAVI9_MAX_REPLY_MB"]),
    "huge_chunked": (errors.CosmosReplyTooLarge, ["1 MB", "XAVI9_MAX_REPLY_MB"]),
    "redirect": (errors.CosmosRedirected, ["302", "COSMOS_NIM_URL"]),
    "redirect_health": (errors.CosmosRedirected, ["302"]),
    "not_json": (errors.CosmosBadReply, ["upstream says OK"]),
    "error_detail": (errors.CosmosRefused, [WORDS]),
    "error_detail_list": (errors.CosmosRefused, [f"body.steps: {WORDS}"]),
    "error_message": (errors.CosmosRefused, [WORDS]),
    "error_plain_message": (errors.CosmosRefused, [WORDS]),
    "error_errors": (errors.CosmosRefused, [WORDS]),
    "error_problem": (errors.CosmosRefused, [WORDS]),
    "error_title": (errors.CosmosRefused, [WORDS]),
    "error_text": (errors.CosmosRefused, [WORDS]),
}


@pytest.mark.parametrize("family", ["cosmos3", "predict1"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_words_sent_once_and_leaves_nothing(nim, tmp_path, fault, family):
    nim.family, nim.fault, nim.huge_bytes = family, fault, 3_000_000
    failure, said = FAULTS[fault]
    job = Job(**{**vars(JOB), "resolution": "720"}) if family == "predict1" else JOB
    with pytest.raises(failure) as caught:
        make(nim, tmp_path / "a.mp4", job, xavi9_max_reply_mb=1)
    assert type(caught.value) is failure
    for words in [*said, nim.url]:
        assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert len(nim.requests) <= 1
    assert not any(path == nim.redirect_to for _, path in nim.seen)


@pytest.mark.parametrize("fault", ["missing_seed", "data_url"])
def test_a_reply_that_is_merely_odd_is_taken(nim, tmp_path, fault):
    nim.family, nim.fault = "predict1", fault
    result = make(nim, tmp_path / "a.mp4", Job(**{**vars(JOB), "resolution": "720"}))
    with av.open(result.path) as container:
        assert container.streams.video[0].frames == 25


@pytest.mark.parametrize("fault", ["silence", "stall"])
def test_a_silent_nim_times_out_with_the_limit_and_what_to_try(nim, tmp_path, fault):
    nim.fault = fault
    started = time.monotonic()
    with pytest.raises(errors.CosmosTimedOut) as caught:
        make(nim, tmp_path / "a.mp4", cosmos_timeout_seconds=1)
    assert time.monotonic() - started < 3
    for said in ("1 seconds", "COSMOS_TIMEOUT_SECONDS", "try a shorter video or fewer steps"):
        assert said in str(caught.value)
    assert [it.outcome for it in settled(nim)] == ["disconnected"]
    assert list(tmp_path.iterdir()) == []


def settled(nim):
    """The NIM's records once no job is running; it notices a lost client a moment later."""
    for _ in range(50):
        if all(it.outcome != "running" for it in nim.requests):
            break
        time.sleep(0.02)
    return nim.requests


def test_the_limit_is_the_familys_unless_set():
    from xavi9videos.nodes.cosmos.families import FAMILIES

    limits = {"predict1": 600, "predict2.5": 1800, "cosmos3": 1800, "cosmos3fourstep": 1800}
    assert {name: it.timeout_seconds for name, it in FAMILIES.items()} == limits


def test_a_starting_nim_is_waited_for_and_the_wait_is_shown(nim, tmp_path):
    nim.fault, nim.ready_after = "starting", time.monotonic() + 1.5
    chosen = settings.CosmosSettings(cosmos_nim_url=nim.url, cosmos_wait_seconds=20)
    client = Client(address_of(JOB.mode, chosen), chosen)
    shown = []
    making = client.generate(JOB, tmp_path / "a.mp4")
    asyncio.run(run_apart(making, lambda: shown.append(client.doing)))
    assert "Cosmos is starting" in shown
    assert "Cosmos3 is making the video" in client.doing or "Receiving" in client.doing


def test_nobody_at_the_address(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(errors.CosmosNotReady) as caught:
        make(url, tmp_path / "a.mp4")
    for said in (url, "cannot be reached", "docker compose restart cosmos3", "COSMOS_NIM_URL"):
        assert said in str(caught.value)


def test_the_service_to_restart_is_that_of_the_setting_that_gave_the_address(nim, tmp_path):
    nim.fault = "not_ready"
    with pytest.raises(errors.CosmosNotReady, match="docker compose restart cosmos-text2world"):
        make("http://127.0.0.1:9", tmp_path / "a.mp4", cosmos_text2world_url=nim.url)


def test_a_bad_job_is_refused_before_anything_is_sent(nim, tmp_path):
    with pytest.raises(errors.NotOffered):
        make(nim, tmp_path / "a.mp4", Job(**{**vars(JOB), "frames": 26}))
    assert nim.requests == []


def test_what_ticking_raises_closes_the_job_within_a_second(nim, tmp_path):
    class Interrupt(BaseException):
        pass

    nim.fault = "silence"
    stop = threading.Event()

    def tick():
        if nim.requests and nim.requests[0].began:
            stop.set()
            raise Interrupt

    with pytest.raises(Interrupt):
        make(nim, tmp_path / "a.mp4", tick=tick)
    asked = time.monotonic()
    [record] = settled(nim)
    assert record.outcome == "disconnected" and record.ended - asked < 1
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_task_closes_the_job_within_a_second(nim, tmp_path):
    nim.fault = "silence"
    chosen = settings.CosmosSettings(cosmos_nim_url=nim.url)
    client = Client(address_of(JOB.mode, chosen), chosen)

    async def cancelled():
        job = client.generate(JOB, tmp_path / "a.mp4")
        task = asyncio.create_task(run_apart(job, lambda: None))
        while not (nim.requests and nim.requests[0].began):
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic()

    asked = asyncio.run(cancelled())
    [record] = settled(nim)
    assert record.outcome == "disconnected" and record.ended - asked < 1


def test_two_jobs_on_one_address_never_overlap_and_two_addresses_do(nim, tmp_path):
    nim.job_seconds = 0.6
    # The stand-in queues jobs itself, so what is compared is when each request arrived.
    with LoopbackNIM("cosmos3") as other:
        other.job_seconds = 0.6
        threads = [
            threading.Thread(target=make, args=(url, tmp_path / f"{index}.mp4"))
            for index, url in enumerate([nim.url, nim.url, other.url])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first, second = nim.requests
        assert second.started >= first.ended
        assert other.requests[0].started < first.ended


def test_a_prompts_loop_that_stands_still_does_not_slow_the_reply(nim, tmp_path):
    nim.job_seconds = 0.5
    chosen = settings.CosmosSettings(cosmos_nim_url=nim.url)
    client = Client(address_of(JOB.mode, chosen), chosen)

    async def beside_a_synchronous_node():
        job = client.generate(JOB, tmp_path / "a.mp4")
        task = asyncio.create_task(run_apart(job, lambda: None))
        await asyncio.sleep(0)
        time.sleep(3)
        return await task

    asyncio.run(beside_a_synchronous_node())
    [record] = nim.requests
    assert record.ended - record.started < 2


@contextmanager
def one_reply(text: bytes, *before: bytes):
    """A server that answers with the bytes `before`, one after the other, then always with `text`; what it received."""
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    received.append(connection.recv(65536))
                    connection.sendall((*before, text)[min(len(received) - 1, len(before))])

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        listener.shutdown(socket.SHUT_RDWR)


def test_the_key_goes_to_https_only(nim, tmp_path):
    make(nim, tmp_path / "a.mp4", ngc_api_key=SECRET)
    assert "Authorization" not in nim.requests[0].headers
    client = Client(Address("https://nim.example", "", ""), settings.CosmosSettings(ngc_api_key=SECRET))
    assert client.headers() == {"Authorization": f"Bearer {SECRET}"}


def test_a_server_that_quotes_the_key_does_not_get_it_into_the_error(tmp_path):
    body = f'{{"detail": "bad header Bearer {SECRET}"}}'.encode()
    head = b"HTTP/1.1 503 x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    with one_reply(head + body) as (url, _), pytest.raises(errors.CosmosNotReady) as caught:
        make(url, tmp_path / "a.mp4", ngc_api_key=SECRET)
    assert SECRET not in str(caught.value) and "bad header" in str(caught.value)


def test_a_proxy_of_the_environment_is_not_used(nim, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    make(nim, tmp_path / "a.mp4")


def test_a_full_disk_is_said(nim, tmp_path):
    with pytest.raises(errors.CannotWrite) as caught:
        make(nim, tmp_path / "missing folder" / "a.mp4")
    assert "missing folder" in str(caught.value)


@pytest.mark.parametrize("body, words", [({}, ""), ([], "[]"), ("  a \n b ", "a b"), ({"odd": 1}, '{"odd": 1}')])
def test_words_of_bodies_that_nobody_documents(body, words):
    assert words_of(body) == words


@pytest.mark.parametrize("odd", [{"seed": "random"}, {"upsampled_prompt": ["x"]}, {"seed": 1.5, "upsampled_prompt": 3}])
def test_an_odd_field_does_not_cost_the_video(odd):
    assert reply_of({"b64_video": "", **odd}).upsampled_prompt is None


@pytest.mark.parametrize(
    "status, words, kind",
    [
        (500, "CUDA stream blocked", errors.CosmosFailed),
        (500, "Guardrail refused the text", errors.CosmosGuardrail),
        (422, "prompt is blocked", errors.CosmosGuardrail),
        (422, "steps out of range", errors.CosmosRefused),
    ],
)
def test_a_guardrail_is_told_from_a_fault(tmp_path, status, words, kind):
    body = f'{{"detail": "{words}"}}'.encode()
    ready = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\nConnection: close\r\n\r\n{"status": "ready"}'
    refusal = b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)
    with one_reply(refusal, ready) as (url, _), pytest.raises(errors.Failure) as caught:
        make(url, tmp_path / "a.mp4", cosmos_family="cosmos3")
    assert type(caught.value) is kind and words in str(caught.value)


def test_words_are_cut_at_a_readable_length():
    assert len(words_of("x" * 10_000)) == 2000


def test_the_failures_have_codes_of_their_own():
    classes = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, errors.Failure)]
    codes = Counter(it.code for it in classes if it is not errors.Failure)
    assert max(codes.values()) == 1


def test_a_nim_that_restarts_in_the_middle_is_told_and_serves_the_next_job(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with LoopbackNIM() as nim:
            nim.job_seconds = 30
            job = pool.submit(make, nim, tmp_path / "a.mp4")
            while not nim.requests or not nim.requests[0].began:
                time.sleep(0.02)
        with pytest.raises(errors.CosmosConnectionLost, match="not sent again"):
            job.result()
    assert list(tmp_path.iterdir()) == []
    with LoopbackNIM(port=int(nim.url.rsplit(":", 1)[1])) as again:
        make(again, tmp_path / "b.mp4")
        assert [it.outcome for it in again.requests] == ["replied"]


def test_cancelling_ends_the_fitting_of_a_clip_and_leaves_nothing(nim, tmp_path):
    clip = write_file(tmp_path / "clip.mp4", 2000)
    job = replace(JOB, video=InputImpl.VideoFromFile(str(clip)), resolution="720", frames=197, prompt_upsampling=False)
    calls = []

    class Stop(BaseException):
        """As ComfyUI's interrupt is."""

    def tick():
        calls.append(time.monotonic())
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        make(nim, tmp_path / "a.mp4", job, tick)
    assert time.monotonic() - calls[-1] < 1
    assert nim.requests == [] and [it.name for it in tmp_path.iterdir()] == ["clip.mp4"]
