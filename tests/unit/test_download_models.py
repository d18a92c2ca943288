"""docker/download_models.sh against a loopback Hugging Face: what it gets, what it refuses, and what people read."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from hub import Hub
from setup_host import REPO

SCRIPT = REPO / "docker" / "download_models.sh"
BIG, SMALL, GATED = "Maker/Big/sub/big.safetensors", "Other/small/small.safetensors", "Shy/gated/gated.safetensors"
ROWS = [("ltx2", "checkpoints", BIG), ("ltx2", "text_encoders", SMALL), ("svd", "checkpoints", GATED)]


@pytest.fixture
def hub():
    random.seed(4)
    with Hub({name: random.randbytes(size) for name, size in ((BIG, 300_000), (SMALL, 1000), (GATED, 2000))}) as it:
        it.gated = {"Shy/gated"}
        yield it


@pytest.fixture
def pack(tmp_path, hub):
    """A copy of the script with a table of the hub's files, and a `sleep` that does not."""
    docker = tmp_path / "comfyui" / "custom_nodes" / "pack" / "docker"
    docker.mkdir(parents=True)
    programs(docker).mkdir()
    shutil.copy(SCRIPT, docker)
    lines = ["# set\tfolder"]
    for kind, folder, name in ROWS:
        owner, repository, path = name.split("/", 2)
        content = hub.files[name]
        lines.append("\t".join((kind, folder, f"{owner}/{repository}", path, str(len(content)), sha256(content))))
    (docker / "models.tsv").write_text("\n".join(lines) + "\n")
    fake(docker, "sleep", "exit 0")
    return docker


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def programs(pack):
    return pack.parents[3] / "bin"


def fake(pack, name: str, body: str) -> None:
    program = programs(pack) / name
    program.write_text(f"#!/usr/bin/env bash\n{body}\n")
    program.chmod(0o755)


def start(pack, hub, *arguments, user=None, **environment):
    env = {"PATH": f"{programs(pack)}:{os.environ['PATH']}", "HF_ENDPOINT": hub.url, "LANG": "C",
           "HOME": str(pack / "home"), **environment}
    return subprocess.Popen([pack / "download_models.sh", *arguments], env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True, user=user)


def run(pack, hub, *arguments, **more) -> tuple[int, str]:
    process = start(pack, hub, *arguments, **more)
    words, _ = process.communicate(timeout=60)
    return process.returncode, words


def in_models(pack) -> dict[str, bytes]:
    models = pack / "data" / "models"
    return {str(path.relative_to(models)): path.read_bytes() for path in models.rglob("*") if path.is_file()}


WHOLE_LTX2 = ["checkpoints/big.safetensors", "text_encoders/small.safetensors"]


def test_files_come_whole_into_the_folders_of_the_host(pack, hub):
    status, words = run(pack, hub, "ltx2")
    assert status == 0 and "All there" in words
    assert in_models(pack) == dict(zip(WHOLE_LTX2, (hub.files[BIG], hub.files[SMALL]), strict=True))
    # Nothing is asked for again.
    hub.asked.clear()
    status, words = run(pack, hub, "ltx2")
    assert status == 0 and words.count("is there") == 2 and hub.ranges() == []


def test_a_killed_run_goes_on_where_it_stopped(pack, hub):
    # Whole blocks: what curl holds of a begun one it writes when it gives up, a minute later.
    hub.stalls = [blocks := 32 * 4096]
    process = start(pack, hub, "ltx2")
    parts = pack / "data" / "models" / ".xavi9-downloads"
    while sum(it.stat().st_size for it in parts.glob("big*")) < blocks:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "checkpoints/big.safetensors" not in in_models(pack)
    hub.asked.clear()
    assert run(pack, hub, "ltx2")[0] == 0 and hub.ranges()[0] == f"bytes={blocks}-"
    assert in_models(pack)["checkpoints/big.safetensors"] == hub.files[BIG]


def test_a_line_that_stays_broken_ends_the_run_and_the_next_one_goes_on(pack, hub):
    hub.breaks = [100_000] + [0] * 6
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "goes on from there" in words
    # Not under its final name before it is whole.
    assert "checkpoints/big.safetensors" not in in_models(pack)
    hub.breaks, hub.asked = [], []
    status, words = run(pack, hub, "ltx2")
    assert status == 0 and hub.ranges()[0] == "bytes=100000-"
    assert in_models(pack)["checkpoints/big.safetensors"] == hub.files[BIG]


