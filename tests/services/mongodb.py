"""A MongoDB server for tests: the one KNOCKEM_TEST_MONGODB names, else nx-27017, its stand-in, on loopback."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pymongo import MongoClient

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class MongoServer:
    """Where the server is, and whether it is the stand-in, which does not keep all of MongoDB's promises."""

    url: str
    stand_in: bool

    def drop(self, database: str) -> None:
        client: MongoClient[dict[str, object]] = MongoClient(self.url)
        try:
            for name in client[database].list_collection_names():
                client[database].drop_collection(name)
        finally:
            client.close()


@contextmanager
def mongodb_server(folder: Path) -> Iterator[MongoServer]:
    """Give a server that answers; the stand-in keeps its files in `folder` and ends with this block or process."""
    named = os.environ.get("KNOCKEM_TEST_MONGODB")
    if named:
        yield MongoServer(named, stand_in=False)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("nx-27017"),
                *("--db", folder / "mongo.db", "--port", str(port), "--host", "127.0.0.1"),
                *("--log-file", folder / "log", "--pid-file", folder / "pid"),
            ],
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    try:
        url = f"mongodb://127.0.0.1:{port}/"
        client: MongoClient[dict[str, object]] = MongoClient(url, serverSelectionTimeoutMS=30_000)
        try:
            client.admin.command("ping")
        finally:
            client.close()
        yield MongoServer(url, stand_in=True)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
