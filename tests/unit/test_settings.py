"""Environment variables: what is taken, what is refused by name, and that no secret is shown."""

import pytest
from xavi9videos.nodes import errors, settings

KEY = "nvapi-very-secret"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    for name in settings.CosmosSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(settings.CosmosSettings.model_config, "env_file", tmp_path / ".env")
    settings.cosmos.cache_clear()
    yield
    settings.cosmos.cache_clear()


def test_defaults():
    found = settings.cosmos()
    assert found.cosmos_nim_url == "http://localhost:8000"
    assert found.cosmos_family == "auto"
    assert found.cosmos_timeout_seconds is None
    assert found.cosmos_wait_seconds == 0
    assert found.xavi9_max_reply_mb == 512


def test_the_env_file_serves_and_foreign_keys_and_empty_values_are_ignored(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("COSMOS_NIM_URL=http://spark:9000/\nHF_TOKEN=x\nCOSMOS_TIMEOUT_SECONDS=\n")
    monkeypatch.setenv("COSMOS_WAIT_SECONDS", "")
    assert settings.cosmos().cosmos_nim_url == "http://spark:9000"
    assert settings.cosmos().cosmos_timeout_seconds is None


@pytest.mark.parametrize(
    "variable, value",
    [
        ("COSMOS_NIM_URL", "localhost:8000"),
        ("COSMOS_NIM_URL", "file:///etc/passwd"),
        ("COSMOS_TEXT2WORLD_URL", "nonsense"),
        ("COSMOS_TIMEOUT_SECONDS", "0"),
        ("COSMOS_TIMEOUT_SECONDS", "inf"),
        ("COSMOS_WAIT_SECONDS", "-1"),
        ("XAVI9_MAX_REPLY_MB", "half"),
    ],
)
def test_a_bad_value_names_its_variable_and_itself(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(errors.BadSetting) as caught:
        settings.cosmos()
    assert f"{variable}={value}" in str(caught.value)


@pytest.mark.parametrize(
    "variable, value, secret",
    [
        ("NGC_API_KEY", f"{KEY} with a space", KEY),
        ("NGC_API_KEY", f"{KEY}\nX-Other: 1", KEY),
        ("COSMOS_NIM_URL", f"http://user:{KEY}@host:8000", KEY),
        ("COSMOS_NIM_URL", f"http://user:{KEY}@host name", KEY),
        ("COSMOS_NIM_URL", "bob:s3cret@host:8000", "s3cret"),
        ("COSMOS_NIM_URL", "http://host:8000/?api_key=s3cret", "s3cret"),
        ("COSMOS_TIMEOUT_SECONDS", KEY, KEY),
    ],
)
def test_a_bad_value_never_shows_a_secret(monkeypatch, variable, value, secret):
    monkeypatch.setenv(variable, value)
    with pytest.raises(errors.BadSetting) as caught:
        settings.cosmos()
    assert variable in str(caught.value)
    assert secret not in f"{caught.value}{caught.value.values}{caught.value.__cause__}"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_an_env_file_that_is_not_utf8_is_named(tmp_path, encoding):
    (tmp_path / ".env").write_bytes("# caf\u00e9".encode(encoding))
    with pytest.raises(errors.BadSetting, match=r"\.env.*UTF-8"):
        settings.cosmos()


def test_a_trailing_newline_of_the_key_is_dropped(monkeypatch):
    monkeypatch.setenv("NGC_API_KEY", KEY + "\n")
    assert settings.cosmos().ngc_api_key.get_secret_value() == KEY
    assert KEY not in repr(settings.cosmos())
