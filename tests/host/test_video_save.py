"""Video Save in a real server: every source, a name of its own, the workflow inside, its line in the index."""

import json
import re
import shutil
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import packets, pictures, probe, write_file
from comfy_host import ComfyHost, PromptRejected
from graphs import index, until

CUT = {"class_type": "Video Slice",
       "inputs": {"video": ["source", 0], "start_time": 0.5, "duration": 0.75, "strict_duration": False}}
AUDIO = {"class_type": "EmptyAudio", "inputs": {"duration": 5.0, "sample_rate": 44_100, "channels": 1}}
ODD_WORDS = 'caf\u00e9 "quoted" \\ back {a {b}} lone } and { \u4e2d\u6587 \U0001f98a\nnew line \x01'

SHOWN = {"mp4-h264": "video", "mp4-h265": "preview", "mp4-av1": "video", "webm-vp9": "video", "webm-av1": "video",
         "mov-prores": "preview", "mkv-ffv1": "preview", "webp": "image", "gif": "image", "png": "preview"}


@pytest.fixture(scope="module")
def clips(server):
    """What Load Video can open on the server."""
    folder = server.base / "input"
    write_file(folder / "plain.mp4", bf=0)
    write_file(folder / "plain.webm", codec="libvpx-vp9")
    (folder / "cut.mp4").write_bytes((folder / "plain.mp4").read_bytes()[:9000])
    for name, size, seconds in (("long", "640x360", 20), ("short", "960x540", 2.5)):
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=24:d={seconds}",
                        "-preset", "ultrafast", "-pix_fmt", "yuv420p", folder / f"{name}.mp4"], check=True)
    return folder


@pytest.fixture(scope="module")
def plain(server, tmp_path_factory):
    """A second server on the first one's output folder, without metadata, whose Cosmos room has a bad setting."""
    with ComfyHost(tmp_path_factory.mktemp("plain"), env={"COSMOS_TIMEOUT_SECONDS": "abc"},
                   args=["--disable-metadata", "--output-directory", server.base / "output"]) as host:
        yield host


def load(file: str) -> dict:
    return {"source": {"class_type": "LoadVideo", "inputs": {"file": file}}}


def drawn(color: int = 255, frames: int = 5, width: int = 64, height: int = 48, fps: float = 24.0) -> dict:
    image = {"width": width, "height": height, "batch_size": frames, "color": color}
    return {"image": {"class_type": "EmptyImage", "inputs": image},
            "source": {"class_type": "CreateVideo", "inputs": {"images": ["image", 0], "fps": fps}}}


def save(prefix: str, source: str = "source", **inputs) -> dict:
    given = {"video": [source, 0], "filename_prefix": prefix, "format": "mp4-h264", "save_to": "output", **inputs}
    return {"save": {"class_type": "Xavi9VideoSave", "inputs": given}}


def saved(host: ComfyHost, graph: dict, workflow: dict | None = None) -> Path:
    """Runs a graph and returns the one file that its history shows, in the shape that the editor plays."""
    entry = host.run(graph, workflow)
    assert host.error(entry) is None, host.error(entry)
    output = entry["outputs"]["save"]
    assert output["animated"] == [True]
    [path] = host.files(entry)
    assert path.is_file() and output["images"][0]["filename"] == path.name
    return path


def failed(host: ComfyHost, graph: dict) -> tuple[str, str]:
    error = host.error(host.run(graph))
    return error["exception_type"].rsplit(".", 1)[-1], error["exception_message"]


def strings_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        # Matroska writes names of tags in capitals.
        return {key.lower(): value for key, value in container.metadata.items()}


