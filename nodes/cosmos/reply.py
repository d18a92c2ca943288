"""A NIM's reply read as it streams: the video goes to a file, so that memory stays flat; the rest is small JSON."""

import binascii
import json
import re
from typing import BinaryIO

import pybase64

# Inside a JSON string every quotation mark is escaped, so this can only be the key itself. The second half waits for
# some characters after the opening quotation mark, among them a data URL's prefix.
VIDEO_KEY = re.compile(rb'"b64_video"\s*:\s*"(?=[^"]{64}|[^"]*")(?:data:[^,"]*,)?')
MAX_REST = 1 << 20


class BrokenReply(ValueError):
    """The reply cannot be what a NIM sends; the text says why."""


class ReplyReader:
    """Feed it the body of POST /v1/infer chunk by chunk; it writes the decoded video to `file`.

    Raises BrokenReply for base64 that is damaged or cut, for a rest over 1 MB, and for a body that is not JSON.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.rest = b""
        self.pending = b""
        self.state = "before"
        self.video_bytes = 0

    def feed(self, chunk: bytes):
        if self.state == "before":
            self.rest += chunk
            if found := VIDEO_KEY.search(self.rest):
                chunk = self.rest[found.end() :]
                self.rest = self.rest[: found.end()]
                self.state = "inside"
            elif len(self.rest) > MAX_REST:
                raise BrokenReply("its first megabyte holds no video")
        if self.state == "inside":
            end = chunk.find(b'"')
            self.decode(chunk if end < 0 else chunk[:end], last=end >= 0)
            if end >= 0:
                self.state = "after"
                chunk = chunk[end:]
        if self.state == "after":
            self.rest += chunk
            if len(self.rest) > MAX_REST:
                raise BrokenReply("more than a megabyte follows the video")

    def decode(self, text: bytes, last: bool):
        text = self.pending + text
        whole = len(text) if last else len(text) // 4 * 4
        self.pending = text[whole:]
        try:
            self.video_bytes += self.file.write(pybase64.b64decode(text[:whole], validate=True))
        except binascii.Error as error:
            raise BrokenReply(f"the base64 of the video is damaged or cut ({error})") from None

    def close(self) -> dict:
        """The JSON object around the video, "b64_video" emptied. Raises BrokenReply."""
        if self.state == "inside":
            raise BrokenReply("it ends in the middle of the video")
        try:
            rest = json.loads(self.rest)
        except ValueError:
            raise BrokenReply(f"it is not JSON: {self.rest[:200].decode(errors='replace')}") from None
        if not isinstance(rest, dict):
            raise BrokenReply(f"it is not a JSON object: {self.rest[:200].decode(errors='replace')}")
        return rest
