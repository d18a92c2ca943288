"""Encoding on the GPU: another program's encoder over a pipe, its faults, and the way back to software.

The fake ffmpeg takes only what NVENC takes (names and ranges from FFmpeg's own list of NVENC's options), and lets the
real one encode in software; no GPU is exercised.
"""

import shutil
import stat
import subprocess
import sys
import time
from fractions import Fraction

import av
import pytest
from clips import moving, pictures, probe, sine, write_file
from comfy_api.latest import InputImpl, Types
from xavi9videos.nodes.video import hardware
from xavi9videos.nodes.video.formats import all_formats
from xavi9videos.nodes.video.hardware import encode_best, working
from xavi9videos.nodes.video.play import Play
from xavi9videos.nodes.video.source import open_source

FAKE = """#!{python}
import os, pathlib, subprocess, sys
here = pathlib.Path(__file__).parent
fault = (here / "fault").read_text() if (here / "fault").exists() else ""
with open(here / "calls", "a") as calls:
    print(len(sys.argv), file=calls)
CODECS = {{"h264_nvenc": "libx264", "hevc_nvenc": "libx265"}}
PIXELS = {{"yuv420p": "yuv420p", "p010le": "yuv420p10le"}}
PRESETS = {{f"p{{it}}" for it in range(1, 8)}}
given = sys.argv[1:]
assert given[:2] == ["-v", "error"] and given[2] == "-nostdin", given
assert given[3:7] == ["-f", "nut", "-i", "pipe:0"], given
*pairs, output = given[7:]
assert pairs.pop() == "-y"
options = dict(zip(pairs[::2], pairs[1::2], strict=True))
codec = options.pop("-c:v")
if codec not in CODECS:
    sys.exit(f"Unknown encoder '{{codec}}'")
if options.pop("-preset:v", "p4") not in PRESETS or not 0 <= float(options.pop("-cq:v", "0")) <= 51:
    sys.exit("Undefined constant or out of range")
assert options.pop("-rc:v") == "vbr" and options.pop("-b:v") == "0" and options.pop("-tune:v") == "hq"
pixels = PIXELS[options.pop("-pix_fmt")]
keep = {{"-colorspace", "-color_primaries", "-color_trc", "-color_range", "-tag:v"}}
keep |= {{"-fps_mode", "-enc_time_base", "-f"}}
assert set(options) <= keep, options
if fault == "no device":
    sys.exit("[h264_nvenc @ 0x5] OpenEncodeSessionEx failed: unsupported device (2)\\nError initializing output stream")
trial = sum(1 for _ in open(here / "calls")) < 2
if fault == "dies" and not trial:
    sys.stdin.buffer.read(1_000_000)
    sys.exit("[h264_nvenc @ 0x5] EncodePicture failed!: device lost")
if fault == "hangs" and not trial:
    import time
    time.sleep(60)
if fault == "loses" and not trial:
    options["-frames:v"] = "7"
if fault == "nothing" and not trial:
    sys.exit(0)
if fault == "folder" and not trial:
    os.mkdir(output)
    sys.exit(0)
if fault == "floods" and not trial:
    sys.stderr.write("\\r" + "x" * 1_000_000)
    sys.exit(1)
if fault == "other size" and not trial:
    options["-s"] = "64x64"
if fault == "other codec" and not trial:
    CODECS["h264_nvenc"] = "mpeg4"
rest = [it for pair in options.items() for it in pair]
command = ["{ffmpeg}", *given[:7], "-c:v", CODECS[codec], "-pix_fmt", pixels, *rest, "-y", output]
os.execv(command[0], command)
"""
H264, H265 = all_formats()["mp4-h264"], all_formats()["mp4-h265"]


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A folder with the fake ffmpeg, first on PATH; fault(name) has it misbehave after its trial."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FAKE.format(python=sys.executable, ffmpeg=shutil.which("ffmpeg")))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    working.cache_clear()
    yield folder
    working.cache_clear()


def from_tensor(count=30, rate=Fraction(30000, 1001), audio=None, size=(96, 256)):
    images = moving(count, *size)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=rate, audio=audio))


def encoded(video, path, format=H264, step=lambda done: None, play=Play(), **options):
    source = open_source(video)
    given = {"encoder": "hardware", **options}
    return encode_best(source, path, format, given, {"prompt": "{}"}, source.sound, step, play)


@pytest.mark.parametrize("format", [H264, H265], ids=lambda it: it.key)
@pytest.mark.parametrize("bits", ["8", "10"])
def test_the_programs_encoder_makes_the_picture_and_the_sound_is_beside_it(tmp_path, ffmpeg, format, bits):
    written = encoded(from_tensor(audio=sine(1.001)), tmp_path / "a", format, bit_depth=bits)
    found = probe(tmp_path / "a")
    video, audio = found["video"], found["audio"]
    assert written.encoder == {"mp4-h264": "h264_nvenc", "mp4-h265": "hevc_nvenc"}[format.key] and not written.notes
    assert int(video["nb_read_frames"]) == written.frames == 30
    assert Fraction(video["avg_frame_rate"]) == Fraction(video["r_frame_rate"]) == Fraction(30000, 1001)
    assert video["pix_fmt"] == ("yuv420p" if bits == "8" else "yuv420p10le")
    assert {video[f"color_{it}"] for it in ("space", "primaries", "transfer")} == {"bt709"}
    assert video["color_range"] == "tv"
    assert video["codec_tag_string"] == {"mp4-h264": "avc1", "mp4-h265": "hvc1"}[format.key]
    assert float(audio["duration"]) == pytest.approx(1.001, abs=0.03) == float(video["duration"])
    assert found["format"]["tags"]["prompt"] == "{}"
    assert written.seconds == pytest.approx(1.001)


