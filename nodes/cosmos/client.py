"""The HTTP side of a Cosmos NIM: one job at a time per address, never sent twice, closed at once when interrupted."""

import asyncio
import contextvars
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import av
import pybase64
import torch
from pydantic import ValidationError

from .. import errors
from ..settings import CosmosSettings
from .families import Family, Job, Reply, family_set
from .media import Media
from .recognise import recognise
from .reply import BrokenReply, ReplyReader

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCKS: dict[str, threading.Lock] = {}
TICK_SECONDS = 0.2
CONNECT_SECONDS = 10
MAX_WORDS = 2000
MAX_ERROR_BYTES = 1 << 16
MAX_ANSWER_BYTES = 1 << 22
# A multiple of three, so that the pieces' base64 joins without padding.
PIECE_BYTES = 3 << 16


@dataclass(frozen=True)
class Address:
    """Where a mode's NIM is: base URL, the setting that says so, and its service in our compose file."""

    url: str
    setting: str
    service: str


@dataclass(frozen=True)
class Result:
    """The NIM's file as it came, and the prompt as the NIM used it."""

    path: Path
    prompt: str


def address_of(mode: str, settings: CosmosSettings) -> Address:
    """Where the NIM for a mode ("text2world" or "video2world") is: the mode's own address, or the common one."""
    if url := getattr(settings, f"cosmos_{mode}_url"):
        return Address(url, f"COSMOS_{mode.upper()}_URL", f"cosmos-{mode}")
    return Address(settings.cosmos_nim_url, "COSMOS_NIM_URL", "cosmos3")


async def run_apart(job: Coroutine[None, None, T], tick: Callable[[], None]) -> T:
    """Await `job` on a thread and event loop of its own, calling `tick` there every TICK_SECONDS.

    The prompt's own loop stands still while a synchronous node of the same prompt runs, and a transfer on it would too.
    What `tick` raises ends the job, and so does cancelling this coroutine; both return when the job has cleaned up.
    """
    loop = asyncio.new_event_loop()
    outcome: Future[T] = Future()

    async def ticking() -> T:
        task = asyncio.ensure_future(job)
        try:
            while not (await asyncio.wait({task}, timeout=TICK_SECONDS))[0]:
                tick()
        finally:
            task.cancel()
            await asyncio.wait({task})
        return task.result()

    main = loop.create_task(ticking())

    def run():
        try:
            outcome.set_result(loop.run_until_complete(main))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            loop.close()

    # A daemon, so that a NIM that computes for half an hour does not keep ComfyUI from closing.
    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="cosmos", daemon=True).start()
    waiting = asyncio.wrap_future(outcome)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not outcome.done():
            loop.call_soon_threadsafe(main.cancel)
            await asyncio.wait({waiting})
        raise


async def in_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """Await work(poll) on a thread. Cancelling this makes its next `poll` raise, and returns when it has ended."""
    stopped = threading.Event()

    def poll():
        if stopped.is_set():
            raise asyncio.CancelledError()

    def run() -> T:
        # Inference mode belongs to a thread.
        with torch.inference_mode():
            return work(poll)

    working = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait({working})
        raise


