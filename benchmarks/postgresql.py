"""A PostgreSQL server on a scratch folder, and archives of job logs copied into it as they are: the peer of the ingest.

The server is this machine's, with the durability it comes with, and listens on a socket in its folder only. It refuses
to run as root, and is then another's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from isal import igzip
from psycopg2 import extensions

_USER = "knockem"
_SYSTEM_USER = "postgres"
_DISTRIBUTION = Path("/usr/lib/postgresql")
_READ_BYTES = 1 << 20
# Whatever the exporter writes is accepted: zero as 0E-7, and any number of digits.
_TABLES = {
    "jobs": "id bigint, tool_id text, tool_version text, state text, create_time text",
    "metric_num": "job_id bigint, plugin text, name text, value numeric",
    "datasets": "job_id bigint, dataset_id bigint, extension text, file_size bigint, param_name text, type text",
}


def server_programs() -> Path | None:
    """Return the folder of a server's programs, the newest there is; None where there is none."""
    found = shutil.which("initdb")
    installed = sorted(_DISTRIBUTION.glob("*/bin/initdb"), key=lambda each: int(each.parts[-3]))
    return Path(found).parent if found else installed[-1].parent if installed else None


@contextmanager
def running_server(programs: Path) -> Iterator[Path]:
    """Give the folder of the socket of a server that is there as long as this."""
    user = _SYSTEM_USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="knockem-postgresql-") as scratch:
        folder = Path(scratch)
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = folder / "data"

        def run(program: str, *arguments: str) -> None:
            command = [programs / program, "-D", data, *arguments]
            subprocess.run(command, user=user, cwd="/", stdout=subprocess.DEVNULL, check=True)

        run("initdb", "--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        run("pg_ctl", "start", "--wait", "--log", str(folder / "log"), "-o", options)
        try:
            yield folder
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=fast")


def address(socket: Path) -> str:
    """Return the address of a server, as psycopg2 takes it."""
    return f"host={socket} user={_USER} dbname=postgres"


def connect(socket: Path) -> extensions.connection:
    """Return a connection to a server."""
    return psycopg2.connect(address(socket))


def make_tables(socket: Path) -> None:
    """Make the tables anew, empty, without indices; what the server put off is done now."""
    with closing(connect(socket)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name, columns in _TABLES.items():
                cursor.execute(f"DROP TABLE IF EXISTS {name}")
                cursor.execute(f"CREATE TABLE {name} ({columns})")
            cursor.execute("CHECKPOINT")


def copy_archive(connection: extensions.connection, archive: Path) -> int:
    """Send the members of an archive as they are, in one transaction; return the number of rows."""
    rows = 0
    with (
        connection,
        connection.cursor() as cursor,
        igzip.open(archive, "rb") as packed,
        tarfile.open(fileobj=packed, mode="r|", bufsize=_READ_BYTES) as unpacked,
    ):
        for header in unpacked:
            table = header.name.split(".")[-2]
            content = unpacked.extractfile(header)
            assert content is not None
            cursor.copy_expert(f"COPY {table} FROM STDIN (HEADER)", content, _READ_BYTES)
            rows += cursor.rowcount
    return rows
