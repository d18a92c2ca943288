"""Every environment variable that the pack reads, typed once; `.env` in the pack's own folder serves too."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat, HttpUrl, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import BadSetting

ENV_FILE = Path(__file__).parents[1] / ".env"


def base_address(value: str) -> str:
    url = TypeAdapter(HttpUrl).validate_python(value)
    if url.username or url.password:
        raise ValueError("it must not hold a user name or password")
    if url.query or url.fragment:
        raise ValueError("it must end with the host, the port or a path")
    return str(url).rstrip("/")


def bearer_key(value: SecretStr) -> SecretStr:
    # Anything else inside a header makes the HTTP library raise an error that quotes it.
    key = value.get_secret_value().strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("it must be one line of printable ASCII characters without spaces")
    return SecretStr(key)


def without_secrets(value: str) -> str:
    """A wrong value as it may be shown: no user and password, no query, no key of NVIDIA's in the wrong place."""
    value = re.sub(r"^(.*//)?.*@", r"\1***@", value, flags=re.DOTALL)
    return re.sub(r"[?#].*|nvapi-\S*", "***", value, flags=re.DOTALL)


Address = Annotated[str, AfterValidator(base_address)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore"
    )


class CosmosSettings(Settings):
    """What the Cosmos room reads. Addresses are base addresses of a NIM; times are seconds."""

    cosmos_nim_url: Address = "http://localhost:8000"
    cosmos_text2world_url: Address | None = None
    cosmos_video2world_url: Address | None = None
    cosmos_family: str = "auto"
    cosmos_timeout_seconds: Annotated[FiniteFloat, Field(gt=0)] | None = None
    cosmos_wait_seconds: Annotated[FiniteFloat, Field(ge=0)] = 0
    ngc_api_key: Annotated[SecretStr, AfterValidator(bearer_key)] | None = None
    xavi9_max_reply_mb: Annotated[int, Field(ge=1)] = 512


class LocalSettings(Settings):
    """What the rooms of the local models read. The reserve is in GB (10^9 bytes), on unified memory only."""

    xavi9_one_local_model: bool = True
    xavi9_memory_reserve_gb: Annotated[FiniteFloat, Field(ge=0)] = 8


class StorageSettings(Settings):
    """How many of our saved videos stay, and how many GB (10^9 bytes) of them; None: all."""

    xavi9_keep_files: Annotated[int, Field(ge=1)] | None = None
    xavi9_keep_gb: Annotated[FiniteFloat, Field(gt=0)] | None = None


@cache
def cosmos() -> CosmosSettings:
    """The Cosmos settings, read once. Raises BadSetting, which names the variable and its rule and never a secret."""
    return checked(CosmosSettings)


@cache
def local() -> LocalSettings:
    """The settings of the local models, read once. Raises BadSetting."""
    return checked(LocalSettings)


@cache
def storage() -> StorageSettings:
    """The limits of what was saved, read once. Raises BadSetting."""
    return checked(StorageSettings)


def checked(settings: type[Settings]) -> Settings:
    try:
        return settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = str(first["loc"][0]).upper()
        value = "***" if variable == "NGC_API_KEY" else without_secrets(str(first["input"]))
        raise BadSetting(variable=variable, value=value, rule=first["msg"].removeprefix("Value error, ")) from None
    except (UnicodeDecodeError, OSError) as error:
        raise BadSetting(variable=".env", value=ENV_FILE, rule=f"it cannot be read as UTF-8 text ({error})") from None