@pytest.mark.parametrize("format", ["auto", "mp4-h264"])
@pytest.mark.parametrize("source", ["file", "cut", "images", "sound"])
def test_every_source_in_every_format(server, clips, source, format):
    if source in ("file", "cut"):
        graph = load("plain.mp4") | ({"cut": CUT} if source == "cut" else {})
        size, rate, frames, sounds = (128, 96), 24, 18 if source == "cut" else 48, True
    else:
        graph = drawn(frames=15, fps=30.0)
        size, rate, frames, sounds = (64, 48), 30, 15, source == "sound"
        if sounds:
            graph["source"]["inputs"]["audio"] = ["audio", 0]
            graph["audio"] = AUDIO
    link = "cut" if source == "cut" else "source"
    path = saved(server, graph | save(f"sources/{source}", link, format=format))
    assert path.name.startswith(f"{source}_0000") and path.suffix == ".mp4"
    found = probe(path)
    assert (found["video"]["width"], found["video"]["height"]) == size
    assert (int(found["video"]["nb_read_frames"]), Fraction(found["video"]["avg_frame_rate"])) == (frames, rate)
    assert found["video"]["codec_name"] == "h264"
    assert (found["audio"]["codec_name"] if found["audio"] else None) == ("aac" if sounds else None)
    if sounds:
        assert float(found["audio"]["duration"]) == pytest.approx(frames / rate, abs=0.05)
    same = packets(path) == packets(clips / "plain.mp4")
    assert same == ((source, format) == ("file", "auto"))
    if (source, format) == ("cut", "auto"):
        assert packets(path) == packets(clips / "plain.mp4")[12:30], "a cut on a keyframe is copied too"


def test_what_was_saved_goes_on_as_the_video_that_it_is(server):
    graph = drawn(frames=7) | save("chain/first")
    graph |= {"components": {"class_type": "GetVideoComponents", "inputs": {"video": ["save", 0]}},
              "shown": {"class_type": "PreviewAny", "inputs": {"source": ["components", 2]}},
              "again": {"class_type": "Xavi9VideoSave",
                        "inputs": {"video": ["save", 0], "filename_prefix": "chain/second", "format": "auto"}}}
    entry = server.run(graph)
    assert server.error(entry) is None
    assert entry["outputs"]["shown"]["text"] == ["24.0"]
    assert packets(server.base / "output/chain/second_00001_.mp4") == packets(
        server.base / "output/chain/first_00001_.mp4")


def test_the_counter_goes_on_after_the_highest_and_nothing_is_overwritten(server):
    folder = server.base / "output" / "names"
    folder.mkdir()
    theirs = {"v_00003_.mp4": "a", "v_00007_.webm": "b", "v_00050_.txt": "c", "vv_00090_.mp4": "d", "v_x.mp4": "e"}
    for name, text in theirs.items():
        (folder / name).write_text(text)
    (folder / "v_00051_.mp4").mkdir()
    names = [saved(server, drawn(color) | save("names/v")).name for color in (1, 2)]
    assert names == ["v_00052_.mp4", "v_00053_.mp4"]
    assert {name: (folder / name).read_text() for name in theirs} == theirs


@pytest.mark.parametrize("prefix", ["../x", "/x", "sub/../../x", "", "n" * 300, "nul\0byte", "..", "../output-x/x"])
def test_a_prefix_that_leaves_the_folder_is_refused_and_writes_nothing(server, prefix):
    def tree() -> set[Path]:
        # Not temp, where core keeps its own previews.
        return set(server.base.parent.rglob("*.mp4")) | set((server.base / "output").rglob("*"))

    before = tree()
    kind, message = failed(server, drawn() | save(prefix))
    assert kind == "BadFilenamePrefix" and "inside ComfyUI's output folder" in message
    assert "\n" not in message.strip()
    assert tree() == before and not Path("/x_00001_.mp4").exists()


@pytest.mark.parametrize(
    "prefix, name",
    [
        ("made/deep/er/v", "made/deep/er/v_00001_.mp4"),
        ("made/slash/", "made/slash_00001_.mp4"),
        ("made/%width%x%height%/%year%", f"made/64x48/{time.localtime().tm_year}_00001_.mp4"),
        ("made/./a/../dots", "made/dots_00001_.mp4"),
        ("made/ca\u00f1\u00f3n \U0001f98a", "made/ca\u00f1\u00f3n \U0001f98a_00001_.mp4"),
    ],
)
def test_folders_and_placeholders_of_a_prefix(server, prefix, name):
    path = saved(server, drawn() | save(prefix))
    assert path == server.base / "output" / name
    assert sorted(path.parent.glob(".*")) == []


