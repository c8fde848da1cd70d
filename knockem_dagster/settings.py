"""The settings: one class, one variable KNOCKEM_... for each field, read by load_settings and nowhere else.

What does not belong here: secrets other than a store's address (credentials of S3 and of registries stay where
their own tools look for them) and the variables of the container contract (containers/names.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from knockem_dagster.errors import Fault, SettingsError

RuntimeName: TypeAlias = Literal["process", "docker", "podman", "apptainer"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
"""What runs organisms; see containers/runtime.py."""

_PREFIX = "KNOCKEM_"
_SECRET = {"documents_url", "queue_url", "warehouse_url", "token"}
"""Settings whose value may hold a password: no message quotes them."""
_BUNDLED_ORGANISMS = Path(__file__).parents[1] / "deploy" / "organisms"
_SANDBOX = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def _processors() -> int:
    return os.cpu_count() or 1


def _bundled_organisms() -> tuple[Path, ...]:
    return (_BUNDLED_ORGANISMS,) if _BUNDLED_ORGANISMS.is_dir() else ()


class Settings(BaseSettings):
    """Where this process keeps things and how it works; made by load_settings, never changed afterwards."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(
        default=Path(".knockem"),
        validate_default=True,
        description="a folder for everything embedded: documents, objects, Dagster's storage; made when missing",
    )
    environment: Literal["production", "staging", "testing"] = Field(
        default="production",
        description="production, staging or testing: each has its own folder, database and bucket",
    )
    sandbox: str | None = Field(
        default=None,
        description="which of several staging environments: up to 32 lower-case letters, digits and inner hyphens; "
        "only with KNOCKEM_ENVIRONMENT=staging",
    )
    documents_url: str | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="a MongoDB server, mongodb://user:password@host:port/name with special characters of the "
        "password percent-encoded; unset: SQLite below home",
    )
    queue_url: str | None = Field(
        default=None,
        repr=False,  # as above
        description="a Redis or Valkey server, redis://user:password@host:port/0, rediss:// for TLS or unix:///path, "
        "with special characters of the password percent-encoded; unset: the Valkey that `up` runs, in home",
    )
    objects_url: str | None = Field(
        default=None,
        description="an S3 bucket, s3://bucket/prefix; unset: a folder below home",
    )
    s3_endpoint: str | None = Field(
        default=None,
        description="the http:// or https:// address of an S3 server other than Amazon's",
    )
    warehouse_url: str | None = Field(
        default=None,
        repr=False,  # as above
        description="a PostgreSQL server that the marts of job logs are copied to, "
        "postgresql://user:password@host:port/name with special characters of the password percent-encoded; "
        "unset: they are copied nowhere",
    )
    runtime: Literal["auto", RuntimeName] = Field(
        default="auto",
        description="what runs containers: docker, podman, apptainer, process (organism folders), or auto (process for "
        "those, and for images the first of the others that is there)",
    )
    organisms: Annotated[tuple[Path, ...], NoDecode] = Field(
        default_factory=_bundled_organisms,
        description=f"folders that hold organism folders, separated by {os.pathsep!r}; each must exist",
    )
    cpus: int = Field(
        default_factory=_processors, ge=1, description="processors to use: a whole number from 1; unset: all"
    )
    leave_to_workers: bool = Field(
        default=False,
        description="whether runs and the API leave all that runs organisms to workers (true or false): where they "
        "may not, or cannot, run containers",
    )
    lease_seconds: float = Field(
        default=15.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds after which a process that stopped renewing its lease counts as dead: above 0",
    )
    port: int = Field(default=3000, ge=1, le=65535, description="the port of the Dagster UI: 1 to 65535")
    api_port: int = Field(default=3001, ge=1, le=65535, description="the port of the HTTP API: 1 to 65535")
    api_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="the address that the HTTP API listens on; 0.0.0.0 lets other machines reach it",
    )
    ui_url: str | None = Field(
        default=None,
        pattern=r"^(https?:/)?/[^\s\"'<>]*$",
        description="where the Dagster UI is, for a link on the pages: http://host:port or /path; `up` says so itself",
    )
    nodes: Path | None = Field(
        default=None, description="the file of node pools; unset: nodes.yaml in home, if there is one"
    )
    url: str | None = Field(
        default=None, description="the http:// or https:// address of a platform, for a worker that reaches it only so"
    )
    token: str | None = Field(
        default=None,
        repr=False,
        description="the token by which a worker is known there, as `./knockem token add` prints it",
    )
    keep_runs_days: int = Field(
        default=30, ge=1, description="days after which finished runs are deleted: a whole number from 1"
    )

    @property
    def folder(self) -> Path:
        """Where this environment's embedded stores are: home itself for production, a folder in it otherwise."""
        return self.home if self.environment == "production" else self.home / self.environment

    def name_in_environment(self, name: str, separator: str) -> str:
        """Return the name of a database or bucket in this environment: unchanged for production."""
        return name if self.environment == "production" else f"{name}{separator}{self.environment}"

    @field_validator("home", mode="after")
    @classmethod
    def _make_absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("sandbox", mode="after")
    @classmethod
    def _check_sandbox(cls, sandbox: str | None, info: ValidationInfo) -> str | None:
        # An environment that is wrong itself is missing here, and has its own fault.
        in_staging = info.data.get("environment", "staging") == "staging"
        if sandbox is not None and not (in_staging and _SANDBOX.fullmatch(sandbox)):
            raise ValueError
        return sandbox

    @field_validator("warehouse_url", mode="after")
    @classmethod
    def _check_warehouse_url(cls, url: str | None) -> str | None:
        # An @ this late means a password with an unescaped /, ? or #, as above.
        if url is not None:
            parts = urlsplit(url)
            if "@" in f"{parts.path}{parts.query}{parts.fragment}":
                raise ValueError
        return _check_url(url, schemes={"postgresql", "postgres"})

    @field_validator("documents_url", mode="after")
    @classmethod
    def _check_documents_url(cls, url: str | None) -> str | None:
        # An @ this late means a password with an unescaped slash, a part of which would pass for the host.
        if url is not None and "@" in urlsplit(url).path:
            raise ValueError
        return _check_url(url, schemes={"mongodb", "mongodb+srv"})

    @field_validator("queue_url", mode="after")
    @classmethod
    def _check_queue_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        on_socket = parts.scheme == "unix" and parts.path.strip("/")
        # Reading the port checks it. Anything else but a number after it would be taken for database 0.
        on_network = parts.scheme in {"redis", "rediss"} and parts.hostname and (parts.port or 1)
        database = re.fullmatch(r"/?[0-9]*", parts.path)
        # An @ this late means a password with an unescaped /, ? or #, a part of which would pass for the host.
        if not (on_socket or (on_network and database)) or "@" in f"{parts.path}{parts.query}{parts.fragment}":
            raise ValueError
        return url

    @field_validator("objects_url", mode="after")
    @classmethod
    def _check_objects_url(cls, url: str | None) -> str | None:
        return _check_url(url, schemes={"s3"})

    @field_validator("s3_endpoint", "url", mode="after")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        return _check_url(url, schemes={"http", "https"})

    @field_validator("organisms", mode="before")
    @classmethod
    def _split_organisms(cls, organisms: object) -> object:
        if isinstance(organisms, str):
            return [part for part in organisms.split(os.pathsep) if part]
        return organisms

    @field_validator("organisms", mode="after")
    @classmethod
    def _check_organisms(cls, organisms: tuple[Path, ...]) -> tuple[Path, ...]:
        folders = tuple(folder.expanduser().absolute() for folder in organisms)
        if not all(folder.is_dir() for folder in folders):
            raise ValueError
        return folders


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides`, by field name, win over it.

    SettingsError names each variable with a bad value, that value, and what is allowed.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(each['loc'], each.get('input'))}" for each in error.errors())
    # The cause is left out: it quotes values in full, and with them passwords.
    raise SettingsError(f"these settings cannot be used; correct them and start again:\n{faults}")


def _fault(location: tuple[int | str, ...], value: object) -> Fault:
    field = str(location[0])
    variable = _PREFIX + field.upper()
    if field not in Settings.model_fields:
        return Fault(variable, repr(value), f"the settings are {', '.join(Settings.model_fields)}")
    shown = "this value (hidden)" if field in _SECRET else repr(value)
    return Fault(variable, shown, f"allowed is {Settings.model_fields[field].description}")


def _check_url(url: str | None, *, schemes: set[str]) -> str | None:
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.netloc:
            raise ValueError
    return url
