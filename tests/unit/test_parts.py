"""What a killed server leaves on the way is removed at the next start; what is being written, and all else, stays."""

import os
import subprocess
import sys

import pytest
from filelock import FileLock
from xavi9videos.nodes import parts
from xavi9videos.nodes.host import paths

OTHER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setitem(paths.FOLDERS, "output", lambda: str(tmp_path / "output"))
    monkeypatch.setattr(paths, "own_folder", lambda *names: made(tmp_path / "own" / "/".join(names)))
    return made(tmp_path / "output")


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def left(folder, stem="video"):
    """A part, and the line about it, as a server that was killed leaves them: no longer locked."""
    before = set(lines())
    with parts.part_in(folder, stem) as part:
        (line,) = [it for it in set(lines()) - before if not it.suffix]
        content = line.read_bytes()
    line.write_bytes(content)
    part.write_text("half")
    return part


def lines():
    return list(paths.own_folder("parts").iterdir())


def test_what_was_left_goes_and_nothing_else(output):
    part, other = left(output), output / ".theirs-0123.part"
    other.write_text("theirs")
    assert part.exists() and lines()
    parts.sweep()
    assert list(output.iterdir()) == [other] and not lines()


def test_a_name_with_a_line_break_goes_too(output):
    left(output, "one\ntwo")
    parts.sweep()
    assert list(output.iterdir()) == []


def test_a_folder_of_pictures_goes_too(output):
    part = left(output)
    part.unlink()
    part.mkdir()
    (part / "00001.png").write_text("half")
    parts.sweep()
    assert list(output.iterdir()) == []


def test_what_another_server_is_writing_stays(output):
    part = left(output)
    (line,) = [it for it in lines() if not it.suffix]
    with subprocess.Popen([sys.executable, "-c", OTHER, f"{line}.lock"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        parts.sweep()
        assert part.exists() and line.exists()
        other.kill()
    parts.sweep()
    assert not part.exists() and not lines()


@pytest.mark.parametrize("name", ["../outside/.v-{}.part", "output/video.mp4", "output/.v.part"])
def test_a_line_about_something_else_removes_nothing(output, name):
    victim = output.parent / name.format("0" * 32)
    made(victim.parent)
    victim.write_text("theirs")
    (paths.own_folder("parts") / "line").write_text(str(victim))
    parts.sweep()
    assert victim.exists() and not lines()


def test_nothing_is_noted_when_all_went_well(output):
    with parts.part_in(output, "v") as part:
        part.write_text("whole")
        (line,) = [it for it in lines() if not it.suffix]
        assert line.read_text() == str(part)
        with pytest.raises(TimeoutError), FileLock(f"{line}.lock", timeout=0, is_singleton=False):
            pass
        part.rename(output / "whole.mp4")
    assert not lines() and [it.name for it in output.iterdir()] == ["whole.mp4"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"", b"x" * 5000, b"loop/.v-" + b"0" * 32 + b".part"])
def test_a_line_that_holds_no_path_keeps_nothing_from_starting(output, content):
    (output / "loop").symlink_to(output / "loop")
    (paths.own_folder("parts") / "line").write_bytes(content.replace(b"loop/", bytes(output / "loop") + b"/"))
    part = left(output)
    parts.sweep()
    assert not part.exists()


def test_a_pipe_in_the_folder_is_not_waited_for(output):
    os.mkfifo(paths.own_folder("parts") / "pipe")
    parts.sweep()


def test_without_a_user_folder_videos_are_saved_and_nothing_is_swept(output, monkeypatch, caplog):
    def refuse(*names):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths, "own_folder", refuse)
    parts.sweep()
    with parts.part_in(output, "v") as part:
        part.write_text("whole")
        part.rename(output / "whole.mp4")
    assert (output / "whole.mp4").exists() and len(caplog.records) == 2


def test_a_name_in_any_alphabet_is_swept(output, monkeypatch):
    part = left(output, "\u0432\u0438\u0434\u0435\u043e")
    parts.sweep()
    assert not part.exists()