def test_it_is_tried_once_for_each_format_and_depth(tmp_path, ffmpeg):
    for name in "ab":
        encoded(from_tensor(3), tmp_path / name)
    assert len((ffmpeg / "calls").read_text().split()) == 1 + 2


def test_times_of_a_file_with_a_changing_rate_are_kept(tmp_path, ffmpeg):
    file = write_file(tmp_path / "a.mp4", frames=12)
    uneven = tmp_path / "uneven.mp4"
    times = "setpts='if(lt(N,6),N*512,6*512+(N-6)*1024)'"
    command = ["ffmpeg", "-v", "error", "-i", file, "-vf", times, "-fps_mode", "passthrough", "-an", uneven]
    subprocess.run([shutil.which("ffmpeg", path="/usr/bin:/usr/local/bin:/bin"), *command[1:]], check=True)
    encoded(InputImpl.VideoFromFile(str(uneven)), tmp_path / "b")
    assert seconds(tmp_path / "b") == seconds(uneven)


def seconds(path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [it.pts * it.time_base for it in container.decode(video=0)]


def test_held_pictures_and_repeated_sound_go_the_same_way(tmp_path, ffmpeg):
    written = encoded(from_tensor(24, Fraction(24), sine(1.5)), tmp_path / "a", play=Play(sound="hold picture"))
    assert written.frames == 36 and "held from 1.00 s" in written.notes[0]
    found = probe(tmp_path / "a")
    assert int(found["video"]["nb_read_frames"]) == 36 and float(found["audio"]["duration"]) == pytest.approx(
        1.5, abs=0.03
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no device", "OpenEncodeSessionEx failed: unsupported device"),
        ("dies", "device lost"),
        ("loses", "made other pictures"),
        ("nothing", "no file that can be read"),
        ("folder", "no file that can be read"),
        ("floods", "xxx"),
        ("other size", "made other pictures"),
        ("other codec", "made other pictures"),
    ],
)
def test_whatever_fails_the_video_is_whole_and_one_line_says_why(tmp_path, ffmpeg, fault, words):
    (ffmpeg / "fault").write_text(fault)
    written = encoded(from_tensor(audio=sine(1)), tmp_path / "a")
    assert written.encoder == "libx264" and written.frames == len(pictures(tmp_path / "a")) == 30
    (note,) = written.notes
    assert (
        note.startswith("encoded in software: ") and words in note and len(note.splitlines()) == 1 and len(note) < 1000
    )
    assert set(tmp_path.glob("*")) == {ffmpeg, tmp_path / "a"}


def test_a_program_that_hangs_is_left_when_the_user_stops(tmp_path, ffmpeg, monkeypatch):
    class Interrupt(BaseException):
        pass

    encoded(from_tensor(2), tmp_path / "trial")
    (ffmpeg / "fault").write_text("hangs")
    began = time.monotonic()

    def stop():
        if time.monotonic() > began + 1:
            raise Interrupt

    monkeypatch.setattr(hardware.progress, "stop_if_interrupted", stop)
    with pytest.raises(Interrupt):
        encoded(from_tensor(200, size=(256, 512)), tmp_path / "a")
    assert time.monotonic() - began < 4
    assert not subprocess.run(["pgrep", "-f", str(ffmpeg)], capture_output=True).stdout


def test_a_program_that_is_gone_after_its_trial_is_done_without(tmp_path, ffmpeg):
    encoded(from_tensor(2), tmp_path / "trial")
    (ffmpeg / "ffmpeg").unlink()
    written = encoded(from_tensor(5), tmp_path / "a")
    assert written.encoder == "libx264" and "does not start: No such file" in written.notes[0]


def test_without_any_gpu_encoder_one_line_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    working.cache_clear()
    written = encoded(from_tensor(5), tmp_path / "a")
    working.cache_clear()
    assert written.encoder == "libx264" and "no h264_nvenc works here (PyAV:" in written.notes[0]


def test_every_value_of_an_option_is_one_that_nvenc_takes():
    for format in (it for it in all_formats().values() if it.hardware):
        for option in format.options:
            values = option.get("choices") or option.get("options") or range(option["min"], option["max"] + 1)
            for value in values:
                asked = format.hardware_settings({option["id"]: value} | {"encoder": "hardware"}).options
                assert set(asked) == {"rc", "b", "tune", "cq", "preset"}
                assert 1 <= int(asked["cq"]) <= 51 and asked["preset"] in {f"p{it}" for it in range(1, 8)}
