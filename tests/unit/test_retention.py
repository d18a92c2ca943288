"""Old videos make room: which, in what order, which never, and that no save fails of it."""

import logging
import os
import time
from pathlib import Path

import pytest
from clips import write_file
from comfy_api.latest import InputImpl
from xavi9videos.nodes import errors, index, settings
from xavi9videos.nodes.host import paths
from xavi9videos.nodes.studio import retention


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setitem(paths.FOLDERS, "output", lambda: str(tmp_path / "output"))
    monkeypatch.setattr(paths, "own_folder", lambda *names: made(tmp_path / "own" / "/".join(names)))
    monkeypatch.setattr(index, "after_add", [retention.clean_up])
    return made(tmp_path / "output")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    for name in settings.StorageSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(settings.StorageSettings.model_config, "env_file", tmp_path / ".env")
    settings.storage.cache_clear()
    yield
    settings.storage.cache_clear()


@pytest.fixture
def keep(monkeypatch):
    """Sets the limits."""

    def limits(**given):
        for name, value in given.items():
            monkeypatch.setenv(f"XAVI9_KEEP_{name.upper()}", str(value))
        settings.storage.cache_clear()

    return limits


def put(path: Path, age: float = 0, size: int = 5) -> Path:
    """A file of that age in seconds, whose line is added as a save does it."""
    made(path.parent)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age,) * 2)
    index.add(paths.index_file(), path)
    return path


def fill(output: Path, count: int = 5) -> list[Path]:
    """Videos 0, 1, ... of which 0 is the oldest, saved while there is no limit."""
    return [put(output / f"{number}.mp4", age=100 - number) for number in range(count)]


def left(output: Path) -> list[str]:
    return sorted(it.stem for it in output.rglob("*.mp4"))


def test_off_until_it_is_set(output):
    assert settings.storage().xavi9_keep_files is settings.storage().xavi9_keep_gb is None
    fill(output, 12)
    assert len(left(output)) == 12


@pytest.mark.parametrize(
    ("variable", "value"),
    [("XAVI9_KEEP_FILES", "0"), ("XAVI9_KEEP_FILES", "-1"), ("XAVI9_KEEP_FILES", "1.5"), ("XAVI9_KEEP_FILES", "ten"),
     ("XAVI9_KEEP_GB", "0"), ("XAVI9_KEEP_GB", "-2"), ("XAVI9_KEEP_GB", "inf"), ("XAVI9_KEEP_GB", "nan")])  # fmt: skip
