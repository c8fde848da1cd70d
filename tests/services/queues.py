"""Queue servers for tests: the embedded one, in a folder of its own, which can be killed, started again and emptied."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from knockem_dagster.containers.marked_processes import MARK, mark_of
from knockem_dagster.containers.owners import current_owner
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.settings import Settings, load_settings
from knockem_dagster.stores.queue_connection import embedded_queue_answers, open_queue
from knockem_dagster.stores.queue_server import queue_folder, server_command

PATIENCE_SECONDS = 30.0


class QueueServer:
    """An embedded server below `home`, with other settings as named; it dies with this process at the latest."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = load_settings(home=home, queue_url=None, **settings)
        self.log = self.settings.folder / "queue.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []

    @property
    def folder(self) -> Path:
        return queue_folder(self.settings)

    def start(self) -> None:
        """Start it, on what its files hold, and wait until it answers."""
        command = server_command(self.settings)
        self.process = start_marked(command, self.log)
        wait_until_it_answers(self.settings, self.process, self.log)

    def kill(self) -> None:
        """End it with SIGKILL; what it wrote stays."""
        assert self.process is not None, "it does not run"
        self.process.kill()
        self.process.wait()
        self.process = None

    def forget(self) -> None:
        """Remove its files. It must not run."""
        assert self.process is None, "it runs"
        shutil.rmtree(self.folder)

    def client(self) -> redis.Redis:
        """Return a new client, which is closed at the end."""
        client = open_queue(self.settings)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients and end it."""
        for client in self._clients:
            client.close()
        if self.process is not None:
            self.kill()


@contextmanager
def running_queue(home: Path, **settings: Any) -> Iterator[QueueServer]:
    """Give a server that answers, below `home`, which is made when missing; other settings as named."""
    server = QueueServer(home, **settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def served_queue(folder: Path, *options: str) -> Iterator[str]:
    """Give HOST:PORT of a server like the embedded one, but on loopback, and with other options."""
    settings = load_settings(home=folder, queue_url=None)
    port = _free_port()
    command = [*server_command(settings), "--bind", "127.0.0.1", "--port", str(port), *options]
    log = settings.folder / "queue.log"
    log.unlink(missing_ok=True)
    process = start_marked(command, log)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"Ready to accept connections tcp" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "waited in vain for the queue server"
            time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    """Return a free port; a cluster's servers need the one 10,000 above it too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 65536 - 10_000:
            return port


def start_marked(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command that is killed when this process dies."""
    ensure_warden()
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**os.environ, MARK: mark_of(str(current_owner()), 0, "")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until_it_answers(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for an embedded server that was just started."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not embedded_queue_answers(settings):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "waited in vain for the queue server"
        time.sleep(0.01)
