"""A strict loopback Hugging Face: what /REPOSITORY/resolve/main/PATH answers, and the storage behind it.

The headers are those that huggingface_hub 2.4 reads (constants.py, utils/_http.py): X-Repo-Commit, X-Linked-Size and
X-Linked-Etag, which of an LFS file is its sha256, on a redirect to storage elsewhere; X-Error-Code on a refusal, 401
to nobody and 403 to one who has not accepted (errors.py, GatedRepoError), 401 without a code to a wrong token. The
storage takes signed addresses and, as S3 does, no second authorization beside the signature; it knows byte ranges.
"""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIGNATURE = "Signature=abc"


@dataclass
class Hub:
    """files: bytes by "owner/name/path". moved: the new names of repositories. gated: those that only `token` opens, if
    its owner has accepted them.

    breaks: how many bytes each coming answer of the storage sends before its line breaks; stalls: likewise, before it
    says nothing more until the hub ends. wrong: bytes that the storage sends instead of the file's, for each path.
    asked: what it was asked for, as (method, path, Range, Authorization).
    """

    files: dict[str, bytes]
    token: str = "hf_right"
    gated: set[str] = field(default_factory=set)
    moved: dict[str, str] = field(default_factory=dict)
    accepted: bool = True
    breaks: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)
    wrong: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple] = field(default_factory=list)

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Answer,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def ranges(self) -> list[str | None]:
        """The ranges that the storage was asked for."""
        return [asked for method, path, asked, _ in self.asked if path.startswith("/storage/")]


class Answer(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        authorization = self.headers["Authorization"]
        self.hub.asked.append((self.command, self.path, self.headers["Range"], authorization))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", self.path):
            self.resolve(*found.groups(), authorization)
        elif found := re.fullmatch(rf"/storage/(.+)\?{SIGNATURE}", self.path):
            self.store(found[1], authorization)
        else:
            self.reply(404)

    def resolve(self, repository: str, path: str, authorization: str | None):
        right = authorization == f"Bearer {self.hub.token}"
        if authorization and not right:
            return self.reply(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if repository in self.hub.moved:
            return self.reply(307, {"Location": f"/{self.hub.moved[repository]}/resolve/main/{path}"})
        if not any(name.startswith(f"{repository}/") for name in self.hub.files):
            return self.reply(401, {"X-Error-Code": "RepoNotFound"})
        if repository in self.hub.gated and not right:
            return self.reply(401, {"X-Error-Code": "GatedRepo"})
        if repository in self.hub.gated and not self.hub.accepted:
            return self.reply(403, {"X-Error-Code": "GatedRepo"})
        content = self.hub.files.get(f"{repository}/{path}")
        if content is None:
            return self.reply(404, {"X-Error-Code": "EntryNotFound"})
        # Another name of this machine, so that a client sees another host.
        storage = f"http://localhost:{self.server.server_port}/storage/{repository}/{path}?{SIGNATURE}"
        self.reply(302, {"Location": storage, "X-Repo-Commit": "0" * 40, "X-Linked-Size": str(len(content)),
                         "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def store(self, name: str, authorization: str | None):
        if authorization:
            return self.reply(400)
        content = self.hub.wrong.get(name, self.hub.files[name])
        start = 0
        if self.headers["Range"]:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= len(content):
                return self.reply(416, {"Content-Range": f"bytes */{len(content)}"})
        rest = content[start:]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        stalls = bool(self.hub.stalls)
        cuts = self.hub.stalls or self.hub.breaks
        sent = rest[: cuts.pop(0)] if cuts else rest
        self.reply(206 if start else 200, headers, sent, len(rest))
        if stalls:
            self.wfile.flush()
            self.hub.end.wait()

    def reply(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", length: int = 0):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        self.close_connection = True
