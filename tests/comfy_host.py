"""A real ComfyUI server with this pack in it, for tests, demo and benchmark."""

import atexit
import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import websocket
from setup_host import HOSTS, REPO, host_path

READY_SECONDS = 180
STOP_SECONDS = 10
TEXT_EVENT = 3  # BinaryEventTypes.TEXT of ComfyUI's protocol.py
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class HostError(Exception):
    """The server did not start, or it ended; the text ends with its log."""


class PromptRejected(Exception):
    """POST /prompt was answered with an error: .status is the HTTP status, .body the parsed JSON."""

    def __init__(self, status: int, body: dict):
        super().__init__(f"HTTP {status}: {json.dumps(body)}")
        self.status, self.body = status, body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """Ours, without what a developer may have set and a test must not see."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("COSMOS_", "XAVI9_")) and not name.lower().endswith("_proxy")
            and name not in ("NGC_API_KEY", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}


class ComfyHost:
    """A context manager: the server runs inside the block, in our interpreter and with a base directory of its own.

    base: directory for input, output, temp, models, user, custom_nodes and comfy.log; made if missing.
    env: environment variables added to ours. args: more ComfyUI flags. packs: node packs to link into custom_nodes.
    Entering raises HostError if the server ends or is not ready within 180 s. The server ends with the block, and
    also when this process dies in any way (the thread that started it must live as long: Linux watches the thread).
    Attributes: base, url, process, http (an httpx.Client of the server, for every route that has no method here).
    """

    def __init__(self, base: Path, *, env: Mapping[str, str] = {}, args: Sequence[str] = (),
                 packs: Sequence[Path] = (REPO,)):
        self.base, self.env, self.args, self.packs = Path(base).resolve(), env, args, packs
        self.client_id = uuid.uuid4().hex

    def __enter__(self) -> "ComfyHost":
        for folder in ("custom_nodes", "input", "output", "models", "user"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for pack in self.packs:
            link = self.base / "custom_nodes" / ("xavi9videos" if pack == REPO else pack.name)
            link.unlink(missing_ok=True)
            link.symlink_to(pack)
        port, parent = free_port(), os.getpid()
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

        def die_with_parent() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with open(self.base / "comfy.log", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, host_path() / "main.py", "--cpu", "--use-pytorch-cross-attention",
                 "--listen", "127.0.0.1", "--port", str(port), "--base-directory", self.base,
                 "--database-url", f"sqlite:///{self.base}/user/comfyui.db", "--disable-auto-launch", *self.args],
                # Bytecode halves the start, but COMFYUI_PATH's tree is not ours to write to.
                env={**clean_environment(), "PYTHONPYCACHEPREFIX": str(HOSTS / "pycache"), **self.env},
                cwd=self.base, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_parent)
        atexit.register(self.stop)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        limit = time.monotonic() + READY_SECONDS
        while time.monotonic() < limit:
            self._check_alive()
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/system_stats").is_success:
                    return
            time.sleep(0.1)
        raise HostError(f"ComfyUI is not ready after {READY_SECONDS} s:\n{self._log_tail()}")

    def _check_alive(self) -> None:
        if self.process.poll() is not None:
            raise HostError(f"ComfyUI ended with status {self.process.returncode}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self.log().splitlines()[-40:])

    def stop(self) -> None:
        """Ends the server and whatever it started: SIGINT, and after 10 s SIGKILL."""
        atexit.unregister(self.stop)
        self.http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        """All that the server has written so far."""
        return (self.base / "comfy.log").read_text(errors="replace")

    def object_info(self) -> dict:
        """Every node's description, by id. Raises httpx.HTTPError."""
        return self.http.get("/object_info").raise_for_status().json()

    def post(self, prompt: dict, workflow: dict | None = None) -> str:
        """Queues a graph in API format and returns its prompt id; workflow is the editor's file, saved in the results.

        Raises PromptRejected if ComfyUI does not accept it.
        """
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        reply = self.http.post("/prompt", json={"prompt": prompt, "client_id": self.client_id, "extra_data": extra})
        if reply.is_client_error:
            raise PromptRejected(reply.status_code, reply.json())
        return reply.raise_for_status().json()["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 120) -> dict:
        """The history entry of a prompt that has ended, well or not. timeout in seconds.

        Raises TimeoutError, or HostError if the server ended.
        """
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            self._check_alive()
            history = self.http.get(f"/history/{prompt_id}").raise_for_status().json()
            if history:
                return history[prompt_id]
            time.sleep(0.05)
        raise TimeoutError(f"prompt {prompt_id} runs longer than {timeout} s:\n{self._log_tail()}")

    def run(self, prompt: dict, workflow: dict | None = None, timeout: float = 120) -> dict:
        """post() and wait()."""
        return self.wait(self.post(prompt, workflow), timeout)

    def interrupt(self) -> None:
        """Stops what runs now."""
        self.http.post("/interrupt").raise_for_status()

    def free(self, **flags: bool) -> None:
        """Asks for memory back: unload_models=True, free_memory=True. ComfyUI obeys within a second, not at once."""
        self.http.post("/free", json=flags).raise_for_status()

    def files(self, entry: dict) -> list[Path]:
        """The files that a history entry's nodes report, in the entry's order."""
        return [self.base / item["type"] / item["subfolder"] / item["filename"]
                for output in entry["outputs"].values() for items in output.values()
                for item in items if isinstance(item, dict) and "filename" in item]

    def error(self, entry: dict) -> dict | None:
        """The data of a history entry's execution_error message: exception_message, exception_type, node_id ..."""
        return next((data for kind, data in entry["status"]["messages"] if kind == "execution_error"), None)

    @contextlib.contextmanager
    def events(self) -> Iterator[list[dict]]:
        """Collects what /ws sends for our prompts, while the block lasts; one block at a time.

        The list holds {"type", "data", "at"} and {"type": "progress_text", "node", "text", "at"}, at being the
        time.monotonic() of arrival. Previews are left out.
        """
        connection = websocket.create_connection(f"{self.url.replace('http', 'ws')}/ws?clientId={self.client_id}",
                                                 http_no_proxy=["127.0.0.1"])
        connection.recv()  # the greeting: from here on the server knows us
        messages: list[dict] = []

        def collect() -> None:
            with contextlib.suppress(websocket.WebSocketException, OSError):
                while message := connection.recv():
                    if event := parse_event(message):
                        messages.append({**event, "at": time.monotonic()})

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        try:
            yield messages
        finally:
            # An orderly close, so that what the server has sent before it still arrives.
            with contextlib.suppress(websocket.WebSocketException, OSError):
                connection.send_close()
            thread.join(STOP_SECONDS)
            connection.close()


def parse_event(message: str | bytes) -> dict | None:
    """A message of /ws as a dict; None for a binary one that is no progress text."""
    if isinstance(message, str):
        return json.loads(message)
    kind, length = struct.unpack_from(">II", message)
    if kind != TEXT_EVENT:
        return None
    return {"type": "progress_text", "node": message[8:8 + length].decode(), "text": message[8 + length:].decode()}
