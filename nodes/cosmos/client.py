"""The HTTP side of a Cosmos NIM: one job at a time per address, never sent twice, closed at once when interrupted."""

import asyncio
import contextvars
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
from pydantic import ValidationError

from .. import errors
from ..settings import CosmosSettings
from .families import Family, Reply, Request, family_set, recognise
from .reply import BrokenReply, ReplyReader

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCKS: dict[str, threading.Lock] = {}
TICK_SECONDS = 0.2
CONNECT_SECONDS = 10
MAX_WORDS = 2000
MAX_ERROR_BYTES = 1 << 16


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


def text2world_address(settings: CosmosSettings) -> Address:
    if settings.cosmos_text2world_url:
        return Address(settings.cosmos_text2world_url, "COSMOS_TEXT2WORLD_URL", "cosmos-text2world")
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


class Client:
    """One conversation with the NIM at `address`.

    `doing` says in a few words what is going on; whoever ticks may show it.
    """

    def __init__(self, address: Address, settings: CosmosSettings):
        self.address = address
        self.settings = settings
        self.doing = "Waiting for an earlier job"

    async def generate(self, request: Callable[[type[Family]], Request], prompt: str, path: Path) -> Result:
        """Have one video made and written to `path`.

        `request` makes the family's body and may raise, before anything is sent. Raises the Cosmos failures of
        errors.py; then nothing is left at `path`.
        """
        # Costs a tenth of a second, which would otherwise be paid at ComfyUI's start.
        import httpx

        lock = LOCKS.setdefault(self.address.url, threading.Lock())
        while not lock.acquire(blocking=False):
            await asyncio.sleep(TICK_SECONDS)
        try:
            # trust_env is off: a proxy or .netrc of the environment has no business between us and a NIM of our own.
            # verify costs 40 ms of reading certificates, so only where there are any.
            async with httpx.AsyncClient(
                headers=self.headers(),
                timeout=httpx.Timeout(CONNECT_SECONDS),
                trust_env=False,
                verify=self.address.url.startswith("https://"),
            ) as http:
                await self.wait_ready(http)
                family = family_set(self.settings.cosmos_family) or await self.ask_family(http)
                body = request(family).body()
                limit = self.settings.cosmos_timeout_seconds or family.timeout_seconds
                self.doing = f"{family.__name__} is making the video"
                try:
                    async with asyncio.timeout(limit):
                        reply = await self.infer(http, body, path)
                except TimeoutError:
                    raise self.failure(errors.CosmosTimedOut, limit=f"{limit:g}") from None
                return Result(path, reply.upsampled_prompt or prompt)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise errors.CannotWrite(folder=path.parent, reason=error.strerror or error) from error
            raise
        finally:
            lock.release()

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
        """Status and JSON object of a GET; {} when the body is none. Raises httpx.HTTPError."""
        response = await http.get(self.address.url + path)
        try:
            body = response.json()
        except ValueError:
            body = None
        return response.status_code, body if isinstance(body, dict) else {}

    async def state(self, http) -> str | None:
        """None when the NIM is ready, otherwise what is the matter in words."""
        import httpx

        try:
            status, body = await self.get(http, "/v1/health/ready")
        except httpx.HTTPError as error:
            return f"it cannot be reached ({error or type(error).__name__})"
        if 300 <= status < 400:
            raise self.failure(errors.CosmosRedirected, status=status)
        if status == 200 and body.get("status") == "ready":
            return None
        return f"it answers HTTP {status}, {words_of(body) or body.get('status') or 'without a reason'}"

    async def wait_ready(self, http):
        started = time.monotonic()
        while state := await self.state(http):
            left = started + self.settings.cosmos_wait_seconds - time.monotonic()
            if left <= 0:
                raise self.failure(errors.CosmosNotReady, state=state)
            self.doing = "Cosmos is starting"
            await asyncio.sleep(min(left, 1))

    async def ask_family(self, http) -> type[Family]:
        import httpx

        descriptions = []
        for path in ("/v1/metadata", "/openapi.json"):
            try:
                status, body = await self.get(http, path)
            except httpx.HTTPError:
                status, body = 0, {}
            descriptions.append(body if status == 200 else {})
        return recognise(*descriptions, url=self.address.url)

    async def infer(self, http, body: dict, path: Path) -> Reply:
        import httpx

        received = 0
        try:
            async with http.stream(
                "POST",
                self.address.url + "/v1/infer",
                # Escaped to ASCII, so that half a surrogate pair in a prompt reaches the NIM's own judgement.
                content=json.dumps(body),
                headers={
                    "Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"
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
