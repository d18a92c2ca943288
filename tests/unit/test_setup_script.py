"""docker/setup.sh on machines that are good or lack something, with strict stand-ins for what it asks."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

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
info) [[ -z ${DOCKER_SAYS:-} ]] || { echo Client:; echo "$DOCKER_SAYS" >&2; exit 1; }; echo "$INFO" ;;
"info --format {{.DockerRootDir}}") [[ -z ${DOCKER_SAYS:-} ]] || { echo; echo "$DOCKER_SAYS" >&2; exit 0; }; echo / ;;
"compose version --short") [[ ${COMPOSE:-} != none ]] && echo "${COMPOSE:-2.40.3}" ;;
'login nvcr.io --username $oauthtoken --password-stdin')
    cat > $LOG.stdin
    [[ -z ${LOGIN_SAYS:-} ]] || { echo "$LOGIN_SAYS"; exit 1; }
    echo Login Succeeded ;;
*) echo "docker: unknown command: $*" >&2; exit 125 ;;
esac''',
    "df": '[[ $* == "-k --output=avail "* ]] || exit 1; echo Avail; echo $((${FREE_GB:-900} * 1000000000 / 1024))',
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


def run(machine, without: str = "", runtime: str = " nvidia", devices: str = "", user: int | None = None,
        group: int | None = None, **environment) -> tuple[int, str]:
    path = f"{machine / 'bin'}:/usr/bin:/bin"
    if without:
        # Everything that the script uses, less that one program.
        (machine / "bin" / without).unlink()
        path = str(machine / "bin")
        for name in ("bash", "sed", "grep", "awk", "tail", "realpath", "readlink", "dirname", "id", "stat", "mkdir",
                     "chown", "cp", "sort", "head", "du", "cut"):
            (machine / "bin" / name).symlink_to(shutil.which(name))
    env = {"PATH": path, "LANG": "C", "LOG": str(machine / "log"),
           "HOME": str(machine / "home"), "INFO": INFO.format(runtime=runtime, devices=devices), **environment}
    done = subprocess.run([shutil.which("bash"), machine / "docker" / "setup.sh"], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=30, user=user, group=group)
    return done.returncode, done.stdout


def settings(machine, **values: str) -> None:
    lines = [f"{name}={value}\n" for name, value in {"XAVI9_DATA": "./data", "XAVI9_UID": "1000", "XAVI9_GID": "1000",
                                                     **values}.items()]
    (machine / "docker" / ".env").write_text("".join(lines), newline="")


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


@pytest.mark.parametrize("before, added", [(None, ""), ("COMPOSE_PROFILES=", "\nXAVI9_UID={user}\nXAVI9_GID={group}\n"),
                                           ("XAVI9_UID=1000\nXAVI9_GID=1000\n", "")])
def test_comfyui_runs_as_the_one_who_calls_unless_another_was_set(machine, before, added):
    # Root is another case: `nobody` runs it then, in a copy that this one can reach.
    user, group = (65534, 65534) if os.getuid() == 0 else (os.getuid(), os.getgid())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(machine, f"{folder}/copy"))
        env = copy / "docker" / ".env"
        if before is not None:
            env.write_text(before)
        for it in (Path(folder), copy, *copy.rglob("*")):
            os.chown(it, user, group)
        status, words = run(copy, user=user, group=group)
        if before is None:
            assert f"\nXAVI9_UID={user}\nXAVI9_GID={group}\n" in env.read_text()
        else:
            assert env.read_text() == before + added.format(user=user, group=group)
        assert status == (before is not None and not added and user != 1000)
        assert (copy / "docker" / "data" / "models").stat().st_uid == user
        # What was there already is said to be somebody else's.
        assert ("ComfyUI would run as 1000:1000" in words) == bool(status)


@pytest.mark.parametrize("text", ["", "COMPOSE_PROFILES=\nXAVI9_DATA=\nXAVI9_UID=\nXAVI9_GID=\n"])
def test_what_is_not_set_has_the_values_of_compose(machine, text):
    (machine / "docker" / ".env").write_text(text)
    status, words = run(machine)
    assert status == 0 and f"folders: models, input, output and user in {machine}/docker/data\n" in words


@pytest.mark.parametrize("line, folder", [
    ("'{machine}/data #2'", "data #2"), ('"{machine}/x" # on the big disk', "x"), ("{machine}/x   # big", "x"),
    ("  {machine}/x\r", "x"), ("~/x", "home/x"), ("../x", "x")])
def test_a_value_is_read_as_compose_reads_it(machine, line, folder):
    settings(machine, XAVI9_DATA=line.format(machine=machine))
    assert f"folders: models, input, output and user in {machine}/{folder}\n" in run(machine)[1]
    assert (machine / folder / "models").is_dir() and not (machine / "docker" / "data").exists()


def test_what_compose_takes_for_no_folder_is_wrong(machine):
    settings(machine, XAVI9_DATA="data")
    status, words = run(machine)
    assert status == 1 and "XAVI9_DATA is data, which docker compose does not take for a folder" in words
    assert "start with /" in words and not (machine / "docker" / "data").exists()


def test_memory_is_the_machines(machine):
    (line,) = [it for it in Path("/proc/meminfo").read_text().splitlines() if it.startswith("MemTotal:")]
    total = round(int(line.split()[1]) * 1024 / 1e9)
    (told,) = [it for it in run(machine)[1].splitlines() if "memory: " in it]
    assert told.split(".")[0].split(",")[0] == f"{'good' if total >= 60 else 'note'}   memory: {total} GB"


@pytest.mark.parametrize("profiles, free, told", [("", 60, "good"), ("cosmos3", 119, "note"), ("cosmos3", 121, "good"),
                                                  ("predict1", 219, "note")])
def test_room_for_images_is_counted_for_what_is_started(machine, profiles, free, told):
    settings(machine, COMPOSE_PROFILES=profiles, NGC_API_KEY=KEY, COSMOS_TEXT2WORLD_URL="http://one:8000")
    status, words = run(machine, FREE_GB=str(free), MACHINE="x86_64")
    assert status == 0 and f"{told}   disk: {free} GB free in /" in words


def test_with_sudo_the_caller_keeps_the_settings_and_runs_comfyui(machine):
    # As root the file is given away too, which only root can do.
    caller = {} if os.getuid() else {"SUDO_UID": "1234", "SUDO_GID": "1235"}
    assert run(machine, **caller)[0] == 0
    env = machine / "docker" / ".env"
    owner = (1234, 1235) if caller else (os.getuid(), os.getgid())
    assert (env.stat().st_uid, env.stat().st_gid) == owner
    assert f"XAVI9_UID={owner[0]}\nXAVI9_GID={owner[1]}\n" in env.read_text()
    assert (machine / "docker" / "data" / "models").stat().st_uid == owner[0]


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
    ({"GPU": "No devices were found"}, "No devices were found", "restart the machine"),
    ({"GPU": "NVIDIA RTX 4090, 579.99.14, 24564"}, "the driver is 579.99.14", "580 or newer"),
    ({"without": "docker"}, "docker is missing", "https://docs.docker.com/engine/install/"),
    ({"DOCKER_SAYS": "ERROR: Cannot connect to the Docker daemon. Is the docker daemon running?"},
     "Cannot connect to the Docker daemon", "systemctl start docker"),
    ({"DOCKER_SAYS": "ERROR: Cannot connect to the Docker daemon.\nerrors pretty printing info"},
     "Docker does not answer: Cannot connect to the Docker daemon", "systemctl start docker"),
    ({"DOCKER_SAYS": "permission denied while trying to connect to the docker API"}, "may not use Docker",
     "usermod -aG docker"),
    ({"runtime": ""}, "container toolkit is missing", "nvidia-ctk runtime configure"),
    ({"COMPOSE": "none"}, "docker compose is missing", "docker-compose-plugin"),
    ({"COMPOSE": "2.3.3"}, "docker compose is 2.3.3", "2.24 or newer"),
    ({"FREE_GB": "50"}, "LTX-2 and SVD-XT take 51 GB more", "XAVI9_DATA"),
])
def test_what_is_missing_is_told_with_its_cure_and_the_rest_is_still_checked(machine, given, told, cure):
    status, words = run(machine, **given)
    assert status == 1
    (wrong,) = [part for part in words.split("WRONG  ")[1:]]
    assert told in wrong and cure in wrong
    assert "No Cosmos is started" in words and "Mend what is WRONG" in words


def test_where_docker_does_not_answer_its_usual_folder_counts(machine):
    assert "GB free in /var/lib/docker, for images" in run(machine, DOCKER_SAYS="Cannot connect")[1]


@pytest.mark.parametrize("given", [{"GPU": "NVIDIA RTX 4090, 580.0, 24564"},
                                   {"runtime": "", "devices": "\n Discovered Devices:\n  cdi: nvidia.com/gpu=all"},
                                   {"COMPOSE": "v2.24.0"}, {"COMPOSE": "5.0.1"}])
def test_other_good_machines(machine, given):
    assert run(machine, **given)[0] == 0


def test_predict1_on_arm64_is_wrong(machine):
    settings(machine, COMPOSE_PROFILES="predict1", NGC_API_KEY=KEY)
    assert "makes for x86_64 only" in run(machine)[1]
    status, words = run(machine, MACHINE="x86_64")
    assert status == 1 and "Set COSMOS_TEXT2WORLD_URL and COSMOS_VIDEO2WORLD_URL in .env" in words
    assert run(machine, MACHINE="x86_64", COSMOS_VIDEO2WORLD_URL="http://one:8000")[0] == 0


@pytest.mark.parametrize("cards, enough", [(["NVIDIA GeForce RTX 4090, 580.95, 24564"], False),
                                           (["NVIDIA L4, 580.95, 23034", "NVIDIA L40S, 580.95, 46068"], True)])
def test_a_cosmos_on_cards_that_are_too_small_is_wrong(machine, cards, enough):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY=KEY)
    status, words = run(machine, GPU="\n".join(cards))
    assert status != enough and ("no GPU here has the 48 GB" in words) != enough
    settings(machine)
    assert run(machine, GPU="\n".join(cards))[0] == 0


def test_a_driver_that_cannot_say_which_it_is_is_wrong(machine):
    status, words = run(machine, GPU="NVIDIA GB10, [Unknown Error], [N/A]")
    assert status == 1 and "nvidia-smi says [Unknown Error] for its driver" in words


def test_an_env_that_was_copied_by_hand_is_closed_to_others(machine):
    settings(machine, NGC_API_KEY=KEY)
    env = machine / "docker" / ".env"
    env.chmod(0o644)
    assert "nobody else may read it now" in run(machine)[1] and stat.S_IMODE(env.stat().st_mode) == 0o600
    assert "nobody else may read it now" not in run(machine)[1]


def test_models_that_lie_elsewhere_by_a_link_are_counted_there(machine):
    (machine / "docker" / "data").mkdir()
    (machine / "elsewhere").mkdir()
    with open(machine / "elsewhere" / "model", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 600_000_000)
    (machine / "docker" / "data" / "models").symlink_to(machine / "elsewhere")
    assert f"good   disk: 50 GB free in {machine}/elsewhere" in run(machine, FREE_GB="50")[1]


def test_without_a_home_a_folder_of_the_user_is_found_all_the_same(machine):
    settings(machine, XAVI9_DATA=f"~/{machine.name}-not-made")
    program = machine / "bin" / "mkdir"
    program.write_text('#!/bin/bash\nexit 1\n')
    program.chmod(0o755)
    words = subprocess.run(["/usr/bin/env", "-u", "HOME", "bash", machine / "docker" / "setup.sh"],
                           env={"PATH": f"{machine / 'bin'}:/usr/bin:/bin", "LOG": str(machine / "log"), "INFO": INFO},
                           capture_output=True, text=True, timeout=30).stdout
    assert f"{Path(pwd.getpwuid(os.getuid()).pw_dir)}/{machine.name}-not-made/models cannot be made" in words


def test_a_folder_of_somebody_else_is_wrong(machine):
    settings(machine, XAVI9_UID="1234")
    (machine / "docker" / "data" / "models").mkdir(parents=True)
    status, words = run(machine)
    assert status == 1 and "ComfyUI would run as 1234:1000" in words and "sudo chown -R 1234:1000" in words


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
                                        (f"“{KEY}”", "quotes of another alphabet")])
def test_a_key_that_cannot_be_one_is_never_sent(machine, line, told):
    settings(machine, COMPOSE_PROFILES="cosmos3,other", NGC_API_KEY=line)
    status, words = run(machine)
    assert status == 1 and told in words and KEY not in words
    assert "login" not in (machine / "log").read_text()


def test_the_environment_comes_before_the_file(machine):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY="another")
    assert run(machine, NGC_API_KEY=KEY)[0] == 0 and (machine / "log.stdin").read_bytes() == KEY.encode()
    status, words = run(machine, NGC_API_KEY=f"{KEY}\r")
    assert status == 1 and "an end of line of Windows" in words and KEY not in words


def test_without_docker_there_is_no_login_that_could_fail(machine):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY=KEY)
    words = run(machine, without="docker")[1]
    assert words.count("WRONG  ") == 1 and "waits for docker" in words


def test_a_refused_key_is_told_in_dockers_words_without_it(machine):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY=KEY)
    status, words = run(machine, LOGIN_SAYS=f"unauthorized: {KEY}: authentication required")
    assert status == 1 and "unauthorized: ***: authentication required" in words and KEY not in words
    assert "does not start with nvapi-" not in words


def test_a_refused_key_of_another_form_is_said_to_be_one(machine):
    settings(machine, COMPOSE_PROFILES="cosmos3", NGC_API_KEY="a[b]*")
    words = run(machine, LOGIN_SAYS="a[b]* unauthorized")[1]
    assert "*** unauthorized" in words and "does not start with nvapi-" in words and "[b]" not in words


def test_the_settings_are_not_executed(machine):
    settings(machine, COMPOSE_PROFILES=f"$(touch {machine}/ran)", OTHER=f"`touch {machine}/ran`")
    assert run(machine)[0] == 0 and not (machine / "ran").exists()
