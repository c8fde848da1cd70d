"""`deploy init|revise|login|prepare`: the secrets of a served deployment, and what its stores need first.

The deployment itself is deploy/compose.yaml, and docker compose runs it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shlex
from pathlib import Path
from typing import Annotated

import typer

from knockem_dagster.accounts.tokens import admit_worker, new_token
from knockem_dagster.cli.terminal import AsJson, answer_json, aside, open_platform
from knockem_dagster.containers.engine_api import DEFAULT_SOCKETS, engine_socket
from knockem_dagster.errors import ContainerError, KnockemError, SettingsError
from knockem_dagster.records.record import revision
from knockem_dagster.settings import load_settings
from knockem_dagster.stores.objects import make_bucket

app = typer.Typer(no_args_is_help=True, help="The served deployment: deploy/compose.yaml.")
FOLDER = Path(__file__).parents[2] / "deploy"
SECRETS = ("POSTGRES_PASSWORD", "DOCUMENTS_PASSWORD", "QUEUE_PASSWORD", "OBJECTS_PASSWORD")
USER = "knockem"
COMMANDS = "commands@localhost"
"""The user whose token the service of that name has."""
Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where .env is.  [default: deploy/ of the checkout]")]


@app.command("init")
def init(
    folder: Folder = FOLDER,
    again: Annotated[
        bool,
        typer.Option("--again", help="Make new secrets where there are some. Stores that exist keep the old ones."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the secrets of a deployment to FOLDER/.env, and tell the login, once."""
    path = folder / ".env"
    if path.exists() and not again:
        raise KnockemError(
            f"{path} is there already and is kept: the stores were made with its secrets. `./knockem deploy revise` "
            "notes a new commit in it; `./knockem deploy init --again` makes new secrets and a new login, for stores "
            "that are to be made anew."
        )
    password = secrets.token_urlsafe(18)
    _write(path, _environment(password))
    aside().print(f"The secrets are in {path}, which only you may read.", markup=False, soft_wrap=True)
    _tell_login(password, as_json=as_json)
    _advise("Start it with", folder, "--build")


@app.command("revise")
def revise(folder: Folder = FOLDER) -> None:
    """Note in FOLDER/.env the commit that is checked out now: images are built from it, and records name it.

    A token for the worker of commands is added where an earlier `init` has made none.
    """
    path = folder / ".env"
    _change(path, "REVISION", revision())
    _change(path, "COMMANDS_TOKEN", new_token(), only_add=True)
    _advise(f"Images are built from {revision()} now", folder, "--build")


@app.command("login")
def login(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Make a new password for the login, note it in FOLDER/.env, and tell it, once."""
    password = secrets.token_urlsafe(18)
    _change(folder / ".env", "LOGIN", f"{USER}:{_hashed(password)}")
    _tell_login(password, as_json=as_json)
    _advise("It is asked for after", folder)


@app.command("prepare")
def prepare() -> None:
    """Make the bucket of KNOCKEM_OBJECTS_URL, Dagster's tables, and the worker's token KNOCKEM_TOKEN, where missing."""
    from knockem_dagster import definitions  # here, because importing Dagster takes more than a second

    settings = load_settings()
    if settings.objects_url is None:
        raise SettingsError("There is no bucket to make: name one in KNOCKEM_OBJECTS_URL, s3://bucket/prefix.")
    bucket = settings.objects_url.removeprefix("s3://").partition("/")[0]
    make_bucket(settings.name_in_environment(bucket, "-"), endpoint=settings.s3_endpoint)
    with definitions.dagster_instance(settings) as instance:
        instance.get_runs_count()
    if settings.token is not None:
        with open_platform() as platform:
            admit_worker(platform.records, COMMANDS, settings.token, label="the service commands")
    aside().print("What the deployment needs is there.")


def _advise(what: str, folder: Path, *options: str) -> None:
    """Say how the deployment is brought up whose .env is in a folder, be compose.yaml there or not."""
    files = ["-f", str(folder / "compose.yaml")]
    if not (folder / "compose.yaml").exists():
        files = ["-f", str(FOLDER / "compose.yaml"), "--env-file", str(folder / ".env")]
    command = shlex.join(["docker", "compose", *files, "up", *options, "--detach"])
    aside().print(f"{what}: {command}", markup=False, soft_wrap=True)


def _environment(password: str) -> str:
    """Return the content of .env: all that compose.yaml must be told, and what it may be."""
    socket, group = _engine()
    lines = [
        "# Written by `./knockem deploy init` for compose.yaml: keep it secret, and keep it as long as the volumes.",
        "COMPOSE_PROJECT_NAME=knockem",
        f"REVISION={revision()}",
        *(f"{name}={secrets.token_hex(24)}" for name in SECRETS),
        f"COMMANDS_TOKEN={new_token()}",
        f"LOGIN={USER}:{_hashed(password)}",
        "# The engine whose containers workers use, and the group that its socket belongs to.",
        f"DOCKER_SOCKET={socket}",
        f"DOCKER_GROUP={group}",
        "# Where the one port is; whatever is not on this machine should come through TLS.",
        "ADDRESS=127.0.0.1",
        "PORT=3000",
        "# What each worker offers.",
        f"WORKER_CPUS={os.cpu_count() or 1}",
        "WORKER_MEMORY_MIB=4096",
    ]
    return "\n".join([*lines, ""])


def _tell_login(password: str, *, as_json: bool) -> None:
    aside().print(
        "Whoever opens the pages or the Dagster UI logs in as follows; the password is told only now:", markup=False
    )
    if as_json:
        answer_json({"user": USER, "password": password})
    else:
        typer.echo(f"user      {USER}\npassword  {password}")


def _hashed(password: str) -> str:
    """Return a password as nginx checks it: salted SHA-1 (RFC 2307), which is enough for one that is random."""
    salt = secrets.token_bytes(16)
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()


def _engine() -> tuple[Path, int]:
    """Return the socket of the container engine and its group; the usual ones where there is no engine yet."""
    try:
        socket = engine_socket().resolve()
    except ContainerError as error:
        aside().print(
            f"[yellow]No container engine is here yet[/]: correct DOCKER_SOCKET and DOCKER_GROUP later. {error}"
        )
        return Path(DEFAULT_SOCKETS[0]), 0
    return socket, socket.stat().st_gid


def _change(path: Path, name: str, value: str, *, only_add: bool = False) -> None:
    """Set one variable of a file, or `only_add` it where it is not set. Raises KnockemError where there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KnockemError(f"{path} cannot be read ({error.strerror}): `./knockem deploy init` makes it.") from error
    changed, number = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
    if not number:
        text = text.rstrip("\n")
        _write(path, f"{text}\n{name}={value}\n")
    elif not only_add:
        _write(path, changed)


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        partial.touch(mode=0o600, exist_ok=False)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise KnockemError(f"{path} cannot be written: {error.strerror}.") from error