def test_temp_saves_lie_in_temp_and_are_not_indexed(server):
    before = index(server)
    path = saved(server, drawn() | save("preview/v", save_to="temp"))
    assert path == server.base / "temp/preview/v_00001_.mp4"
    assert index(server) == before


@pytest.mark.parametrize(
    "name, value, known",
    [
        ("format", "nope", f"auto, {', '.join(SHOWN)}"),
        ("format", None, "auto, mp4-h264"),
        ("save_to", "input", "'temp'"),
        ("format.crf", 99, "51"),
        ("format.preset", "warp", "'ultrafast'"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(server, name, value, known):
    with pytest.raises(PromptRejected) as rejected:
        server.post(drawn() | save("refused/v", **{name: value}))
    assert rejected.value.status == 400 and known in json.dumps(rejected.value.body)


@pytest.mark.parametrize("format", SHOWN)
def test_every_format_is_saved_shown_and_recorded(server, format):
    graph = drawn(frames=7, width=96, height=64) | {"audio": AUDIO}
    graph |= save("formats/v", format=format, audio=["audio", 0])
    graph |= {"again": {"class_type": "GetVideoComponents", "inputs": {"video": ["save", 0]}},
              "shown": {"class_type": "PreviewAny", "inputs": {"source": ["again", 2]}}}
    graph["save"]["inputs"]["filename_prefix"] = f"formats/{format}"
    entry = server.run(graph, {"nodes": []})
    assert server.error(entry) is None, server.error(entry)
    assert entry["outputs"]["shown"]["text"] == ["24.0"], "what goes on is a VIDEO that can be read"
    output = entry["outputs"]["save"]
    [record] = output["xavi9_video"]
    path = server.base / record["folder"] / record["path"]
    assert path == server.base / "output/formats" / f"{format}_00001_{path.suffix}"
    files = [path] if path.is_file() else list(path.iterdir())
    assert record["bytes"] == sum(it.stat().st_size for it in files) and len(files) == (7 if format == "png" else 1)
    assert (record["frames"], record["width"], record["height"], record["rate"]) == (7, 96, 64, "24")
    assert record["took"] > 0 and record["encoder"] and record["seconds"] == pytest.approx(7 / 24, abs=0.001)
    [picture] = output["images"]
    shown = server.base / picture["type"] / picture["subfolder"] / picture["filename"]
    if SHOWN[format] == "preview":
        found = probe(shown)
        assert picture["type"] == "temp" and output["animated"] == [True]
        assert (found["video"]["codec_name"], found["video"]["pix_fmt"]) == ("h264", "yuv420p")
        assert int(found["video"]["nb_read_frames"]) == 7 and bool(found["audio"]) == (format != "png")
    else:
        assert shown == path and output.get("animated") == (None if format == "gif" else [True])
    assert any(it["path"] == str(path) for it in index(server)) == path.is_file()


def test_a_size_or_rate_that_a_format_cannot_hold_is_refused_by_name(server):
    for graph, format, kind in ((drawn(width=2, height=2), "mp4-av1", "EncoderRefused"),
                                (drawn(fps=120.0), "gif", "RateTooHigh")):
        error, message = failed(server, graph | save("refused/v", format=format))
        assert error == kind and format in message and "mp4-h264" in message
    assert not list((server.base / "output").glob("refused/*"))


def test_a_missing_format_is_refused_with_the_known_ones(server):
    graph = drawn() | save("refused/v")
    del graph["save"]["inputs"]["format"]
    with pytest.raises(PromptRejected, match="auto, mp4-h264"):
        server.post(graph)


def test_the_options_of_a_format_reach_the_encoder(server):
    path = saved(server, drawn() | save("options/v", **{"format.crf": 44, "format.bit_depth": "10"}))
    assert probe(path)["video"]["pix_fmt"] == "yuv420p10le" and b"crf=44.0" in path.read_bytes()


@pytest.mark.parametrize("file", ["plain.mp4", "plain.webm", None])
def test_prompt_workflow_and_our_own_tag_are_inside_and_come_back_whole(server, clips, file):
    graph = (load(file) if file else drawn()) | save("tags/v", format="auto")
    graph["note"] = {"class_type": "PrimitiveString", "inputs": {"value": ODD_WORDS}}
    workflow = {"nodes": [{"id": 1, "title": ODD_WORDS}], ODD_WORDS: {"empty": {}}, "version": 0.4}
    path = saved(server, graph, workflow)
    assert path.suffix == Path(file or "x.mp4").suffix
    raw = strings_of(path)
    found = json.loads(raw["prompt"])
    found["source"].pop("is_changed", None)  # the host's own note
    assert found == graph and json.loads(raw["workflow"]) == workflow
    assert set(json.loads(raw["xavi9"])) == {"version"}
    # The editor counts braces in a WebM, those within strings too.
    assert all(raw[it].count("{") == raw[it].count("}") for it in ("prompt", "workflow"))
    if path.suffix == ".mp4":
        data = path.read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_half_a_surrogate_pair_spoils_no_save(server):
    # The editor sends what a text cut inside an emoji holds as an escape, and json.loads takes it.
    graph = drawn() | save("tags/half")
    graph["note"] = {"class_type": "PrimitiveString", "inputs": {"value": "half \ud83d"}}
    body = json.dumps({"prompt": graph, "client_id": server.client_id})
    reply = server.http.post("/prompt", content=body, headers={"Content-Type": "application/json"})
    entry = server.wait(reply.raise_for_status().json()["prompt_id"])
    assert server.error(entry) is None
    assert json.loads(strings_of(server.files(entry)[0])["prompt"])["save"] == graph["save"]


def test_a_server_without_metadata_writes_none(plain, server, clips):
    shutil.copy(clips / "plain.webm", plain.base / "input")
    for name, source in (("drawn", drawn()), ("copied", load("plain.webm"))):
        entry = plain.run(source | save(f"bare/{name}", format="auto"), {"nodes": []})
        assert plain.error(entry) is None
        [path] = (server.base / "output" / "bare").glob(f"{name}_*")
        assert not {"prompt", "workflow", "xavi9"} & set(strings_of(path))
        assert b"class_type" not in path.read_bytes()
    assert [Path(it["path"]).name for it in index(plain)] == ["drawn_00001_.mp4", "copied_00001_.webm"]


def test_a_bad_setting_takes_out_its_room_and_says_which_and_why(plain):
    info = plain.object_info()
    assert "Xavi9VideoSave" in info and "Xavi9CosmosText2World" not in info
    [line] = [it for it in plain.log().splitlines() if "COSMOS_TIMEOUT_SECONDS" in it]
    assert "ERROR" in line and "'cosmos'" in line
    assert "COSMOS_TIMEOUT_SECONDS=abc" in line and "valid number" in line
    assert line.count("then restart ComfyUI") == 1, "the cure is said once"


@pytest.mark.parametrize("between", [False, True])
def test_a_saved_video_has_its_line_in_the_index(server, nim, between):
    inputs = {"prompt": "un zorro \u4e2d", "negative_prompt": "", "aspect_ratio": "16:9", "resolution": "256",
              "frames": 25, "fps": 24, "steps": 35, "guidance_scale": 7.0, "seed": 4294967295,
              "prompt_upsampling": True}
    graph = {"source": {"class_type": "Xavi9CosmosText2World", "inputs": inputs}}
    if between:
        graph |= {"cut": CUT,
                  "parts": {"class_type": "GetVideoComponents", "inputs": {"video": ["cut", 0]}},
                  "made": {"class_type": "CreateVideo", "inputs": {"images": ["parts", 0], "fps": ["parts", 2]}}}
    path = saved(server, graph | save("indexed/v", "made" if between else "source", format="auto"))
    line = index(server)[-1]
    status = path.stat()
    frames = int(probe(path)["video"]["nb_read_frames"])
    assert line == {
        "path": str(path), "bytes": status.st_size, "mtime": status.st_mtime, "codec": "h264" if between else "vp9",
        "seconds": pytest.approx(frames / 24, abs=0.001), "size": [320, 192], "mode": "Xavi9CosmosText2World",
        "seed": 4294967295, "prompt": "un zorro \u4e2d",
    }


def test_an_input_that_nobody_knows_spoils_no_save(server):
    before = len(index(server))
    saved(server, drawn() | save("indexed/odd", unknown=[["1"], 0]))
    assert len(index(server)) == before + 1


@pytest.mark.parametrize("file, codec", [("plain.mp4", "aac"), ("plain.webm", "opus")])
def test_a_connected_sound_replaces_the_videos_own_and_the_picture_stays(server, clips, file, codec):
    path = saved(server, load(file) | {"audio": AUDIO} | save("sound/v", format="auto", audio=["audio", 0]))
    assert packets(path) == packets(clips / file)
    assert packets(path, "audio") != packets(clips / file, "audio")
    audio = probe(path)["audio"]
    assert (audio["codec_name"], audio["channels"]) == (codec, 1)
    with av.open(str(path)) as container:
        end = max(float(it.pts * it.time_base) for it in container.demux(audio=0) if it.size)
    assert end == pytest.approx(2, abs=0.06)


def test_an_unreadable_file_is_named(server, clips):
    kind, message = failed(server, load("cut.mp4") | save("unreadable/v"))
    assert kind == "VideoUnreadable" and "cut.mp4" in message and "Check that the file is whole" in message
    assert not list((server.base / "output").glob("unreadable/*"))


def test_a_folder_that_cannot_be_made_is_said(server):
    (server.base / "output" / "a file").write_text("x")
    kind, message = failed(server, drawn() | save("a file/v"))
    assert kind == "BadFilenamePrefix" and "a file" in message


def test_frames_move_the_bar_and_an_odd_size_is_said_on_the_node(server):
    with server.events() as events:
        path = saved(server, drawn(frames=30, width=63, height=47) | save("odd/v"))
    found = probe(path)["video"]
    assert (found["width"], found["height"]) == (64, 48)
    [text] = [it for it in events if it["type"] == "progress_text"]
    assert text["node"] == "save"
    assert re.match(r"30 frames, 1\.25 s, 0\.0 MB, libx264, \d+\.\d s\n63x47 became 64x48", text["text"])
    bars = [it["data"]["nodes"].get("save") for it in events if it["type"] == "progress_state"]
    assert {"value": 30, "max": 30} in [{"value": it["value"], "max": it["max"]} for it in bars if it]


def interrupt_when(server: ComfyHost, graph: dict, share: float) -> tuple[float, dict]:
    """Interrupts once the bar of the saver stands beyond `share`; how many seconds that took, and the history entry."""
    with server.events() as events:
        prompt_id = server.post(graph)

        def far() -> bool:
            states = [it["data"]["nodes"].get("save") for it in list(events) if it["type"] == "progress_state"]
            return any(it["value"] >= share * it["max"] and it["max"] > 1 for it in states if it)

        until(far)
        asked = time.monotonic()
        server.interrupt()
        entry = server.wait(prompt_id)
    return time.monotonic() - asked, entry


@pytest.mark.parametrize("file, preset, share", [("long.mp4", "medium", 0.2), ("short.mp4", "slower", 1)])
def test_an_interrupted_save_ends_within_a_second_and_leaves_nothing(server, clips, file, preset, share):
    # The short one fits into the encoder's own queue: it still has all its work to do after the last frame.
    before = index(server)
    seconds, entry = interrupt_when(server, load(file) | save("stopped/v", **{"format.preset": preset}), share)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted" and seconds < 1
    assert list((server.base / "output" / "stopped").iterdir()) == []
    assert index(server) == before
    saved(server, drawn() | save("after/v"))


def test_two_servers_on_one_folder_keep_every_video(server, plain):
    def graphs(first: int) -> list[dict]:
        greys = range(first, 240, 12)
        return [drawn(grey * 0x010101, frames=2) | save("race/v", **{"format.crf": 1}) for grey in greys]

    queued = []
    for ours, theirs in zip(graphs(0), graphs(6), strict=True):
        queued += [(server, server.post(ours)), (plain, plain.post(theirs))]
    assert len(queued) == 40 and all(host.error(host.wait(it)) is None for host, it in queued)
    files = sorted((server.base / "output" / "race").iterdir())
    assert [it.name for it in files] == [f"v_{number:05}_.mp4" for number in range(1, 41)]
    greys = sorted(float(pictures(it)[1].mean()) for it in files)
    assert greys == pytest.approx(list(range(0, 240, 6)), abs=2)
