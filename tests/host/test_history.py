"""Saved videos over HTTP: listed, played, pictured, deleted; and what is refused, to whom, and with which words."""

import json
import os
import threading
from io import BytesIO
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from PIL import Image


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server of several users whose limit is no number."""
    args = ["--multi-user"]
    with ComfyHost(tmp_path_factory.mktemp("strict"), env={"XAVI9_KEEP_FILES": "none"}, args=args) as host:
        yield host


def graph(prefix: str, **inputs) -> dict:
    image = {"width": 640, "height": 480, "batch_size": 5, "color": 255}
    given = {"video": ["source", 0], "filename_prefix": prefix, "format": "mp4-h264", **inputs}
    return {"image": {"class_type": "EmptyImage", "inputs": image},
            "source": {"class_type": "CreateVideo", "inputs": {"images": ["image", 0], "fps": 24.0}},
            "save": {"class_type": "Xavi9VideoSave", "inputs": given}}


def save(host: ComfyHost, prefix: str, workflow: dict | None = None, **inputs) -> Path:
    """Saves a video; its path."""
    entry = host.run(graph(prefix, **inputs), workflow)
    assert host.error(entry) is None, host.error(entry)
    [record] = entry["outputs"]["save"]["xavi9_video"]
    return host.base / record["folder"] / record["path"]


def listed(host: ComfyHost, path: Path) -> dict | None:
    found = host.http.get("/xavi9/videos", params={"size": 100}).raise_for_status().json()
    places = {(it["type"], it["subfolder"], it["filename"]): it for it in found["videos"]}
    relative = path.relative_to(host.base / "output")
    return places.get(("output", str(relative.parent), relative.name))


def error(reply) -> tuple[int, str]:
    """The status of an answer, and the code of the error that it must be."""
    found = reply.json()["error"]
    assert set(found) == {"code", "message", "remedy"} and all(found.values())
    return reply.status_code, found["code"]


def test_a_video_is_listed_first_played_pictured_and_deleted(server):
    workflow = {"nodes": [{"id": 1, "title": "{a} \u4e2d"}]}
    path = save(server, "history/v", workflow, poster="first")
    mine, beside = path.with_suffix(".txt"), path.with_suffix(".jpg")
    mine.write_text("somebody's own")
    reply = server.http.get("/api/xavi9/videos").json()
    first = reply["videos"][0]
    assert reply["page"] == 1 and len(reply["videos"]) <= 24 and reply["limits"] == {"files": None, "bytes": None}
    assert first == listed(server, path) and first["kind"] == "video" and first["codec"] == "h264"
    assert first["bytes"] == path.stat().st_size and first["size"] == [640, 480] and first["seconds"] > 0.2
    assert str(server.base) not in json.dumps(reply)
    place = {it: first[it] for it in ("filename", "subfolder", "type")}
    assert server.http.get("/view", params=place).content == path.read_bytes()
    found = server.http.get(f"/xavi9/videos/{first['id']}/workflow").json()
    assert found["workflow"] == workflow and found["prompt"]["save"]["class_type"] == "Xavi9VideoSave"
    picture = server.http.get(f"/xavi9/videos/{first['id']}/poster")
    assert picture.headers["Content-Type"] == "image/jpeg" and Image.open(BytesIO(picture.content)).size == (320, 240)
    assert "private" in picture.headers["Cache-Control"]
    again = {"If-None-Match": picture.headers["ETag"]}
    known = server.http.get(f"/xavi9/videos/{first['id']}/poster", headers=again)
    assert known.status_code == 304 and not known.content
    assert beside.exists()
    assert server.http.delete(f"/api/xavi9/videos/{first['id']}").json()["id"] == first["id"]
    assert not path.exists() and not beside.exists() and mine.exists() and not listed(server, path)
    assert str(path) not in (server.base / "user/__xavi9videos/videos.jsonl").read_text()
    for method, rest in (("GET", "/poster"), ("GET", "/workflow"), ("DELETE", "")):
        gone = server.http.request(method, f"/xavi9/videos/{first['id']}{rest}", headers=again)
        assert error(gone) == (404, "video_unknown")


def test_a_changed_file_is_no_longer_ours_and_stays(server):
    path = save(server, "history/changed")
    video_id = listed(server, path)["id"]
    os.utime(path, (1, 1))
    assert error(server.http.delete(f"/xavi9/videos/{video_id}")) == (404, "video_unknown") and path.exists()


def test_a_file_that_links_have_taken_the_place_of_stays(server, tmp_path):
    path = save(server, "history/linked/v")
    video_id = listed(server, path)["id"]
    moved = path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(moved)
    assert error(server.http.delete(f"/xavi9/videos/{video_id}")) == (404, "video_unknown")
    assert (moved / path.name).exists()


# Of these the host finds no route of ours; the others reach it.
ELSEWHERE = ["..", "/etc/passwd", "{id}"]
HOSTILE = [*ELSEWHERE, "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..", "%00", "a" * 3000, "0" * 32, "*", "%F0%9F%A6%8A",
           "%2fetc%2fpasswd", "..%2f..%2foutput%2fhistory%2fv_00001_.mp4", "' OR 1=1", "\u202e"]


@pytest.mark.parametrize("given", HOSTILE)
def test_no_id_leads_to_anything_that_is_not_a_video_of_ours(server, given):
    def tree() -> set[Path]:
        found = {it for name in ("output", "user", "input") for it in (server.base / name).rglob("*")}
        return {it for it in found if it.suffix != ".lock"}

    before = tree()
    for method, rest in (("GET", "/poster"), ("GET", "/workflow"), ("DELETE", "")):
        reply = server.http.request(method, f"{server.url}/xavi9/videos/{given}{rest}")
        assert reply.status_code in (404, 405) and b"root:" not in reply.content
        assert given in ELSEWHERE or error(reply) == (404, "video_unknown")
    assert tree() == before


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=", "page=1.5", f"page={'9' * 5000}", "page=1e3", "page=999999999",
              "size=0", "size=101", "size=NaN"])  # fmt: skip
def test_wrong_page_numbers_are_refused(server, query):
    assert error(server.http.get(f"/xavi9/videos?{query}")) == (400, "out_of_range")


def test_a_page_beyond_the_last_is_empty(server):
    found = server.http.get("/xavi9/videos?page=100000").json()
    assert found["videos"] == [] and found["pages"] < 100_000


def test_other_methods_are_refused(server):
    for method, path in (("POST", "videos"), ("PUT", "videos/x"), ("POST", "videos/x"), ("DELETE", "videos")):
        assert server.http.request(method, f"/xavi9/{path}").status_code == 405
    assert server.http.delete("/xavi9/videos/x/poster").status_code == 405


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:1"}])
def test_a_page_of_another_site_deletes_nothing(server, uncached, headers):
    path = save(server, "history/origin")
    url = f"/xavi9/videos/{listed(server, path)['id']}"
    assert server.http.delete(url, headers=headers).status_code == 403 and path.exists()
    assert "Access-Control-Allow-Methods" not in server.http.options(url, headers=headers).headers
    assert server.http.delete(url, headers={"Origin": server.url}).status_code == 200 and not path.exists()


def test_an_unknown_user_is_refused_and_a_known_one_is_not(strict):
    video_id = "0" * 32
    asked = (("GET", "videos"), ("GET", f"videos/{video_id}/workflow"), ("DELETE", f"videos/{video_id}"))
    for headers in ({}, {"comfy-user": "nobody"}, {"comfy-user": "default"}, {"comfy-user": "__xavi9videos"}):
        for method, path in asked:
            assert error(strict.http.request(method, f"/xavi9/{path}", headers=headers)) == (401, "user_unknown")
    known = {"comfy-user": strict.http.post("/users", json={"username": "ana"}).json()}
    assert error(strict.http.delete(f"/xavi9/videos/{video_id}", headers=known)) == (404, "video_unknown")
    # Neither the <img> of a page nor a script that watches the server can name a user.
    assert error(strict.http.get(f"/xavi9/videos/{video_id}/poster")) == (404, "video_unknown")
    assert strict.http.get("/xavi9/health").status_code == 200


def test_a_bad_limit_takes_out_the_list_and_says_so_and_videos_are_saved(strict):
    assert save(strict, "v").exists()
    known = {"comfy-user": strict.http.post("/users", json={"username": "eva"}).json()}
    reply = strict.http.get("/xavi9/videos", headers=known)
    assert error(reply) == (500, "bad_setting") and "XAVI9_KEEP_FILES=none" in reply.json()["error"]["message"]
    assert len([it for it in strict.log().splitlines() if "XAVI9_KEEP_FILES=none" in it and "ERROR" in it]) == 1


def test_a_disk_that_does_not_answer_holds_up_no_other_request(strict):
    known = {"comfy-user": strict.http.post("/users", json={"username": "leo"}).json()}
    index = strict.base / "user/__xavi9videos/videos.jsonl"
    index.unlink(missing_ok=True)
    os.mkfifo(index)
    url, answers = f"/xavi9/videos/{'0' * 32}/workflow", []
    asking = threading.Thread(target=lambda: answers.append(strict.http.get(url, headers=known)))
    asking.start()
    try:
        asking.join(1)
        assert asking.is_alive() and strict.http.get("/system_stats").elapsed.total_seconds() < 1
    finally:
        index.write_bytes(b"")
        asking.join(10)
        index.unlink()
    assert error(answers[0]) == (404, "video_unknown")
