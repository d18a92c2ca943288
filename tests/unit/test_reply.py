"""The streaming reader of a NIM's reply, against json and base64 of the standard library."""

import base64
import io
import json
import random

import pytest
from xavi9videos.nodes.cosmos.reply import BrokenReply, ReplyReader

VIDEO = random.Random(1).randbytes(10_000)
TEXT = base64.b64encode(VIDEO).decode()


def read(body: bytes, size: int):
    file = io.BytesIO()
    reader = ReplyReader(file)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader.close(), file.getvalue()


@pytest.mark.parametrize("size", [1, 7, 64, 4096, 1 << 20])
@pytest.mark.parametrize(
    "before, after",
    [
        ("{", "}"),
        ('{"seed": 4, ', ', "upsampled_prompt": "a fox"}'),
        # The key inside a string is not the key.
        (r'{"upsampled_prompt": "say \"b64_video\": \"AAAA\" twice", ', "}"),
        ('{"note": "b64_video", ', ', "action": null}'),
    ],
)
def test_any_chunking_gives_the_same_video_and_rest(size, before, after):
    body = f'{before}"b64_video" : "{TEXT}"{after}'.encode()
    rest, video = read(body, size)
    assert video == VIDEO
    assert rest == json.loads(body) | {"b64_video": ""}


@pytest.mark.parametrize("size", [1, 50, 1 << 20])
def test_a_data_url_prefix_is_dropped(size):
    assert read(f'{{"b64_video": "data:video/mp4;base64,{TEXT}"}}'.encode(), size)[1] == VIDEO


def test_a_tiny_video_is_read():
    assert read(b'{"b64_video": "AAAA"}', 5)[1] == b"\0\0\0"


@pytest.mark.parametrize("body", [b'{"seed": 4}', b'{"b64_video": null}', b'{"b64_video": ""}'])
def test_a_reply_without_a_video_has_no_bytes(body):
    reader = ReplyReader(io.BytesIO())
    reader.feed(body)
    reader.close()
    assert reader.video_bytes == 0


@pytest.mark.parametrize(
    "body, reason",
    [
        (f'{{"b64_video": "{TEXT[:-7]}"}}', "damaged or cut"),
        (f'{{"b64_video": "{TEXT[:100]}*{TEXT[101:]}"}}', "damaged or cut"),
        (f'{{"b64_video": "{TEXT[:100]}****{TEXT[100:]}"}}', "damaged or cut"),
        (f'{{"b64_video": "{TEXT}', "middle of the video"),
        ("<html>Bad Gateway</html>", "not JSON: <html>"),
        ('["b64"]', "not a JSON object"),
        ("x" * 2_000_000, "first megabyte"),
        (f'{{"b64_video": "{TEXT}", "x": "{"y" * 2_000_000}"}}', "more than a megabyte"),
    ],
)
def test_a_broken_reply_says_why(body, reason):
    with pytest.raises(BrokenReply, match=reason):
        read(body.encode(), 4096)
