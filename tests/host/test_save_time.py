"""What Video Save does with a video on its way into the file, in a real server; and a server that is killed."""

import os
import signal
from pathlib import Path

import PIL.Image
import pytest
from clips import pictures, probe, write_file
from comfy_host import ComfyHost, PromptRejected
from graphs import until

TONE = {"class_type": "EmptyAudio", "inputs": {"duration": 2.0, "sample_rate": 48_000, "channels": 2}}


@pytest.fixture(scope="module")
def clip(server):
    return write_file(server.base / "input" / "save_time.mp4", frames=24)


def graph(prefix: str, file: str = "save_time.mp4", **inputs) -> dict:
    given = {"video": ["load", 0], "filename_prefix": prefix, "format": "auto", **inputs}
    return {"load": {"class_type": "LoadVideo", "inputs": {"file": file}}, "tone": TONE,
            "save": {"class_type": "Xavi9VideoSave", "inputs": given}}


def record_of(server: ComfyHost, graph: dict) -> tuple[Path, dict]:
    entry = server.run(graph)
    assert server.error(entry) is None, server.error(entry)
    [record] = entry["outputs"]["save"]["xavi9_video"]
    return server.base / record["folder"] / record["path"], record


def parts(folder: Path) -> list[Path]:
    return [it for it in folder.rglob(".*") if it.suffix == ".part"]


def test_there_and_back_and_again(server, clip):
    path, record = record_of(server, graph("again/v", pingpong=True, loop_count=1))
    assert record["frames"] == int(probe(path)["video"]["nb_read_frames"]) == 2 * (24 + 22)
    assert record["encoder"] == "libx264" and record["seconds"] == pytest.approx(92 / 24, abs=0.001)
    assert record["notes"] == ["the sound ends at 1.00 s, before the picture"]
    found = pictures(path)
    assert abs(found[23].astype(int) - found[0]).mean() > 20 > 5 > abs(found[24].astype(int) - found[22]).mean()


@pytest.mark.parametrize(
    ("inputs", "frames", "sounds", "encoder"),
    [
        ({"sound": "hold picture"}, 48, True, "libx264"),
        ({"sound": "cut sound"}, 24, True, "copy"),
        ({"sound": "no sound"}, 24, False, "copy"),
    ],
)
def test_the_sound_that_was_given_and_the_picture_are_made_one_length(server, clip, inputs, frames, sounds, encoder):
    path, record = record_of(server, graph("length/v", audio=["tone", 0], **inputs))
    assert (record["frames"], record["encoder"]) == (frames, encoder)
    assert bool(probe(path)["audio"]) == sounds


def test_a_poster_lies_beside_the_video(server, clip):
    path, record = record_of(server, graph("poster/v", poster="last"))
    with PIL.Image.open(path.with_suffix(".jpg")) as poster:
        assert poster.size == (128, 96) and abs(int(poster.convert("RGB").getpixel((64, 48))[2]) - 245) < 12
    path.with_suffix(".jpg").rename(path.with_name("v_00002_.jpg"))
    path, record = record_of(server, graph("poster/v", poster="first"))
    assert path.name == "v_00003_.mp4" and path.with_suffix(".jpg").is_file() and record["notes"] == []


def test_where_no_gpu_encodes_the_video_is_made_in_software_and_one_line_says_why(server, clip):
    path, record = record_of(server, graph("hardware/v", **{"format": "mp4-h264", "format.encoder": "hardware"}))
    assert record["frames"] == len(pictures(path)) == 24
    if record["encoder"] != "h264_nvenc":
        [note] = record["notes"]
        assert record["encoder"] == "libx264"
        assert note.startswith("encoded in software: no h264_nvenc works here (PyAV: ")
        assert sum("encoded in software" in it for it in server.log().splitlines()) == 1


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"sound": "louder"}, "not in"),
        ({"loop_count": -1}, "smaller than min"),
        ({"poster": "best"}, "not in"),
        ({"format": "mp4-h264", "format.encoder": "gpu"}, "not in"),
    ],
)
def test_a_bad_choice_is_refused_before_anything_runs(server, clip, inputs, words):
    with pytest.raises(PromptRejected, match=words):
        server.post(graph("refused/v", **inputs))


def test_a_number_that_comes_by_a_link_is_named(server, clip):
    linked = graph("refused/v", loop_count=["number", 0])
    linked["number"] = {"class_type": "PrimitiveInt", "inputs": {"value": 1001}}
    error = server.error(server.run(linked))
    assert "loop_count is 1001; 0 to 1000 are allowed" in error["exception_message"]
    assert not (server.base / "output" / "refused").exists() or not list((server.base / "output" / "refused").iterdir())


def test_what_a_killed_server_left_is_removed_at_its_next_start_and_no_other_servers_part(tmp_path, server, clip):
    output = server.base / "output"
    # Minutes of work: the other server must not be done before the next one has started.
    write_file(server.base / "input" / "left.mp4", frames=240)
    long = {"format": "mp4-h264", "format.preset": "veryslow", "loop_count": 1000}
    shared = ["--output-directory", output, "--input-directory", server.base / "input"]
    try:
        with ComfyHost(tmp_path, args=shared) as killed:
            for host, name in ((killed, "killed"), (server, "other")):
                host.post(graph(f"left/{name}", "left.mp4", **long))
            until(lambda: len(parts(output)) == 2)
            os.killpg(killed.process.pid, signal.SIGKILL)
            killed.process.wait()
        # It lives on, but two busy cores would let no server start in time.
        os.kill(server.process.pid, signal.SIGSTOP)
        assert len(parts(output)) == 2
        with ComfyHost(tmp_path, args=shared):
            [kept] = parts(output)
            assert kept.name.startswith(".other")
    finally:
        # The tests that follow need it too.
        os.kill(server.process.pid, signal.SIGCONT)
        server.interrupt()
    until(lambda: not parts(output))
    assert list((output / "left").iterdir()) == []