def test_a_bad_limit_is_named_and_fails_no_save(output, monkeypatch, caplog, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(errors.BadSetting, match=f"{variable}={value}"):
        settings.storage()
    put(output / "v.mp4")
    assert left(output) == ["v"] and f"{variable}={value}" in caplog.text


def test_the_oldest_go_first_and_each_is_told_with_its_reason(output, keep, caplog):
    fill(output)
    keep(files=3)
    with caplog.at_level(logging.INFO):
        put(output / "new.mp4")
    assert left(output) == ["3", "4", "new"]
    said = [it.getMessage() for it in caplog.records if "Removed" in it.getMessage()]
    assert [Path(it.split(",")[0]).stem for it in said] == ["0", "1", "2"]
    assert all("XAVI9_KEEP_FILES=3" in it and "\n" not in it for it in said)
    assert [Path(it["path"]).stem for it in index.read(paths.index_file())] == ["new", "4", "3"]


def test_a_limit_of_gigabytes(output, keep, caplog):
    for number in range(5):
        put(output / f"{number}.mp4", age=100 - number, size=1000)
    keep(gb=3.5e-6)
    with caplog.at_level(logging.INFO):
        put(output / "new.mp4", size=1000)
    assert left(output) == ["3", "4", "new"] and "XAVI9_KEEP_GB=3.5e-06" in caplog.text
    put(output / "large.mp4", size=50_000)
    assert left(output) == ["large"], "the one just written stays, whatever its size"


def test_both_limits_hold(output, keep):
    for number in range(5):
        put(output / f"{number}.mp4", age=100 - number, size=1000)
    keep(files=4, gb=2.5e-6)
    put(output / "new.mp4", size=1000)
    assert left(output) == ["4", "new"]


def test_the_one_just_written_stays_even_if_its_clock_is_behind(output, keep):
    fill(output, 3)
    keep(files=2)
    put(output / "new.mp4", age=9999)
    assert left(output) == ["1", "2", "new"]


def test_what_is_not_ours_or_no_longer_stays_and_does_not_count(output, keep):
    first, second, *_ = fill(output)
    (output / "theirs.mp4").write_bytes(b"x")
    first.write_bytes(b"edited since")
    keep(files=1)
    put(output / "new.mp4")
    assert left(output) == ["0", "new", "theirs"]


def test_only_the_output_folder_is_cleaned(output, keep, tmp_path, monkeypatch):
    monkeypatch.setitem(paths.FOLDERS, "temp", lambda: str(tmp_path / "temp"))
    (output / "far").symlink_to(made(tmp_path / "elsewhere"))
    others = [put(it, age=500) for it in (tmp_path / "temp" / "t.mp4", output / "far" / "f.mp4", tmp_path / "x.mp4")]
    fill(output, 2)
    keep(files=1)
    put(output / "new.mp4")
    assert all(it.exists() for it in others)
    assert sorted(it.stem for it in output.glob("*.mp4")) == ["new"]


@pytest.mark.parametrize("trimmed", [False, True])
def test_a_video_that_somebody_still_holds_stays_until_it_is_let_go(output, keep, tmp_path, trimmed):
    content = write_file(tmp_path / "source.mp4").read_bytes()
    for number in range(3):
        (output / f"{number}.mp4").write_bytes(content)
        index.add(paths.index_file(), output / f"{number}.mp4")
    # Named as Load Video may name it.
    held = InputImpl.VideoFromFile(f"{output}/../output/0.mp4")
    if trimmed:
        held = held.as_trimmed(0.5, 0.5)
    keep(files=1)
    put(output / "new.mp4")
    assert left(output) == ["0", "new"]
    held.get_components()
    del held
    put(output / "newer.mp4")
    assert left(output) == ["newer"]


def test_one_that_cannot_be_removed_keeps_no_other(output, keep, monkeypatch, caplog):
    fill(output)
    unlink = Path.unlink

    def refuse_one(self, **given):
        if self.name == "1.mp4":
            raise PermissionError(13, "Permission denied", str(self))
        unlink(self, **given)

    monkeypatch.setattr(Path, "unlink", refuse_one)
    keep(files=2)
    put(output / "new.mp4")
    assert left(output) == ["1", "4", "new"] and "1.mp4" in caplog.text
    monkeypatch.setattr(Path, "unlink", unlink)
    put(output / "newer.mp4")
    assert left(output) == ["new", "newer"]


def test_one_that_another_server_removed_meanwhile_is_no_error(output, keep, monkeypatch, caplog):
    fill(output)
    read = index.read

    def then_gone(file):
        found = read(file)
        (output / "0.mp4").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(index, "read", then_gone)
    keep(files=1)
    put(output / "new.mp4")
    assert left(output) == ["new"] and not [it for it in caplog.records if it.levelno >= logging.WARNING]


def test_no_failure_of_it_reaches_the_save(output, keep, monkeypatch, caplog):
    fill(output)
    keep(files=1)

    def lost():
        raise RuntimeError("at a loss")

    monkeypatch.setattr(retention, "in_use", lost)
    put(output / "new.mp4")
    assert len(left(output)) == 6 and "at a loss" in caplog.text


def test_the_posters_of_what_was_removed_go_too(output, keep):
    fill(output, 2)
    beside = output / "0.jpg"
    beside.write_bytes(b"poster")
    index.add(paths.index_file(), output / "0.mp4", poster=index.identity(beside))
    cached = paths.own_folder("posters") / f"{'0' * 32}.jpg"
    cached.write_bytes(b"poster")
    keep(files=1)
    put(output / "new.mp4")
    assert left(output) == ["new"] and not beside.exists() and not cached.exists()
