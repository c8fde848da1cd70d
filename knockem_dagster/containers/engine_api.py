"""The few calls of the Docker Engine API that the docker runtime needs, over its Unix socket.

Only a local socket will do: genomes and results are mounted from this machine's disk. Calls are
coroutines, so that a cancelled competition frees its container at once instead of when a thread
comes back. What the Docker SDK does well (registries and their credentials) is left to it: see image_pull.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from knockem_dagster.errors import ContainerError

DEFAULT_SOCKETS = ("/var/run/docker.sock", "{XDG_RUNTIME_DIR}/docker.sock")
READ_BYTES = 1 << 18
OUTPUT_STREAMS = "stdout=1&stderr=1"
ALL_STREAMS = f"stdin=1&{OUTPUT_STREAMS}"


class EngineError(ContainerError):
    """The engine refused a call. `status` is the HTTP status, `reason` what it said."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(f"the container engine refused: {reason} (status {status})")


def engine_socket() -> Path:
    """Return the engine's socket: DOCKER_HOST, or the usual places. Raises ContainerError when there is none."""
    address = os.environ.get("DOCKER_HOST", "")
    if address and not address.startswith("unix://"):
        raise ContainerError(
            f"DOCKER_HOST is {address}: containers are given files of this machine, so the engine must run on it. "
            "Set DOCKER_HOST to unix:///path/to/docker.sock, or use --runtime process."
        )
    if address:
        candidates = [Path(address.removeprefix("unix://"))]
    else:
        runtime_folder = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
        candidates = [Path(place.format(XDG_RUNTIME_DIR=runtime_folder)) for place in DEFAULT_SOCKETS]
    for candidate in candidates:
        if candidate.exists() and stat.S_ISSOCK(candidate.stat().st_mode):
            return candidate
    raise ContainerError(
        f"there is no container engine at {' or '.join(map(str, candidates))}: start Docker, set DOCKER_HOST, "
        "or use --runtime process."
    )


def is_listening(path: Path) -> bool:
    """Tell whether somebody who lets us in listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's standard streams: where its output is read, where its input is written, and all connections."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connections: tuple[asyncio.StreamWriter, ...]

    def abort(self) -> None:
        """Let go. Closing would wait until the engine has read all that was written."""
        for connection in self.connections:
            connection.transport.abort()


class Engine:
    """One container engine. `has_local_processes`: its numbers of processes are this machine's for certain."""

    has_local_processes = False

    def __init__(self, path: Path) -> None:
        self._path = path

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make one call and return its JSON answer (None for an empty one). Raises EngineError."""
        content = b"" if body is None else orjson.dumps(body)
        payload = await self._exchange(method, path, query or {}, content)
        return orjson.loads(payload) if payload.strip() else None

    async def past_events(self, kind: str, *, container: str, since: float) -> list[Any]:
        """Return what the engine remembers of one kind of event of a container, since a moment of Unix time."""
        filters = orjson.dumps({"event": [kind], "container": [container]}).decode()
        query = {"since": f"{since:.6f}", "until": f"{time.time():.6f}", "filters": filters}
        payload = await self._exchange("GET", "/events", query, b"")
        return [orjson.loads(line) for line in payload.splitlines() if line]

    async def _exchange(self, method: str, path: str, query: Mapping[str, str], content: bytes) -> bytes:
        """Send a request and return the answer's body. HTTP/1.0 keeps it plain: it ends where the connection does."""
        target = f"{path}?{urlencode(query)}" if query else path
        reader, writer = await self._send(f"{method} {target} HTTP/1.0", {"Connection": "close"}, content)
        try:
            answer = await reader.read()
        finally:
            writer.close()
        head, _, payload = answer.partition(b"\r\n\r\n")
        if not head:
            raise ContainerError("the container engine closed the connection: is it shutting down?")
        status = _status(head)
        if status >= 400:
            raise EngineError(status, _reason(payload))
        return payload

    async def attach(self, container: str) -> Attachment:
        """Connect to a container's standard streams; see frames.py for what the reader gives."""
        return await self._attach(container, ALL_STREAMS)

    async def _attach(self, container: str, streams: str) -> Attachment:
        target = f"/containers/{container}/attach?stream=1&{streams}"
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        reader, writer = await self._send(f"POST {target} HTTP/1.1", upgrade, b"")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if _status(head) not in (101, 200):
                raise EngineError(_status(head), _reason(await reader.readexactly(_length(head))))
        except BaseException:
            writer.close()
            raise
        return Attachment(reader, writer, (writer,))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._path, limit=READ_BYTES)
        except OSError as error:
            raise ContainerError(
                f"the container engine at {self._path} does not answer ({error.strerror}): start it, make sure you "
                "may use it (on Linux: be in the group docker), or use --runtime process."
            ) from error

    async def _send(
        self, request: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self._connect()
        lines = [request, "Host: engine", f"Content-Length: {len(content)}"]
        lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        return reader, writer


def _status(head: bytes) -> int:
    return int(head.split(None, 2)[1])


def _length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def _reason(payload: bytes) -> str:
    try:
        return str(orjson.loads(payload)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return payload.decode("utf-8", "replace").strip() or "no reason given"
