"""What a killed server leaves on the way is removed at the next start; what is being written, and all else, stays."""

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
    """A part, and the line about it, of a server that was killed."""

    class Killed(BaseException):
        pass

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(parts, "remove", lambda path: (_ for _ in ()).throw(Killed))
        with parts.part_in(folder, stem) as part:
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
