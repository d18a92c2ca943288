"""docker/setup.sh on machines that are good or lack something, with strict stand-ins for what it asks."""

import os
import shutil
import stat
import subprocess

import pytest
from setup_host import REPO

KEY = "nvapi-secret-1"
# As `docker info` prints it, less what does not matter; the kernel is a DGX Spark's.
INFO = """\
Client: Docker Engine - Community
 Version:    29.1.3
Server:
 Server Version: 29.1.3
 Runtimes: io.containerd.runc.v2{runtime} runc
 Default Runtime: runc
 Kernel Version: 6.17.0-1031-nvidia
 Docker Root Dir: /var/lib/docker{devices}"""

# What is not known here is refused, as the real programs do.
PROGRAMS = {
    "uname": 'case "$*" in -m) echo ${MACHINE:-aarch64} ;; *) exit 1 ;; esac',
    "nvidia-smi": '''case "$*" in
"--query-gpu=name,driver_version,memory.total --format=csv,noheader,nounits") ;;
*) echo "ERROR: Option $* is not recognized."; exit 6 ;;
esac
[[ -z ${NO_DRIVER:-} ]] || { echo "NVIDIA-SMI couldn't communicate with the NVIDIA driver."; exit 9; }
echo "${GPU:-NVIDIA GB10, 580.126.09, [N/A]}"''',
    "docker": '''printf '%s\\n' "$*" >> $LOG
case "$*" in
info) [[ -z ${DOCKER_SAYS:-} ]] || { echo "$DOCKER_SAYS" >&2; exit 1; }; echo "$INFO" ;;
"info --format {{.DockerRootDir}}") echo / ;;
"compose version --short") [[ ${COMPOSE:-} != none ]] && echo "${COMPOSE:-2.40.3}" ;;
'login nvcr.io --username $oauthtoken --password-stdin')
    cat > $LOG.stdin
    [[ -z ${LOGIN_SAYS:-} ]] || { echo "$LOGIN_SAYS"; exit 1; }
    echo Login Succeeded ;;
*) echo "docker: unknown command: $*" >&2; exit 125 ;;
esac''',
    "df": '[[ $* == "-k --output=avail "* ]] || exit 1; echo Avail; echo $((${FREE_GB:-900} * 1000000))',
}


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "docker").mkdir()
    for name, body in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    for name in ("setup.sh", ".env.example"):
        shutil.copy(REPO / "docker" / name, tmp_path / "docker")
    return tmp_path


def run(machine, without: str = "", runtime: str = " nvidia", devices: str = "", **environment) -> tuple[int, str]:
    path = f"{machine / 'bin'}:/usr/bin:/bin"
    if without:
        # Everything that the script uses, less that one program.
        (machine / "bin" / without).unlink()
        path = str(machine / "bin")
        for name in ("bash", "sed", "grep", "awk", "tail", "realpath", "dirname", "id", "stat", "mkdir", "chown", "cp",
                     "sort", "head", "du", "cut"):
            (machine / "bin" / name).symlink_to(shutil.which(name))
    env = {"PATH": path, "LANG": "C", "LOG": str(machine / "log"),
           "INFO": INFO.format(runtime=runtime, devices=devices), **environment}
    done = subprocess.run([shutil.which("bash"), machine / "docker" / "setup.sh"], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=30)
    return done.returncode, done.stdout


def settings(machine, **values: str) -> None:
    lines = [f"{name}={value}" for name, value in {"XAVI9_DATA": "./data", "XAVI9_UID": "1000", "XAVI9_GID": "1000",
                                                   **values}.items()]
    (machine / "docker" / ".env").write_text("\n".join(lines) + "\n")


def test_a_dgx_spark_with_all_in_place(machine):
    status, words = run(machine)
    assert status == 0 and "WRONG" not in words
    assert "GPU: NVIDIA GB10, driver 580.126.09, the machine's memory" in words
    assert "No Cosmos is started" in words and "docker compose up -d" in words
    env = machine / "docker" / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    example = (REPO / "docker" / ".env.example").read_text()
    # ComfyUI is to run as the one who calls, but never as root.
    user = "1000" if os.getuid() == 0 else str(os.getuid())
    assert env.read_text() == example.replace("XAVI9_UID=1000", f"XAVI9_UID={user}").replace(
        "XAVI9_GID=1000", f"XAVI9_GID={user if user == '1000' else os.getgid()}")
    assert {it.name for it in (machine / "docker" / "data").iterdir()} == {"models", "input", "output", "user"}


def test_it_repeats_and_keeps_what_was_set(machine):
    settings(machine, COSMOS3_TAG="2.0.0")
    before = (machine / "docker" / ".env").read_text()
    assert run(machine)[0] == run(machine)[0] == 0
    assert (machine / "docker" / ".env").read_text() == before


