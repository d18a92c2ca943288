"""Clean-up on real servers: two on one folder keep the limit, and a prompt loses no video that it still reads."""

import json
from pathlib import Path

import pytest
from comfy_host import ComfyHost

FILES = 4


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two servers that share their output and user folders, with a limit."""
    base = tmp_path_factory.mktemp("two")
    for name in ("output", "user"):
        (base / name).mkdir()
    args = ["--output-directory", str(base / "output"), "--user-directory", str(base / "user")]
    env = {"XAVI9_KEEP_FILES": str(FILES)}
    with ComfyHost(base / "a", env=env, args=args) as first, ComfyHost(base / "b", env=env, args=args) as second:
        first.http.get("/users")
        yield base, first, second


def drawn(color: int, prefix: str, **inputs) -> dict:
    image = {"width": 64, "height": 48, "batch_size": 3, "color": color}
    silence = {"duration": 0.2, "sample_rate": 44_100, "channels": 1}
    source = {"images": ["image", 0], "fps": 24.0, "audio": ["sound", 0]}
    return {"image": {"class_type": "EmptyImage", "inputs": image},
            "sound": {"class_type": "EmptyAudio", "inputs": silence},
            "source": {"class_type": "CreateVideo", "inputs": source},
            "save": saver(["source", 0], prefix, **inputs)}


def saver(video: list, prefix: str, **inputs) -> dict:
    given = {"video": video, "filename_prefix": prefix, "format": "mp4-h264", **inputs}
    return {"class_type": "Xavi9VideoSave", "inputs": given}


def videos(base: Path) -> list[str]:
    return sorted(it.name for it in (base / "output").rglob("*.mp4"))


def test_two_servers_on_one_folder_stay_within_the_limit_and_every_save_succeeds(two):
    base, *hosts = two
    theirs = base / "output" / "race" / "theirs_00001_.mp4"
    theirs.parent.mkdir()
    theirs.write_bytes(b"not ours")
    queued = [(host, host.post(drawn(color, "race/v"))) for color in range(1, 11) for host in hosts]
    saved = {}
    for host, prompt_id in queued:
        entry = host.wait(prompt_id)
        assert host.error(entry) is None
        [path] = host.files(entry)
        saved[entry["status"]["messages"][-1][1]["timestamp"]] = path.name
    left = videos(base)
    assert len(left) == FILES + 1 and theirs.name in left
    # Not by its number: one that held back for long may take the number of a video that is gone by then.
    assert saved[max(saved)] in left
    lines = [json.loads(it) for it in (base / "user/__xavi9videos/videos.jsonl").read_text().splitlines()]
    assert sorted(Path(it["path"]).name for it in lines) == sorted({*left} - {theirs.name})
    said = [it for host in hosts for it in host.log().splitlines() if "Removed" in it and "XAVI9_KEEP_FILES=4" in it]
    assert len(said) == 20 - FILES
    assert not [it for host in hosts for it in host.log().splitlines() if "Old videos" in it or "Traceback" in it]
    limits = hosts[0].http.get("/xavi9/videos").json()
    assert limits["total"] == FILES and limits["limits"] == {"files": FILES, "bytes": None}


def test_a_video_that_the_running_prompt_still_reads_stays_until_it_ends(two):
    base, host, _ = two
    graph = drawn(99, "chain/first")
    # Each is made of the one before, and the last of the very first.
    for number in range(6):
        graph[str(number)] = saver([str(number - 1) if number else "save", 0], f"chain/{number}")
    graph["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["5", 0]}}
    graph["last"] = saver(["save", 0], "chain/last", audio=["parts", 1])
    entry = host.run(graph)
    assert host.error(entry) is None, host.error(entry)
    assert len([it for it in videos(base) if it.startswith(("first", "0", "1", "2", "3", "4", "5", "last"))]) == 8
    host.run(drawn(98, "chain/after"))
    ours = [it for it in videos(base) if not it.startswith("theirs")]
    assert len(ours) == FILES and "after_00001_.mp4" in ours and "last_00001_.mp4" in ours