def test_a_line_that_breaks_again_and_again_is_taken_up_at_once(pack, hub):
    hub.breaks = [100_000, 100_000]
    status, words = run(pack, hub, "ltx2")
    assert status == 0 and hub.ranges()[:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_wrong_bytes_are_removed_and_never_get_the_final_name(pack, hub):
    hub.wrong[BIG] = bytes(300_000)
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "another checksum than" in words and "It was removed" in words
    # The other file still came.
    assert "Failed: checkpoints/big.safetensors\n" in words
    assert sorted(in_models(pack)) == [".xavi9-downloads/lock", "text_encoders/small.safetensors"]


@pytest.mark.parametrize("verify, content, told", [
    ((), b"mine", "of 4 bytes instead of 1000"), (("--verify",), bytes(1000), "its checksum is not"),
    ((), bytes(1000), None)])
def test_a_file_that_is_there_is_never_changed(pack, hub, verify, content, told):
    mine = pack / "data" / "models" / "text_encoders" / "small.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(content)
    status, words = run(pack, hub, *verify, "ltx2")
    assert status == bool(told) and mine.read_bytes() == content
    assert told is None or told in words and "It is left alone" in words


def test_a_licence_to_accept_is_explained_with_its_page(pack, hub):
    status, words = run(pack, hub, "all")
    assert status == 1 and "HF_TOKEN is not set" in words and f"open {hub.url}/Shy/gated" in words
    assert sorted(in_models(pack)) == [".xavi9-downloads/lock", *WHOLE_LTX2]


@pytest.mark.parametrize("token, accepted, told", [
    ("hf_right", True, None), ("hf_wrong", True, "does not know the token"),
    ("hf_right", False, "Shy/gated as the owner of the token and accept")])
def test_the_token_opens_what_is_gated_and_goes_nowhere_else(pack, hub, token, accepted, told):
    hub.accepted = accepted
    status, words = run(pack, hub, "svd", HF_TOKEN=token)
    assert status == bool(told) and (told is None or told in words)
    assert token not in words
    # The storage refuses every authorization but its own signature.
    assert {it[3] for it in hub.asked if it[1].startswith("/storage")} <= {None}
    if not told:
        assert in_models(pack) == {"checkpoints/gated.safetensors": hub.files[GATED]}


@pytest.mark.parametrize("token", ["hf_right\nurl = file:///etc/passwd", " hf_right", 'hf_"right"', "hf_\\right"])
def test_a_token_that_cannot_be_one_is_never_sent(pack, hub, token):
    status, words = run(pack, hub, "svd", HF_TOKEN=token)
    assert status == 2 and "HF_TOKEN has spaces" in words and token not in words and hub.asked == []


def test_a_line_that_stands_still_is_given_up(pack, hub):
    fake(pack, "curl", f'printf "%s " "$@" >> {pack}/argv; exec /usr/bin/curl "$@"')
    assert run(pack, hub, "ltx2")[0] == 0
    assert "--speed-limit 1000 --speed-time 60" in (pack / "argv").read_text()


def test_the_token_is_in_no_command_line(pack, hub):
    fake(pack, "curl", f'printf "%s\\n" "$@" >> {pack}/argv; exec /usr/bin/curl "$@"')
    assert run(pack, hub, "svd", HF_TOKEN="hf_right")[0] == 0
    assert "hf_right" not in (pack / "argv").read_text() and "--head" in (pack / "argv").read_text()


@pytest.mark.parametrize("gone", [BIG, SMALL])
def test_what_the_hub_no_longer_has_is_named(pack, hub, gone):
    del hub.files[gone]
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "Hugging Face has no" in words and gone.split("/", 2)[2] in words


def test_another_file_than_the_tables_is_told_and_still_whole(pack, hub):
    hub.files[SMALL] = b"newer"
    status, words = run(pack, hub, "ltx2")
    assert status == 0 and f"another file there now than this pack knows: sha256 {sha256(b'newer')}" in words
    assert in_models(pack)["text_encoders/small.safetensors"] == b"newer"


def test_a_repository_that_moved_is_told_with_its_new_place(pack, hub):
    hub.moved["Other/small"] = "Newer/small"
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "has moved Other/small to /Newer/small/resolve/main/small.safetensors" in words


def test_a_link_to_nothing_is_told_and_nothing_is_downloaded_for_it(pack, hub):
    target = pack / "data" / "models" / "text_encoders" / "small.safetensors"
    target.parent.mkdir(parents=True)
    target.symlink_to("/nowhere/small.safetensors")
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "It is a link to /nowhere/small.safetensors, which is not there" in words
    assert target.is_symlink() and not any(SMALL.rpartition("/")[2] in it[1] for it in hub.asked)


def test_what_came_meanwhile_stays(pack, hub):
    target = pack / "data" / "models" / "text_encoders" / "small.safetensors"
    fake(pack, "sha256sum", f"[[ $1 == *small* ]] && echo theirs > {target}; exec /usr/bin/sha256sum \"$@\"")
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "It could not be put in its place" in words and target.read_text() == "theirs\n"


def test_a_hub_that_cannot_be_reached_is_told_with_curls_words(pack, hub):
    status, words = run(pack, hub, "svd", HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 1 and "http://127.0.0.1:9 cannot be reached" in words and "Failed to connect" in words


def test_a_dry_run_writes_nothing(pack, hub):
    status, words = run(pack, hub, "--dry-run", "ltx2")
    assert status == 0 and words.count("would be downloaded") == 2 and "Free there" in words
    assert not (pack / "data").exists() and hub.ranges() == []


def test_too_little_room_is_told_before_anything_is_asked(pack, hub):
    fake(pack, "df", "echo Avail; echo 1000300000")
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "That does not fit" in words and hub.asked == []


def test_what_came_of_another_model_is_no_room_for_this_one(pack, hub):
    parts = pack / "data" / "models" / ".xavi9-downloads"
    parts.mkdir(parents=True)
    (parts / f"gated.safetensors.{sha256(hub.files[GATED])}").write_bytes(bytes(2000))
    (parts / f"big.safetensors.{sha256(hub.files[BIG])}").write_bytes(hub.files[BIG][:1000])
    fake(pack, "df", "echo Avail; echo 1000299999")
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "That does not fit" in words
    fake(pack, "df", "echo Avail; echo 1000300000")
    assert run(pack, hub, "ltx2")[0] == 0


@pytest.mark.parametrize("place, told", [("models", "cannot write to"),
                                         ("models/checkpoints", "is no folder that user")])
def test_a_folder_that_cannot_be_made_is_told(pack, hub, place, told):
    (pack / "data" / place).parent.mkdir(parents=True)
    (pack / "data" / place).touch()
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and told in words and f"data/{place}" in words and "that user" in words
    assert hub.ranges() == ([None] if place != "models" else [])


def test_a_folder_of_somebody_else_is_told_before_the_download(pack, hub, tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        # Root may write everywhere: `nobody` runs it then, in a copy that this one can reach.
        copy = Path(shutil.copytree(tmp_path, f"{folder}/copy")) / pack.relative_to(tmp_path)
        for part in (folder, f"{folder}/copy"):
            os.chmod(part, 0o755)
        models = copy / "data" / "models"
        (models / "checkpoints").mkdir(parents=True)
        (models / "checkpoints").chmod(0o555)
        models.chmod(0o555)
        user = 65534 if os.getuid() == 0 else None
        assert f"cannot write to {models}. Give it to that user" in run(copy, hub, "ltx2", user=user)[1]
        models.chmod(0o777)
        (models / ".xavi9-downloads").mkdir(0o555)
        assert f"cannot write to {models}. Give it to that user" in run(copy, hub, "ltx2", user=user)[1]
        assert hub.asked == []
        (models / ".xavi9-downloads").rmdir()
        status, words = run(copy, hub, "ltx2", user=user)
        assert status == 1 and f"{models}/checkpoints is no folder that user" in words
        # The other file still came, and nothing of this one.
        assert sorted(in_models(copy)) == [".xavi9-downloads/lock", "text_encoders/small.safetensors"]
        assert hub.ranges() == [None]


@pytest.mark.parametrize("gone", ["curl", "sha256sum", "flock"])
def test_a_program_that_is_missing_is_named(pack, hub, gone):
    for name in {"bash", "dirname", "realpath", "sed", "tail", "awk", "stat", "curl", "sha256sum", "flock"} - {gone}:
        (programs(pack) / name).symlink_to(shutil.which(name))
    status, words = run(pack, hub, "ltx2", PATH=str(programs(pack)))
    assert status == 1 and f"{gone} is missing" in words and "apt-get install" in words


def test_a_full_disk_in_the_middle_keeps_what_came(pack, hub):
    models = pack / "data" / "models"
    models.mkdir(parents=True)
    # A file may grow to 100 blocks of 1024 bytes here, as on a disk that is full then.
    fake(pack, "curl", 'ulimit -f 100; trap "" XFSZ; exec /usr/bin/curl "$@"')
    status, words = run(pack, hub, "ltx2")
    assert status == 1 and "The disk is full" in words
    (part,) = (models / ".xavi9-downloads").glob("big*")
    assert part.stat().st_size == 100 * 1024
    (programs(pack) / "curl").unlink()
    hub.asked.clear()
    assert run(pack, hub, "ltx2")[0] == 0 and hub.ranges()[0] == "bytes=102400-"


def test_two_at_once_do_not_meet(pack, hub):
    parts = pack / "data" / "models" / ".xavi9-downloads"
    parts.mkdir(parents=True)
    with subprocess.Popen(["flock", parts / "lock", "sleep", "30"], start_new_session=True) as other:
        try:
            for _ in range(100):
                status, words = run(pack, hub, "ltx2")
                if status:
                    break
            assert "Another download_models.sh is at work" in words
        finally:
            os.killpg(other.pid, signal.SIGKILL)


def test_an_interrupt_says_how_to_go_on(pack, hub):
    # A test run in the background has it ignored, and so would the script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    fake(pack, "sha256sum", f": > {pack}/hashing; exec /bin/sleep 30")
    process = start(pack, hub, "ltx2")
    signal.signal(signal.SIGINT, before)
    while not (pack / "hashing").exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    words, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "goes on from here" in words
    assert "checkpoints/big.safetensors" not in in_models(pack)


def test_a_script_that_is_ended_ends_its_curl_at_once(pack, hub):
    hub.stalls = [100_000]
    process = start(pack, hub, "ltx2")
    while not hub.ranges():
        assert process.poll() is None
    process.terminate()
    # A curl that goes on would hold this pipe, and the lock.
    words, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "goes on from here" in words
    assert run(pack, hub, "ltx2")[0] == 0


def test_what_is_there_is_compared_where_the_rest_has_no_room(pack, hub):
    fake(pack, "df", "echo Avail; echo 1000")
    place = pack / "data" / "models" / "checkpoints"
    place.mkdir(parents=True)
    (place / "big.safetensors").write_bytes(bytes(len(hub.files[BIG])))
    status, words = run(pack, hub, "--dry-run", "--verify", "ltx2")
    assert status == 1 and "That does not fit" in words and "its checksum is not" in words
    assert list(in_models(pack)) == ["checkpoints/big.safetensors"]


def test_a_file_as_the_table_knows_it_stays_when_the_hub_has_another(pack, hub):
    assert run(pack, hub, "ltx2")[0] == 0
    hub.files[BIG] += b"new"
    status, words = run(pack, hub, "--verify", "ltx2")
    assert status == 0 and "another file there now" in words and words.count("checksum right") == 2


def test_without_a_home_and_with_a_setting_that_is_exported(pack, hub):
    (pack / ".env").write_text(f"  export XAVI9_DATA={pack}/other\n")
    process = subprocess.run(["/usr/bin/env", "-u", "HOME", pack / "download_models.sh", "list"], capture_output=True,
                             text=True, timeout=20)
    assert process.returncode == 0 and f"Models: {pack}/other/models" in process.stdout


def test_the_folder_is_the_one_asked_for_else_comfyuis_else_composes(pack, hub, tmp_path):
    def folder(*arguments, **environment):
        return re.match(r"Models: (.*) \(.*\)\n", run(pack, hub, *arguments, "list", **environment)[1])[1]

    assert folder() == str(pack / "data" / "models")
    for line, data in (("../elsewhere", pack.parent / "elsewhere"), ("'/srv/my models #2'", "/srv/my models #2"),
                       ("/srv/x  # big disk", "/srv/x"), ("/srv/x\r", "/srv/x"), ("", pack / "data"),
                       ("~/x", pack / "home" / "x"), (f"/srv/`touch {tmp_path}/ran`", f"/srv/`touch {tmp_path}/ran`")):
        (pack / ".env").write_text(f"OTHER=1\nXAVI9_DATA={line}\n", newline="")
        assert folder() == f"{data}/models"
    assert not (tmp_path / "ran").exists()
    assert folder(XAVI9_DATA="/srv/x") == "/srv/x/models"
    comfyui = pack.parents[2]
    (comfyui / "main.py").touch()
    (comfyui / "models").mkdir()
    assert folder() == str(comfyui / "models")
    assert folder("--models", str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("given", ["$HOME/videos", "$(touch ran)", "/a:b"])
def test_a_folder_that_compose_would_read_otherwise_is_refused(pack, hub, given):
    (pack / ".env").write_text(f"XAVI9_DATA={given}\n")
    status, words = run(pack, hub, "list")
    assert status == 2 and f"XAVI9_DATA is {given}" in words


def test_a_link_to_the_script_and_a_cdpath_do_no_harm(pack, hub, tmp_path):
    (tmp_path / "download").symlink_to(pack / "download_models.sh")
    env = {**os.environ, "CDPATH": ".:/tmp", "HF_ENDPOINT": hub.url}
    done = subprocess.run([tmp_path / "download", "list"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and str(pack / "data" / "models") in done.stdout and done.stderr == ""


@pytest.mark.parametrize("arguments, told", [((), "usage"), (("ltx3",), "does not know 'ltx3'")])
def test_a_wrong_call_is_answered_with_the_usage(pack, hub, arguments, told):
    status, words = run(pack, hub, *arguments)
    assert status == 2 and told in words and "usage: download_models.sh" in words


def shipped() -> list[list[str]]:
    table = (REPO / "docker" / "models.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in table.splitlines() if not line.startswith("#")]


def offered(node: dict) -> list[tuple]:
    models = node.get("properties", {}).get("models", [])
    assert {it["hash_type"] for it in models} <= {"SHA256"}
    return [(it["directory"], it["url"], it["hash"]) for it in models]


def test_the_editor_offers_the_files_of_the_table_and_no_others():
    graphs = [json.loads(path.read_text(encoding="utf-8")) for path in
              (*(REPO / "workflows").glob("*.json"), *(REPO / "subgraphs").glob("*.json"))]
    nodes = [node for graph in graphs for part in (graph, *graph.get("definitions", {}).get("subgraphs", ()))
             for node in part["nodes"]]
    listed = {(folder, f"https://huggingface.co/{repository}/resolve/main/{path}", known)
              for _, folder, repository, path, _, known in shipped()}
    assert {it for node in nodes for it in offered(node)} == listed


def test_every_message_that_names_the_script_names_a_set_of_it():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPO / "nodes").rglob("*.py"))
    named = re.findall(r'(?:model_path|checkpoint_path)\b[^\n]*, "(\w+)"\)[^,]|model="(\w+)"', code)
    [chosen] = re.findall(r'return "(ltx.+)" if "dev" in name else "(.+)"', code)
    named = {one or other for one, other in named} | set(chosen)
    sets = {kind for kinds, *_ in shipped() for kind in kinds.split(",")}
    assert named == {"ltx2", "ltx23", "ltx23-dev", "svd"} <= sets


def test_the_readme_names_every_file_of_the_table():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert [path for *_, path, _, _ in shipped() if path.rpartition("/")[2] not in text] == []


def test_the_stand_ins_checksum_is_sha256(hub):
    assert sha256(hub.files[SMALL]) in str(
        subprocess.run(["curl", "-sI", f"{hub.url}/Other/small/resolve/main/small.safetensors"], capture_output=True))
