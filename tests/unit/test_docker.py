"""The Docker files say what the facts and the pack say. No engine runs here: `make lint` checks their form."""

import re
import subprocess
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from lint import files
from setup_host import DEFAULT_HOST, KNOWN_HOSTS, REPO
from xavi9videos.nodes import settings
from xavi9videos.nodes.cosmos import client

DOCKER = REPO / "docker"
TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
RECIPE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
NIMS = ("cosmos3", "cosmos-text2world", "cosmos-video2world")
ULIMITS = {"memlock": -1, "stack": 67108864, "nofile": 65536}
GPU = {"resources": {"reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}}}
SECONDS = {"s": 1, "m": 60, "h": 3600}


def composed(**env: str) -> dict:
    """The services as `docker compose` reads them with this .env: ${NAME:-default}, ${NAME-default}, and NAME: alone.

    The rules are those of the Compose specification, 12-interpolation.md and 05-services.md (environment).
    """
    def value(found: re.Match) -> str:
        name, colon, default = found.groups()
        given = env.get(name)
        return default if given is None or colon and not given else given

    services = yaml.safe_load(re.sub(r"\$\{(\w+)(:?)-([^}]*)\}", value, TEXT))["services"]
    for service in services.values():
        asked = service["environment"].items()
        service["environment"] = {name: env.get(name) if given is None else given for name, given in asked}
    assert "${" not in str(services)
    return services


def variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", text))


def test_cosmos_is_started_on_request_only_and_nothing_waits_for_it():
    services = composed()
    assert {name: it.get("profiles") for name, it in services.items()} == {
        "comfyui": None, "cosmos3": ["cosmos3"], "cosmos-text2world": ["predict1"], "cosmos-video2world": ["predict1"]}
    assert not any("depends_on" in it for it in services.values())


def test_images_are_those_that_nvidia_publishes():
    assert {name: composed()[name]["image"].rpartition(":")[0] for name in NIMS} == {
        "cosmos3": "nvcr.io/nim/nvidia/cosmos3",
        "cosmos-text2world": "nvcr.io/nim/nvidia/cosmos-predict1-7b-text2world",
        "cosmos-video2world": "nvcr.io/nim/nvidia/cosmos-predict1-7b-video2world"}


@pytest.mark.parametrize("setting, service", [("COSMOS_NIM_URL", "cosmos3"),
                                              ("COSMOS_TEXT2WORLD_URL", "cosmos-text2world"),
                                              ("COSMOS_VIDEO2WORLD_URL", "cosmos-video2world")])
def test_the_service_that_a_message_names_is_at_the_address_of_its_setting(setting, service):
    examples = dict(re.findall(r"^#?(COSMOS_\w+_URL)=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    url = composed()["comfyui"]["environment"][setting] or examples[setting]
    assert url == f"http://{service}:8000"
    mode = "video2world" if "VIDEO" in setting else "text2world"
    assert client.address_of(mode, settings.CosmosSettings(**{setting.lower(): url})).service == service


@pytest.mark.parametrize("name, port", list(zip(NIMS, (8000, 8001, 8002), strict=True)))
def test_a_nim_has_what_its_start_needs(name, port):
    nim = composed(NGC_API_KEY="nvapi-1")[name]
    health = nim["healthcheck"]
    # A first start has been seen to take 35 minutes.
    assert int(health["start_period"][:-1]) * SECONDS[health["start_period"][-1]] >= 45 * 60
    assert nim["volumes"] == ["nim_cache:/opt/nim/.cache"]
    assert nim["shm_size"] == "16gb" and nim["restart"] == "unless-stopped"
    assert nim["ulimits"] == ULIMITS and nim["deploy"] == GPU
    # It asks for no password: it is for ComfyUI and for this machine.
    assert nim["ports"] == [f"127.0.0.1:{port}:8000"]
    assert nim["environment"]["NGC_API_KEY"] == "nvapi-1"


@pytest.mark.parametrize("status, healthy", [(200, True), (503, False), (404, False), (None, False)])
def test_the_health_check_says_what_the_nim_says(status, healthy, monkeypatch):
    class Nim(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/v1/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    # A proxy that docker hands to containers must not be asked for this.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    kind, command = composed()["cosmos3"]["healthcheck"]["test"]
    with HTTPServer(("127.0.0.1", 0), Nim) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = command.replace("$$", "$").replace("localhost:8000", f"127.0.0.1:{server.server_port}")
        if status is None:
            command = command.replace(str(server.server_port), "9")
        done = subprocess.run(["sh", "-c", command], capture_output=True)
        server.shutdown()
    assert kind == "CMD-SHELL" and (done.returncode == 0) == healthy


def test_cosmos3_is_told_which_model_to_run():
    told = {"NIM_MODEL_VARIANT": "nano", "NIM_PRECISION": None, "NIM_UNIFIED_MEMORY_HOST_RESERVE_GIB": None}
    assert composed()["cosmos3"]["environment"] == {"NGC_API_KEY": None, **told}
    assert composed(COSMOS3_MODEL="super", NIM_PRECISION="bf16")["cosmos3"]["environment"] == {
        "NGC_API_KEY": None, **told, "NIM_MODEL_VARIANT": "super", "NIM_PRECISION": "bf16"}


def test_the_key_has_no_default_and_goes_to_no_other_container():
    assert all(composed()[name]["environment"]["NGC_API_KEY"] is None for name in NIMS)
    assert "nvapi-1" not in str(composed(NGC_API_KEY="nvapi-1")["comfyui"])
    assert re.search(r"^NGC_API_KEY=$", (DOCKER / ".env.example").read_text(), re.MULTILINE)


def test_every_setting_of_the_pack_but_the_key_reaches_it():
    kinds = (settings.CosmosSettings, settings.LocalSettings, settings.StorageSettings)
    ours = {name.upper() for kind in kinds for name in kind.model_fields} - {"NGC_API_KEY"}
    assert set(composed()["comfyui"]["environment"]) == ours


def test_old_videos_are_removed_unless_the_limits_are_emptied():
    kept = ("XAVI9_KEEP_FILES", "XAVI9_KEEP_GB")
    assert [composed()["comfyui"]["environment"][name] for name in kept] == [100, 10]
    assert not any(composed(XAVI9_KEEP_FILES="", XAVI9_KEEP_GB="")["comfyui"]["environment"][name] for name in kept)


def test_what_compose_asks_for_is_explained_in_the_example():
    assert variables(TEXT) <= set(re.findall(r"^#?(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))


def test_the_app_is_a_normal_user_on_this_machine_only_with_its_folders_outside():
    app = composed()["comfyui"]
    assert app["user"] == "1000:1000" and app["ports"] == ["127.0.0.1:8188:8188"]
    assert app["volumes"] == [f"./data/{it}:/comfyui/{it}" for it in ("models", "input", "output", "user")]
    assert app["cap_drop"] == ["ALL"] and app["security_opt"] == ["no-new-privileges:true"] and app["init"] is True
    assert app["deploy"] == GPU and app["ulimits"] == ULIMITS and app["restart"] == "unless-stopped"
    assert app["extra_hosts"] == ["host.docker.internal:host-gateway"] and app["healthcheck"] == {"start_period": "3m"}
    # With a name of its own for the image, compose would look for it in a registry first.
    assert app["build"]["context"] == ".." and app["build"]["dockerfile"] == "docker/Dockerfile" and "image" not in app
    app = composed(XAVI9_DATA="/srv/x", XAVI9_UID="7", XAVI9_GID="8", XAVI9_LISTEN="0.0.0.0")["comfyui"]
    assert (app["volumes"][0], app["user"]) == ("/srv/x/models:/comfyui/models", "7:8")
    assert app["ports"] == ["0.0.0.0:8188:8188"]


def test_compose_and_the_image_start_the_same_command_on_the_release_that_the_tests_run():
    (command,) = re.findall(r"^CMD (\[.*\])$", RECIPE, re.MULTILINE)
    assert yaml.safe_load(command) == composed()["comfyui"]["command"].split()
    (release,) = re.findall(r"^ARG COMFYUI_VERSION=v(.*)$", RECIPE, re.MULTILINE)
    assert release == KNOWN_HOSTS[DEFAULT_HOST][0]
    assert composed()["comfyui"]["build"]["args"]["COMFYUI_VERSION"] == f"v{release}"


def test_the_image_has_pytorch_as_the_tests_and_the_pack_where_comfyui_looks_for_it():
    (torch,) = re.findall(r"pip install (torch==.*)$", RECIPE, re.MULTILINE)
    fixed = (REPO / "tests" / "constraints.txt").read_text()
    assert torch.split() == re.findall(r'^(torch\w*==[\d.]+); platform_machine == "x86_64"$', fixed, re.MULTILINE)
    lines = RECIPE.splitlines()
    assert "WORKDIR /comfyui" in lines and "COPY . custom_nodes/xavi9videos/" in lines


def test_the_image_writes_only_where_compose_mounts_and_as_anybody():
    """What setup.sh makes the user is not known to the image: no name, no home."""
    lines = RECIPE.splitlines()
    assert "RUN mkdir -p models input output user && chmod 777 models input output user" in lines
    assert "ENV HOME=/tmp" in lines and "USER 1000:1000" in lines
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n    CMD (\[.*\])$", RECIPE, re.MULTILINE)
    assert yaml.safe_load(check) == ["curl", "--noproxy", "*", "-fsS", "-o", "/dev/null",
                                     "http://127.0.0.1:8188/system_stats"]


def sent(path: str) -> bool:
    """Whether this path goes into the build, by the rules of .dockerignore: the last pattern that fits counts."""
    parts, kept = path.split("/"), True
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        wanted = line.removeprefix("!")
        fits = wanted.removeprefix("**/") in parts if wanted.startswith("**/") else \
            any(fnmatch(it, wanted) and it.count("/") == wanted.count("/") for it in above)
        kept = line.startswith("!") if fits else kept
    return kept


def test_what_goes_into_the_image_is_the_pack_and_nothing_else():
    ours = {path.relative_to(REPO).as_posix() for path in files()}
    of_the_pack = {"__init__.py", "nodes", "web", "locales", "workflows", "subgraphs", "pyproject.toml",
                   "requirements.txt", "README.md", "LICENSE"}
    scripts = {"docker/models.tsv", "docker/download_models.sh"}
    assert {it for it in ours if sent(it)} == {it for it in ours if it.split("/")[0] in of_the_pack} | scripts
    for never in (".env", "docker/.env", "docker/data/models/checkpoints/x.safetensors", ".git/config", ".venv/made",
                  "nodes/__pycache__/x.pyc"):
        assert not sent(never)


def test_no_key_is_anywhere_in_the_docker_files():
    for path in Path(DOCKER).iterdir():
        if path.is_file():
            assert not re.search(r"nvapi-\w{8}|hf_\w{8}", path.read_text(encoding="utf-8")), path.name