def body_of(request: dict, media: Media | None) -> tuple[int, Callable[[], AsyncIterator[bytes]]]:
    """Length and pieces of the JSON of a request, the base64 of its media made while it is sent."""
    # Escaped to ASCII, so that half a surrogate pair in a prompt reaches the NIM's own judgement.
    text = json.dumps(request)
    head, tail = text.split(media.mark) if media else (text, "")
    size = media.path.stat().st_size if media else 0

    async def pieces():
        yield head.encode()
        if media:
            with media.path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield pybase64.b64encode(piece)
        yield tail.encode()

    return len(head) + 4 * -(-size // 3) + len(tail), pieces


class Client:
    """One conversation with the NIM at `address`.

    `doing` says in a few words what is going on; whoever ticks may show it. `starting`: whether what state() has seen
    is a NIM that is not ready yet, and no other server, or none.
    """

    def __init__(self, address: Address, settings: CosmosSettings):
        self.address = address
        self.settings = settings
        self.doing = "Waiting for an earlier job"
        self.starting = False

    async def generate(self, job: Job, path: Path) -> Result:
        """Have the video of `job` made and written to `path`.

        What it starts from is fitted and waits beside `path` until it is sent. Raises the failures of errors.py; then
        nothing is left at `path`, and what the family cannot make has not been sent.
        """
        sent = path.with_name(f"{path.stem}-sent")
        lock = LOCKS.setdefault(self.address.url, threading.Lock())
        while not lock.acquire(blocking=False):
            await asyncio.sleep(TICK_SECONDS)
        try:
            async with self.connect(CONNECT_SECONDS) as http:
                await self.wait_ready(http)
                family = family_set(self.settings.cosmos_family) or await self.ask_family(http, job.mode)
                family.check(job)
                media = None
                if job.mode == "video2world":
                    self.doing = "Fitting what the video starts from"
                    media = await in_thread(partial(family.fit, job, sent))
                body = body_of(family.request(job, media).body(), media)
                limit = self.settings.cosmos_timeout_seconds or family.timeout_seconds
                self.doing = f"{family.label} is making the video"
                try:
                    async with asyncio.timeout(limit):
                        reply = await self.infer(http, *body, path)
                except TimeoutError:
                    raise self.failure(errors.CosmosTimedOut, limit=f"{limit:g}") from None
                return Result(path, reply.upsampled_prompt or job.prompt)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise errors.CannotWrite(folder=path.parent, reason=error.strerror or error) from error
            raise
        finally:
            sent.unlink(missing_ok=True)
            lock.release()

    def connect(self, seconds: float):
        """An httpx.AsyncClient for the NIM, which waits so long for each piece of an answer."""
        # Costs a tenth of a second, which would otherwise be paid at ComfyUI's start.
        import httpx

        # trust_env is off: a proxy or .netrc of the environment has no business between us and a NIM of our own.
        # verify costs 40 ms of reading certificates, so only where there are any.
        secure = self.address.url.startswith("https://")
        return httpx.AsyncClient(headers=self.headers(), timeout=seconds, trust_env=False, verify=secure)

    def headers(self) -> dict[str, str]:
        key = self.settings.ngc_api_key
        secure = key and self.address.url.startswith("https://")
        return {"Authorization": f"Bearer {key.get_secret_value()}"} if secure else {}

    def failure(self, kind: type[errors.Failure], **values) -> errors.Failure:
        """A failure at our address. A NIM, or a proxy before it, may quote our headers: the key is blotted out."""
        if key := self.settings.ngc_api_key:
            values = {name: str(value).replace(key.get_secret_value(), "***") for name, value in values.items()}
        return kind(**vars(self.address), **values)

    async def get(self, http, path: str) -> tuple[int, dict]:
        """Status and JSON object of a GET; {} when the body is none, or too large. Raises httpx.HTTPError."""
        raw = b""
        # What is compressed could be any size; and not everything that listens on a port is a NIM.
        async with http.stream("GET", self.address.url + path, headers={"Accept-Encoding": "identity"}) as response:
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > MAX_ANSWER_BYTES:
                    return response.status_code, {}
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        return response.status_code, body if isinstance(body, dict) else {}

    async def state(self, http) -> str | None:
        """None when the NIM is ready, otherwise what is the matter in words."""
        import httpx

        self.starting = False
        try:
            status, body = await self.get(http, "/v1/health/ready")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"it cannot be reached ({error or type(error).__name__})"
        if 300 <= status < 400:
            raise self.failure(errors.CosmosRedirected, status=status)
        if status == 200 and body.get("status") == "ready":
            return None
        self.starting = status >= 500 or "status" in body
        return f"it answers HTTP {status}, {words_of(body) or body.get('status') or 'without a reason'}"

    async def wait_ready(self, http):
        started = time.monotonic()
        while state := await self.state(http):
            left = started + self.settings.cosmos_wait_seconds - time.monotonic()
            if left <= 0:
                raise self.failure(errors.CosmosNotReady, state=state)
            self.doing = "Cosmos is starting"
            await asyncio.sleep(min(left, 1))

    async def ask_family(self, http, wanted: str) -> type[Family]:
        """The family of the NIM. Raises CosmosFamilyUnknown, or CosmosOtherMode when it cannot serve the mode."""
        import httpx

        descriptions = []
        for path in ("/v1/metadata", "/openapi.json"):
            try:
                status, body = await self.get(http, path)
            except httpx.HTTPError:
                status, body = 0, {}
            descriptions.append(body if status == 200 else {})
        family, served = recognise(*descriptions, url=self.address.url)
        if served and served.lower() != wanted:
            setting = f"COSMOS_{wanted.upper()}_URL"
            raise self.failure(errors.CosmosOtherMode, served=served, wanted=wanted, own_setting=setting)
        return family

    async def infer(self, http, length: int, pieces: Callable[[], AsyncIterator[bytes]], path: Path) -> Reply:
        import httpx

        received = 0
        try:
            async with http.stream(
                "POST",
                self.address.url + "/v1/infer",
                content=pieces(),
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                    "Content-Length": str(length),
                },
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            ) as response:
                if response.status_code != 200:
                    await self.refuse(response)
                limit = self.settings.xavi9_max_reply_mb * 1_000_000
                with path.open("wb") as file:
                    reader = ReplyReader(file)
                    async for chunk in response.aiter_bytes():
                        received += len(chunk)
                        if received > limit:
                            raise self.failure(errors.CosmosReplyTooLarge, limit=self.settings.xavi9_max_reply_mb)
                        self.doing = f"Receiving the video, {received / 1e6:.0f} MB"
                        reader.feed(chunk)
                rest = reader.close()
                if not reader.video_bytes:
                    raise self.failure(errors.CosmosNoVideo, words=words_of(rest) or "it gives no reason")
                check_video(path)
                return reply_of(rest)
        except httpx.HTTPError as error:
            values = {"megabytes": round(received / 1e6, 1), "reason": str(error) or type(error).__name__}
            raise self.failure(errors.CosmosConnectionLost, **values) from error
        except BrokenReply as error:
            raise self.failure(errors.CosmosBadReply, reason=error) from None

    async def refuse(self, response):
        """Raise the failure that an HTTP status other than 200 stands for, with the NIM's own words."""
        status = response.status_code
        if 300 <= status < 400:
            raise self.failure(errors.CosmosRedirected, status=status)
        raw = b""
        async for chunk in response.aiter_bytes():
            raw += chunk
            if len(raw) > MAX_ERROR_BYTES:
                break
        try:
            body = json.loads(raw)
        except ValueError:
            body = re.sub(r"<[^>]*>", " ", raw.decode(errors="replace"))
        words = words_of(body) or "no reason given"
        # A backend that fails may speak of blocked streams; a guardrail that does is a 4xx.
        if re.search("guardrail|safety" if status >= 500 else "guardrail|safety|unsafe|blocked", words, re.I):
            kind = errors.CosmosGuardrail
        else:
            kind = errors.CosmosFailed if status >= 500 else errors.CosmosRefused
        raise self.failure(kind, status=status, words=words)


