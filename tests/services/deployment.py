"""deploy/compose.yaml as it runs, on this machine's engine, with stand-ins for images that cannot be pulled."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks import workplace
from tests.services.command_line import ROOT, knockem

FOLDER = ROOT / "deploy"
STAND_INS = ROOT / "tests" / "deploy" / "stand_ins"
IMAGE = "knockem/test-deployment"
IMAGES = {
    "KNOCKEM_IMAGE": IMAGE,
    "PYTHON_IMAGE": "knockem/stand-in-python",
    "POSTGRES_IMAGE": "knockem/stand-in-postgres",
    "MONGO_IMAGE": "knockem/stand-in-documents",
    "VALKEY_IMAGE": "knockem/stand-in-queue",
    "OBJECTS_IMAGE": "knockem/stand-in-objects",
    "FRONT_IMAGE": "knockem/stand-in-front",
}
ADDRESS = "someone@example.org"
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
PATIENCE_SECONDS = 300.0
"""What is waited for is mostly programs that start, which takes seconds, or minutes on a busy machine."""

until = partial(workplace.until, seconds=PATIENCE_SECONDS, look_seconds=0.5)


def why_not_here() -> str | None:
    """Return what this machine lacks to run the deployment, or nothing."""
    if os.geteuid() != 0:
        return "only root can build the stand-ins"
    lacking = [name for name in ("docker-compose", "mmdebstrap") if shutil.which(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    debian = subprocess.run(["/usr/bin/python3", "-c", VERSION], capture_output=True, text=True, check=False)
    if debian.stdout.split() != [f"{sys.version_info.major}.{sys.version_info.minor}"]:
        return "Python is not of Debian's version here, so its packages cannot be used in Debian's place"
    answers = subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    return None if answers else "no container engine answers"


def build_stand_ins() -> None:
    """Make the stand-ins; those that are up to date are left alone."""
    [packages] = [path for path in site.getsitepackages() if path.startswith(sys.prefix)]
    subprocess.run([STAND_INS / "build.sh", packages], capture_output=True, text=True, check=True)


@dataclass
class Deployment:
    """A deployment of its own, with its secrets in `folder`."""

    folder: Path
    project: str = field(default_factory=lambda: f"knockem-test-{os.getpid()}")
    workers: int = 3

    @cached_property
    def port(self) -> int:
        """The port that is published."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Where the front is."""
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def login(self) -> tuple[str, str]:
        """Write the secrets, and return user and password as they were told."""
        made = knockem("deploy", "init", self.folder, home=self.folder)
        assert made.returncode == 0, made.stderr
        [user, password] = re.findall(r"^(?:user|password)\s+(\S+)$", made.stdout, re.MULTILINE)
        return user, password

    def compose(self, *arguments: str, files: Sequence[str] = (), check: bool = True) -> str:
        """Run docker-compose, with `files` of deploy/ beside the usual ones; return what it printed."""
        names = [FOLDER / "compose.yaml", *(FOLDER / name for name in files), STAND_INS / "compose.yaml"]
        command = ["docker-compose", "--project-name", self.project, "--env-file", self.folder / ".env"]
        changes = {**IMAGES, "PORT": f"{self.port}", "WORKER_CPUS": "1", "COMPOSE_PROJECT_NAME": self.project}
        ended = subprocess.run(
            [*command, *(f"--file={name}" for name in names), *arguments],
            env=os.environ | changes,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0 or not check, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def up(self, *, files: Sequence[str] = ()) -> None:
        """Start everything, and wait until all are healthy."""
        self.compose("up", "--detach", "--scale", f"worker={self.workers}", files=files)
        until(self.is_healthy, "everything to be healthy")

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the engine tells of the running services' containers, by name: worker_1."""
        label = f"label=com.docker.compose.project={self.project}"
        ids = _docker("ps", "--all", "--quiet", "--filter", label, "--filter", "label=com.docker.compose.oneoff=False")
        found = json.loads(_docker("inspect", *ids.split())) if ids else []
        names = {each["Name"].removeprefix(f"/{self.project}_"): each for each in found}
        return {name: each for name, each in names.items() if not name.startswith("prepare")}

    def is_healthy(self) -> bool:
        """Tell whether every container is healthy."""
        found = self.containers()
        return len(found) > self.workers and all(map(_is_healthy, found.values()))

    def kill(self, *names: str) -> dict[str, float]:
        """Kill the first process of each, as the kernel does that is short of memory; wait until all are healed.

        Returns the seconds that each took, by name.
        """
        before = {name: each["State"] for name, each in self.containers().items() if name in names}
        assert before.keys() == set(names)
        began = time.monotonic()
        for state in before.values():
            os.kill(state["Pid"], signal.SIGKILL)
        seconds: dict[str, float] = {}

        def are_healed() -> bool:
            now = self.containers()
            for name, state in before.items():
                if now[name]["State"]["StartedAt"] != state["StartedAt"] and _is_healthy(now[name]):
                    seconds.setdefault(name, time.monotonic() - began)
            return seconds.keys() == before.keys() and all(map(_is_healthy, now.values()))

        until(are_healed, f"{', '.join(names)} to be healed")
        return seconds

    def token(self) -> str:
        """Make a user who is an administrator, and return a token, as README.md says."""
        self.compose("exec", "-T", "api", "knockem", "user", "add", ADDRESS)
        said = self.compose("exec", "-T", "api", "knockem", "token", "add", ADDRESS, "--scope", "administrator")
        [token] = re.findall(r"^knockem_\S+$", said, re.MULTILINE)
        return token

    def client(self, token: str) -> httpx.Client:
        """Return a client of the API."""
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, transport=httpx.HTTPTransport(retries=3))

    def logs(self) -> str:
        """Return the last words of all."""
        return self.compose("logs", "--no-color", "--tail=15", check=False)


@contextmanager
def running_deployment(folder: Path) -> Iterator[Deployment]:
    """Give a deployment that is up and healthy; nothing of it is left afterwards."""
    build_stand_ins()
    deployment = Deployment(folder)
    assert deployment.login
    try:
        deployment.compose("build", "api")
        try:
            deployment.up()
        except BaseException as error:
            error.add_note(deployment.logs())
            raise
        yield deployment
    finally:
        deployment.compose("down", "--volumes", "--timeout", "5", check=False)
        subprocess.run(["docker", "rmi", IMAGE], capture_output=True, check=False)


@contextmanager
def watched_containers(*, label: str) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Give a function that returns what was told of every container with this label that was made since.

    The engine is listened to meanwhile: of the past it remembers the last 256 events.
    """
    command = ["docker", "events", "--format", "{{json .Actor.Attributes}}", "--filter", f"label={label}"]
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen([*command, "--filter", "type=container", "--filter", "event=create"], stdout=told) as listener,
    ):
        try:
            yield lambda: [json.loads(line) for line in os.pread(told.fileno(), 1 << 24, 0).splitlines()]
        finally:
            listener.terminate()


def image_id(name: str) -> str:
    """Return the id by which containers of an image are made."""
    return _docker("image", "inspect", "--format", "{{.Id}}", name).strip()


def containers_there(*, label: str) -> list[str]:
    """Return the ids of the containers with this label that are there now."""
    return _docker("ps", "--all", "--quiet", "--filter", f"label={label}").split()


def _is_healthy(container: dict[str, Any]) -> bool:
    return container["State"].get("Health", {}).get("Status") == "healthy"


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout
