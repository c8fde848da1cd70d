"""Podman on this machine: what it may do for us, and the service that speaks the engine's language for it.

Podman has no engine that runs all the time. Its service is started by the first call, as a child of this
process, on a socket in a private folder, and ends when this process does, SIGKILL included (warden.py).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from knockem_dagster.containers import marked_processes
from knockem_dagster.containers.engine_api import (
    ALL_STREAMS,
    OUTPUT_STREAMS,
    READ_BYTES,
    Attachment,
    Engine,
    EngineError,
    is_listening,
)
from knockem_dagster.containers.owners import current_owner, make_private_folder
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.errors import ContainerError

MOST_START_SECONDS = 30.0
KEPT_SECONDS = 60.0
"""How long it is kept that podman does not work."""
LOOK_SECONDS = 0.01
NOBODY_ID = 65534
ENDED_MEANWHILE = "no such process"
"""What podman says, for an error, when a container ends between its opening and its reading of a file in /proc."""

_lock = threading.Lock()
_services: dict[int, _Service] = {}
_refusal: list[_Refusal] = []
"""The latest, if there was one."""


@dataclass(frozen=True, slots=True)
class PodmanFacts:
    """What podman may do for this user.

    `controllers`: what its cgroups can limit ("memory", "pids", "cpu"), nothing where they were not delegated to a
    user who is not root. `maps_users`: whether a container may have users other than its root, which for a user who
    is not root is himself: that takes subordinate ids in /etc/subuid and /etc/subgid.
    """

    controllers: frozenset[str]
    maps_users: bool


@dataclass(frozen=True, slots=True)
class _Refusal:
    why: str
    until: float


def podman_facts() -> PodmanFacts:
    """Return what podman said, once (0.1 s). Raises ContainerError where there is none, or it does not work.

    One that did not work is asked again after KEPT_SECONDS: it may have been installed.
    """
    if _refusal and time.monotonic() < _refusal[-1].until:
        raise ContainerError(_refusal[-1].why)
    try:
        return _told_by_podman()
    except ContainerError as error:
        _refusal[:] = [_Refusal(str(error), time.monotonic() + KEPT_SECONDS)]
        raise


@functools.cache
def _told_by_podman() -> PodmanFacts:
    if shutil.which("podman") is None:
        raise ContainerError("`podman` is not on PATH: install podman (and uidmap), or use --runtime process.")
    try:
        asked = subprocess.run(
            ["podman", "info", "--format", "json"], capture_output=True, check=False, timeout=MOST_START_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ContainerError(
            f"podman does not work here: `podman info` did not end within {MOST_START_SECONDS:g} s"
        ) from None
    if asked.returncode != 0:
        said = asked.stderr.decode("utf-8", "replace").strip()[-500:]
        raise ContainerError(f"podman does not work here; `podman info` said: {said}")
    host: dict[str, Any] = orjson.loads(asked.stdout)["host"]
    ranges = [host["idMappings"].get(name) or [] for name in ("uidmap", "gidmap")]
    is_root = not host["security"]["rootless"]
    maps_users = is_root or all(sum(part["size"] for part in mapped) > NOBODY_ID for mapped in ranges)
    return PodmanFacts(frozenset(host["cgroupControllers"]), maps_users)


def has_podman() -> bool:
    """Tell whether podman works on this machine for this user."""
    try:
        podman_facts()
    except ContainerError:
        return False
    return True


class PodmanEngine(Engine):
    """The engine's calls, answered by podman's service."""

    has_local_processes = True

    def __init__(self) -> None:
        super().__init__(Path("podman"))
        self._unread: set[asyncio.Task[None]] = set()

    async def past_events(self, kind: str, *, container: str, since: float) -> list[Any]:
        """Nothing is remembered: podman tells memory kills of children too in a container's state."""
        return []

    async def attach(self, container: str) -> Attachment:
        """Connect to a container's output and, apart, to its input.

        Podman closes the connection of the input, and drops output that is still on its way there, when a container
        ends without having read all. What the second connection gives is read away, or podman would wait.
        """
        output = await self._attach(container, OUTPUT_STREAMS)
        try:
            given = await self._attach(container, ALL_STREAMS)
        except BaseException:
            output.abort()
            raise
        unread = asyncio.create_task(_read_away(given.reader))
        self._unread.add(unread)
        unread.add_done_callback(self._unread.discard)
        return Attachment(output.reader, given.writer, (output.writer, given.writer))

    async def _exchange(self, method: str, path: str, query: Mapping[str, str], content: bytes) -> bytes:
        try:
            return await super()._exchange(method, path, query, content)
        except EngineError as error:
            if "container state improper" in error.reason:  # podman says 500 where the engine says 409
                raise EngineError(409, error.reason) from error
            if method != "GET" or ENDED_MEANWHILE not in error.reason:
                raise
        return await super()._exchange(method, path, query, content)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(_running_service().socket, limit=READ_BYTES)
        except OSError:
            service = await asyncio.to_thread(_start_service)
            return await asyncio.open_unix_connection(service.socket, limit=READ_BYTES)


async def _read_away(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(READ_BYTES):
            pass


@dataclass(frozen=True, slots=True)
class _Service:
    process: subprocess.Popen[bytes]
    socket: Path


def _running_service() -> _Service:
    service = _services.get(os.getpid())
    if service is None or service.process.poll() is not None:
        raise FileNotFoundError
    return service


def _start_service() -> _Service:
    """Return this process's service, started if need be. Raises ContainerError when it does not start."""
    podman_facts()  # also starts the process that keeps podman's namespaces: it outlives us and must carry no mark
    ensure_warden()
    with _lock:
        try:
            return _running_service()
        except FileNotFoundError:
            pass
        folder = make_private_folder()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        socket = folder / "podman.sock"
        mark = marked_processes.mark_of(str(current_owner()), 0, "")
        process = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{socket}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, marked_processes.MARK: mark},
            start_new_session=True,
        )
        deadline = time.monotonic() + MOST_START_SECONDS
        while not is_listening(socket):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise ContainerError(f"`podman system service unix://{socket}` does not start: try it by hand.")
            time.sleep(LOOK_SECONDS)
        _services[os.getpid()] = _Service(process, socket)
        return _services[os.getpid()]
