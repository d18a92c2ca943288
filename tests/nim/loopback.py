"""A strict stand-in for NVIDIA's Cosmos NIM on 127.0.0.1.

It refuses what the real one refuses (schema.json), computes one job at a time, replies with a real VP9 MP4, and fails
on demand (faults.FAULTS). By hand: `python tests/nim/loopback.py --family cosmos3 --port 8000`.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import math
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for when it runs as a script

from nim.faults import BACKEND, CANNED, FAULTS, GUARDRAIL, HEALTH_FAULTS, WITHOUT_VIDEO
from nim.picture import video
from nim.rules import FAMILIES, Job, Refusal, check, openapi

__all__ = ["FAULTS", "LoopbackNIM", "Record"]

log = logging.getLogger(__name__)

PIECE = 256 * 1024
NOISE = random.Random(0).randbytes(768 * 1024)
NOISE_TEXT = memoryview(base64.b64encode(NOISE))


@dataclass
class Record:
    """One POST /v1/infer. Times are time.monotonic(); `began` is when its job left the queue.

    body is the parsed JSON (bytes where it is none). outcome is running, replied, rejected (the NIM's own 4xx and 5xx),
    faulted (a fault was served to its end) or disconnected (the client left first). outcome, ended and status are set
    before the client can have read the whole reply. media is the decoded bytes of the conditioning image or clip as
    they were sent, media_kind "image" or "video"; both are None without one, and until the request has been accepted.
    """

    headers: dict[str, str]
    started: float
    body: object = None
    began: float | None = None
    ended: float | None = None
    outcome: str = "running"
    status: int | None = None
    media: bytes | None = None
    media_kind: str | None = None

    def finish(self, outcome: str, status: int | None = 200) -> None:
        self.outcome, self.status, self.ended = outcome, status, time.monotonic()


class LoopbackNIM:
    """A NIM at `url` while its `with` block lasts. Every attribute that `reset` sets may be changed at any time.

    family: "predict1", "predict2_5" or "cosmos3"; mode: Predict1's container, "text2world" or "video2world"; variant:
    Cosmos3's model, "nano", "super" or a specialist such as "super-i2v-4step".
    fault: a key of FAULTS, or None; like family, it holds for the requests that arrive from then on.
    job_seconds: how long a job computes, besides drawing its video; ready_after: the time.monotonic() at which a
    "starting" NIM is ready. metadata: "names" | "anonymous" (200 that does not tell the family) | "missing" (404).
    openapi: True, False, or None for what the family has. payload_bytes: exact size of the decoded reply, the rest
    padded with a `free` box (b64_video only; larger than the video alone). huge_bytes: base64 of the "huge" faults.
    redirect_to: Location of the redirect faults. requests: every POST /v1/infer in order; seen: (method, path) of all.
    Raises OSError where the port is taken, ValueError for an unknown fault.
    """

    def __init__(self, family: str = "cosmos3", port: int = 0):
        self._first_family, self._port = family, port
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Forget the requests and put every setting back to its start."""
        self.family, self.mode, self.variant = self._first_family, "text2world", "nano"
        self.fault = None
        self.job_seconds = 0.0
        self.ready_after = math.inf
        self.metadata = "names"
        self.openapi: bool | None = None
        self.payload_bytes: int | None = None
        self.huge_bytes = 600_000_000
        self.redirect_to = "/elsewhere"
        self.requests: list[Record] = []
        self.seen: list[tuple[str, str]] = []

    @property
    def fault(self) -> str | None:
        return self._fault

    @fault.setter
    def fault(self, name: str | None) -> None:
        # A misspelt fault would let a test of it pass on a good reply.
        if name is not None and name not in FAULTS:
            raise ValueError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
        self._fault = name

    def __enter__(self) -> "LoopbackNIM":
        up: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(up)), name="loopback-nim", daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{up.result()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self, up: "Future[int]") -> None:
        self._loop, self._stop, self._turn = asyncio.get_running_loop(), asyncio.Event(), asyncio.Lock()
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._route)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
        except OSError as taken:
            up.set_exception(taken)
        else:
            up.set_result(runner.addresses[0][1])
            await self._stop.wait()
        await runner.cleanup()

    async def _route(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path))
        if request.path == "/raw":
            size = int(request.query["bytes"])
            return await _send(request, "text/plain", _noise(size), size, lambda: None)
        if request.path == "/v1/infer" and request.method == "POST":
            return await self._infer(request)
        if request.path == "/v1/infer" or (request.method != "GET" and request.path in FAMILIES[self.family]["get"]):
            return _refused(self.family, 405, "Method Not Allowed")
        return self._get(request.path)

    def _get(self, path: str) -> web.Response:
        spec = FAMILIES[self.family]
        if path == "/v1/health/ready":
            return self._ready()
        if path == "/v1/metrics":
            return web.Response(text="# TYPE process_open_fds gauge\nprocess_open_fds 7.0\n")
        if path == "/openapi.json" and (spec["openapi"] if self.openapi is None else self.openapi):
            return web.json_response(openapi(self.family, self.mode))
        if path not in spec["get"] or (path == "/v1/metadata" and self.metadata == "missing"):
            return _refused(self.family, 404, "Not Found")
        reply = spec["get"][path]
        if path == "/v1/metadata" and self.metadata == "anonymous":
            reply = spec["anonymous_metadata"]
        return web.json_response(text=json.dumps(reply).replace("MODE", self.mode).replace("VARIANT", self.variant))

    def _ready(self) -> web.Response:
        spec = FAMILIES[self.family]
        if self.fault == "redirect_health":
            return web.Response(status=302, headers={"Location": self.redirect_to})
        if self.fault == "ready_but_not_status":
            return web.json_response(spec["get"]["/v1/health/ready"] | {"status": "starting"})
        if self._loaded(self.fault):
            return web.json_response(spec["get"]["/v1/health/ready"])
        return web.json_response(spec["not_ready"]["body"], status=spec["not_ready"]["status"])

    def _loaded(self, fault: str | None) -> bool:
        if fault == "starting":
            return time.monotonic() >= self.ready_after
        return fault not in {"not_ready", "ready_but_not_status"}

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        record = Record(headers=dict(request.headers), started=time.monotonic())
        self.requests.append(record)
        try:
            return await self._answer(request, record)
        except (asyncio.CancelledError, ConnectionResetError):
            if record.outcome != "faulted":
                record.finish("disconnected", None)
            raise
        finally:
            log.info("POST /v1/infer %s in %.2f s", record.outcome, record.ended - record.started)

    async def _answer(self, request: web.Request, record: Record) -> web.StreamResponse:
        family, mode, variant, fault = self.family, self.mode, self.variant, self.fault
        record.body = await request.read()
        try:
            job = _job(request, record, family, mode, variant)
        except Refusal as refusal:
            record.finish("rejected", refusal.status)
            return _refused(family, refusal.status, refusal.errors)
        record.media, record.media_kind = job.media, job.media_kind
        if not self._loaded(fault):
            spec = FAMILIES[family]["not_ready"]
            record.finish("faulted", spec["status"])
            return web.json_response(spec["body"], status=spec["status"])
        async with self._turn:
            record.began = time.monotonic()
            if fault != "slow_trickle":
                await asyncio.sleep(self.job_seconds)
            data = b""
            if fault not in WITHOUT_VIDEO:
                size = (job.width, job.height, job.frames, job.fps)
                data = await asyncio.to_thread(video, job.prompt, job.seed, *size, job.media)
        if fault is not None and fault not in HEALTH_FAULTS:
            response = await self._fail(request, record, fault, _reply(family, job, data, fault))
            record.finish("faulted", response.status)
            return response
        finish = partial(record.finish, "replied")
        if self.payload_bytes is not None:
            text = _padded(data, self.payload_bytes)
            pieces, length = _wrapped(text, 4 * math.ceil(self.payload_bytes / 3))
            return await _send(request, "application/json", pieces, length, finish)
        body = _reply(family, job, data, None)
        return await _send(request, "application/json", _cut(body, PIECE), len(body), finish)

    async def _fail(self, request: web.Request, record: Record, fault: str, body: bytes) -> web.StreamResponse:
        forever, finish = asyncio.Event().wait, partial(record.finish, "faulted")
        if fault in CANNED:
            status, kind, text = CANNED[fault]
            return web.Response(status=status, content_type=kind, text=text)
        match fault:
            case "redirect":
                return web.Response(status=302, headers={"Location": self.redirect_to})
            case "error_500":
                return _refused(self.family, 500, BACKEND)
            case "guardrail":
                return _refused(self.family, 422, GUARDRAIL)
            case "silence":
                await forever()
            case "huge" | "huge_chunked":
                pieces, length = _wrapped(_noise(self.huge_bytes), self.huge_bytes)
                return await _send(request, "application/json", pieces, length if fault == "huge" else None, finish)
            case "reset_before_reply":
                finish(None)
                request.transport.close()
                await forever()
            case "reset_mid_body":
                await (await _start(request, "application/json", len(body))).write(body[: len(body) // 2])
                finish()
                # Linger 0 makes the close a reset, which no HTTP library can take for the end of a body.
                linger = struct.pack("ii", 1, 0)
                request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                request.transport.abort()
                await forever()
            case "stall":
                await (await _start(request, "application/json", len(body))).write(body[:64])
                await forever()
            case "slow_trickle":
                response = await _start(request, "application/json", len(body))
                *pieces, last = _cut(body, -(-len(body) // 20))
                for piece in pieces:
                    await response.write(piece)
                    await asyncio.sleep(self.job_seconds / len(pieces))
                finish()
                await response.write_eof(last)
                return response
        return await _send(request, "application/json", _cut(body, PIECE), len(body), finish)


def _job(request: web.Request, record: Record, family: str, mode: str, variant: str) -> Job:
    """The request's job; its body, parsed, goes into the record. Raises Refusal."""
    try:
        record.body = json.loads(record.body)
    except ValueError as exception:
        raise Refusal(400, "There was an error parsing the body") from exception
    # FastAPI takes a body of another content type for plain text, which is no object.
    body = record.body if request.content_type == "application/json" else str(record.body)
    return check(family, mode, body, variant)


def _refused(family: str, status: int, errors: list[dict] | str) -> web.Response:
    """A failure in the family's own shape."""
    shape = FAMILIES[family]["errors"]
    if shape["shape"] == "detail":
        return web.json_response({"detail": errors}, status=status)
    if isinstance(errors, list):
        errors = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
    body = {"error": {"message": errors, "type": shape["types"][str(status)], "code": status}}
    return web.json_response(body, status=status)


def _reply(family: str, job: Job, data: bytes, fault: str | None) -> bytes:
    """The JSON of a reply, spoiled as the fault says."""
    text = base64.b64encode(b"This is no video. " * 40 if fault == "not_a_video" else data).decode()
    match fault:
        case "truncated_base64":
            text = text[: len(text) // 8 * 4 + 2]
        case "bad_base64":
            text = text[: len(text) // 2] + "*" + text[len(text) // 2 + 1 :]
        case "data_url":
            text = f"data:video/mp4;base64,{text}"
    reply: dict = {"b64_video": text}
    if family == "cosmos3":
        reply["action"] = None
    if job.upsample:
        reply["upsampled_prompt"] = f"{job.prompt} The camera drifts slowly, the light is warm, every surface is crisp."
    if family == "predict1" and fault != "missing_seed":
        reply["seed"] = job.seed
    return json.dumps(reply).encode()


async def _start(request: web.Request, content_type: str, length: int | None) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type, response.content_length = content_type, length
    await response.prepare(request)
    return response


async def _send(
    request: web.Request, kind: str, pieces: Iterable[bytes], length: int | None, finish: Callable[[], None]
) -> web.StreamResponse:
    """Streams the pieces of a 200 and calls `finish` just before the last one."""
    response = await _start(request, kind, length)
    held = b""
    for piece in pieces:
        await response.write(held)
        held = piece
    finish()
    await response.write_eof(held)
    return response


def _cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[i : i + size] for i in range(0, len(body), size))


def _noise(size: int) -> Iterator[bytes]:
    """`size` characters of base64, always the same."""
    for _ in range(size // len(NOISE_TEXT)):
        yield NOISE_TEXT
    yield NOISE_TEXT[: size % len(NOISE_TEXT)]


def _padded(data: bytes, size: int) -> Iterator[bytes]:
    """Base64 of the MP4 `data` and a `free` box after it, together `size` bytes."""
    head = data + struct.pack(">I4s", size - len(data), b"free")
    head += NOISE[: min(-len(head) % 3, size - len(head))]
    rest = size - len(head)
    yield base64.b64encode(head)
    for _ in range(rest // len(NOISE)):
        yield NOISE_TEXT
    yield base64.b64encode(NOISE[: rest % len(NOISE)])


def _wrapped(text: Iterator[bytes], length: int) -> tuple[Iterator[bytes], int]:
    """A reply of nothing but b64_video around `length` characters of text, and its own length."""
    start, end = b'{"b64_video": "', b'"}'
    return (piece for part in ([start], text, [end]) for piece in part), len(start) + length + len(end)


def main() -> None:
    parser = argparse.ArgumentParser(description="A strict stand-in for NVIDIA's Cosmos NIM.")
    parser.add_argument("--family", choices=FAMILIES, default="cosmos3")
    parser.add_argument("--mode", choices=["text2world", "video2world"], default="text2world", help="of predict1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--job-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with LoopbackNIM(arguments.family, arguments.port) as nim:
        nim.mode, nim.fault, nim.job_seconds = arguments.mode, arguments.fault, arguments.job_seconds
        log.info("%s answers at %s", nim.family, nim.url)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