def test_the_driver_of_an_ordinary_card_is_told_with_its_memory(machine):
    assert "NVIDIA H100 80GB HBM3, driver 580.95.05, 85 GB of its own" in run(
        machine, GPU="NVIDIA H100 80GB HBM3, 580.95.05, 81559", MACHINE="x86_64")[1]


@pytest.mark.parametrize("given, told, cure", [
    ({"MACHINE": "riscv64"}, "The processor is riscv64", "x86_64 and aarch64"),
    ({"without": "nvidia-smi"}, "nvidia-smi is missing", "580 or newer"),
    ({"NO_DRIVER": "1"}, "couldn't communicate with the NVIDIA driver", "restart the machine"),
    ({"GPU": "NVIDIA RTX 4090, 550.54.14, 24564"}, "the driver is 550.54.14", "580 or newer"),
    ({"without": "docker"}, "docker is missing", "https://docs.docker.com/engine/install/"),
    ({"DOCKER_SAYS": "ERROR: Cannot connect to the Docker daemon. Is the docker daemon running?"},
     "Cannot connect to the Docker daemon", "systemctl start docker"),
    ({"DOCKER_SAYS": "permission denied while trying to connect to the docker API"}, "may not use Docker",
     "usermod -aG docker"),
    ({"runtime": ""}, "container toolkit is missing", "nvidia-ctk runtime configure"),
    ({"COMPOSE": "none"}, "docker compose is missing", "docker-compose-plugin"),
    ({"COMPOSE": "2.3.3"}, "docker compose is 2.3.3", "2.24 or newer"),
    ({"FREE_GB": "30"}, "LTX-2 and SVD-XT take 51 GB more", "XAVI9_DATA"),
])
def test_what_is_missing_is_told_with_its_cure_and_the_rest_is_still_checked(machine, given, told, cure):
    status, words = run(machine, **given)
    assert status == 1
    (wrong,) = [part for part in words.split("WRONG  ")[1:]]
    assert told in wrong and cure in wrong
    assert "No Cosmos is started" in words and "Mend what is WRONG" in words


@pytest.mark.parametrize("given", [{"runtime": "", "devices": "\n Discovered Devices:\n  cdi: nvidia.com/gpu=all"},
                                   {"COMPOSE": "v2.24.0"}, {"COMPOSE": "5.0.1"}])
def test_other_good_machines(machine, given):
    assert run(machine, **given)[0] == 0


def test_predict1_on_arm64_is_wrong(machine):
    settings(machine, COMPOSE_PROFILES="predict1", NGC_API_KEY=KEY)
    assert "makes for x86_64 only" in run(machine)[1]
    assert run(machine, MACHINE="x86_64")[0] == 0


def test_a_folder_of_somebody_else_is_wrong(machine):
    settings(machine, XAVI9_UID="1234")
    (machine / "docker" / "data" / "models").mkdir(parents=True)
    status, words = run(machine)
    assert status == 1 and "ComfyUI would run as 1234:1000" in words


def test_a_folder_that_cannot_be_made_is_wrong(machine):
    (machine / "docker" / "data").touch()
    status, words = run(machine)
    assert status == 1 and "data/models cannot be made by" in words


@pytest.mark.parametrize("line", [KEY, f'"{KEY}"', f"'{KEY}'"])
def test_the_key_goes_to_the_registry_by_stdin_alone(machine, line):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY=line)
    status, words = run(machine)
    assert status == 0 and "logged in to nvcr.io" in words
    # Not even the end of a line after it.
    assert (machine / "log.stdin").read_bytes() == KEY.encode()
    assert KEY not in words and KEY not in (machine / "log").read_text()


@pytest.mark.parametrize("line, told", [("", "NGC_API_KEY is empty"), (f"{KEY} x", "has spaces"),
                                        (f"{KEY}\r", "has spaces")])
def test_a_key_that_cannot_be_one_is_never_sent(machine, line, told):
    settings(machine, COMPOSE_PROFILES="cosmos3,other", NGC_API_KEY=line)
    status, words = run(machine)
    assert status == 1 and told in words and KEY not in words
    assert "login" not in (machine / "log").read_text()


def test_the_environment_comes_before_the_file(machine):
    settings(machine, COMPOSE_PROFILES="cosmos3")
    assert run(machine, NGC_API_KEY=KEY)[0] == 0


def test_a_refused_key_is_told_in_dockers_words_without_it(machine):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY=KEY)
    status, words = run(machine, LOGIN_SAYS=f"unauthorized: {KEY}: authentication required")
    assert status == 1 and "unauthorized: ***: authentication required" in words and KEY not in words


def test_the_settings_are_not_executed(machine):
    settings(machine, COMPOSE_PROFILES=f"$(touch {machine}/ran)", OTHER=f"`touch {machine}/ran`")
    assert run(machine)[0] == 0 and not (machine / "ran").exists()
