"""The Docker files say what the facts and the pack say. No engine runs here: `make lint` checks their form."""

import re
from pathlib import Path

import pytest
import yaml
from setup_host import DEFAULT_HOST, KNOWN_HOSTS, REPO
from xavi9videos.nodes import settings
from xavi9videos.nodes.cosmos import client

DOCKER = REPO / "docker"
TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
NIMS = ("cosmos3", "cosmos-text2world", "cosmos-video2world")
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


@pytest.mark.parametrize("name", NIMS)
def test_a_nim_has_what_its_start_needs(name):
    nim = composed(NGC_API_KEY="nvapi-1")[name]
    health = nim["healthcheck"]
    assert health["test"][0] == "CMD-SHELL" and "http://localhost:8000/v1/health/ready" in health["test"][1]
    # A first start has been seen to take 35 minutes.
    assert int(health["start_period"][:-1]) * SECONDS[health["start_period"][-1]] >= 45 * 60
    assert nim["volumes"] == ["nim_cache:/opt/nim/.cache"]
    assert nim["shm_size"] == "16gb" and nim["restart"] == "unless-stopped"
    assert (nim["ulimits"]["memlock"], nim["ulimits"]["stack"]) == (-1, 67108864)
    assert nim["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert nim["environment"]["NGC_API_KEY"] == "nvapi-1"


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
    app = composed(XAVI9_DATA="/srv/x", XAVI9_UID="7", XAVI9_GID="8", XAVI9_LISTEN="0.0.0.0")["comfyui"]
    assert (app["volumes"][0], app["user"]) == ("/srv/x/models:/comfyui/models", "7:8")
    assert app["ports"] == ["0.0.0.0:8188:8188"]


def test_compose_and_the_image_start_the_same_command_on_the_release_that_the_tests_run():
    recipe = (DOCKER / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", recipe, re.MULTILINE)
    assert yaml.safe_load(command) == composed()["comfyui"]["command"].split()
    (release,) = re.findall(r"^ARG COMFYUI_VERSION=v(.*)$", recipe, re.MULTILINE)
    assert release == KNOWN_HOSTS[DEFAULT_HOST][0]
    assert composed()["comfyui"]["build"]["args"]["COMFYUI_VERSION"] == f"v{release}"


def test_what_goes_into_the_image_is_there():
    kept = re.findall(r"^!(.*)$", (DOCKER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert [it for it in kept if not (REPO / it).exists()] == []


def test_no_key_is_anywhere_in_the_docker_files():
    for path in Path(DOCKER).iterdir():
        if path.is_file():
            assert not re.search(r"nvapi-\w{8}|hf_\w{8}", path.read_text(encoding="utf-8")), path.name
