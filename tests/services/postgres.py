"""A PostgreSQL server for tests, on loopback, with a database and a password of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

_PASSWORD = "it's /secret"
_PR_SET_PDEATHSIG = 1


@contextmanager
def postgres_server() -> Iterator[str]:
    """Give the address of a server that ends with this block or process. Skips the test where there is none."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = programs[-1] if programs else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root, and its user sees no folder of pytest's.
    whose: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="knockem-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(_PASSWORD)
        if whose:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        made = [found, "--no-sync", "--username=knockem", f"--pwfile={folder / 'password'}", "--encoding=UTF8"]
        subprocess.run(
            [*made, "--locale=C", "--auth=scram-sha-256", f"--pgdata={folder / 'data'}"],
            cwd=folder, check=True, capture_output=True, **whose,
        )  # fmt: skip
        options = ["-k", name, "-h", "127.0.0.1", "-p", port, "-c", "fsync=off"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [Path(found).with_name("postgres"), "-D", folder / "data", *options],
                cwd=folder,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
                **whose,
            )
        try:
            url = f"postgresql://knockem:it's%20%2Fsecret@127.0.0.1:{port}/postgres"
            _wait_for(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)


def asked(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall() if cursor.description else []


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        try:
            asked(url, "SELECT 1")
        except psycopg2.OperationalError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            return


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