def words_of(body) -> str:
    """The human part of an error body: FastAPI's detail, NVIDIA's error.message, problem+json, or the text itself.

    At most MAX_WORDS characters, white space folded; empty when it says nothing.
    """
    match body:
        case {"detail": str(text)} | {"error": {"message": str(text)}} | {"error": str(text)} | {"message": str(text)}:
            pass
        case {"detail": [*details]} | {"errors": [*details]} if details:
            text = "; ".join(detail_of(it) for it in details)
        case {"title": str(text)}:
            pass
        case dict() if not body:
            text = ""
        case str(text):
            pass
        case _:
            text = json.dumps(body)
    return " ".join(text.split())[:MAX_WORDS]


def reply_of(rest: dict) -> Reply:
    """The reply's other fields; an odd one does not cost the video that came with it."""
    try:
        return Reply.model_validate(rest)
    except ValidationError as error:
        log.warning("Cosmos sent its video with odd fields, which are left out: %s", error.errors(include_url=False))
        return Reply()


def detail_of(detail) -> str:
    match detail:
        case {"loc": [*loc], "msg": str(message)}:
            return f"{'.'.join(map(str, loc))}: {message}"
        case {"message": str(message)} | str(message):
            return message
        case _:
            return json.dumps(detail)


def check_video(path: Path):
    """Raise BrokenReply unless the file opens as one with a picture in it; nothing is decoded."""
    try:
        with av.open(path) as container:
            found = bool(container.streams.video)
    except (av.FFmpegError, ValueError) as error:
        raise BrokenReply(f"what it sent is not a video ({error})") from None
    if not found:
        raise BrokenReply("what it sent has no picture")
