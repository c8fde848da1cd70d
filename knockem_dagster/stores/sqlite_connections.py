"""Connections to one SQLite file: a pool for threads, transactions, safety across fork, and errors in plain words.

Carrying SQLite connections across fork() loses their locks and can corrupt the file (sqlite.org, "How To Corrupt
An SQLite Database File", 2.6), and a connection freshly opened in the child is no better: SQLite keeps its locks
per process and believes the inherited ones. So idle connections are closed before every fork and opened again
when needed, and a child forked while one was in use refuses to work. For the same reason (2.2 there) a file that is
there is opened by SQLite alone: to close it otherwise would end the locks of all connections of this process, and the
next process to leave would remove the log that they still write to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from knockem_dagster.errors import StoreError

BUSY_SECONDS = 30.0
"""How long a writer waits for others: batches hold the lock for milliseconds, so this long means a stuck process."""

_MOMENT_MILLISECONDS = 2000

_PRAGMAS = (
    "PRAGMA synchronous = NORMAL",  # a killed process loses nothing; a power cut loses the last commits, no more
    "PRAGMA secure_delete = ON",  # what is purged is gone from the file, too
    "PRAGMA cache_size = -16384",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA temp_store = MEMORY",
)

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space and repeat",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written: check its space, quota and health, then repeat",
    sqlite3.SQLITE_READONLY: "it is not writable: check owner and permissions of the file and its folder",
    sqlite3.SQLITE_PERM: "it is not accessible: check owner and permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that the folder exists, is yours, and its disk has space",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database: move the file away, or choose another KNOCKEM_HOME",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it from a backup, or move it away to begin anew",
    sqlite3.SQLITE_BUSY: f"another process kept it locked for {BUSY_SECONDS:.0f} s: end that process and repeat",
    sqlite3.SQLITE_CONSTRAINT: "another document already has this value in a unique index: choose another",
    sqlite3.SQLITE_LOCKED: "another connection of this process keeps it locked: finish reading, then repeat",
}

_pools: WeakSet[SqliteConnections] = WeakSet()
_inherited: list[sqlite3.Connection] = []


class SqliteConnections:
    """A pool of connections to one SQLite file in WAL mode; any thread may use it, as may other processes."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        """Open the file, made 0600 in a folder made 0700 if missing, and apply idempotent schema statements."""
        self.path = path.absolute()
        self._idle: deque[sqlite3.Connection] = deque()
        self._open: set[sqlite3.Connection] = set()
        # SQLite's own wait for a lock is a poll of up to 100 ms; threads of one process can do better.
        self._write_lock = threading.Lock()
        self._unusable = ""
        self._create(schema)
        _pools.add(self)

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lend a connection; each SELECT sees one consistent state of the file."""
        try:
            connection = self._borrow()
            try:
                yield connection
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Lend a connection inside a write transaction: committed at the end, undone on any exception."""
        with self._write_lock, self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Some failures, a full disk among them, make SQLite roll back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def empty_log(self) -> bool:
        """Bring what was written into the file and empty the log, which may hold what was deleted.

        False where others read, or write, for longer than a moment.
        """
        with self.reading() as connection:
            connection.execute(f"PRAGMA busy_timeout = {_MOMENT_MILLISECONDS}")
            try:
                is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                return not is_busy
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def close(self) -> None:
        """Close idle connections now and lent ones when they come back."""
        self._unusable = self._unusable or "it was closed; open it again"
        self._close_idle()

    def _create(self, schema: Sequence[str]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            folder = os.open(self.path.parent, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"cannot open the documents in {self.path}: {error.strerror}; make its folder writable, "
                             "or choose another with KNOCKEM_HOME") from error  # fmt: skip
        try:
            # Changing to WAL does not wait for other processes, so only one at a time may try.
            fcntl.flock(folder, fcntl.LOCK_EX)
            with self.reading() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                for statement in schema:
                    connection.execute(statement)
        except StoreError:
            self._close_idle()
            raise
        finally:
            os.close(folder)

    def _borrow(self) -> sqlite3.Connection:
        if self._unusable:
            raise StoreError(f"the documents in {self.path} cannot be used: {self._unusable}")
        with suppress(IndexError):
            return self._idle.pop()
        # mode=rw: a file that was removed meanwhile is an error, not a new empty store.
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        except sqlite3.Error:
            connection.close()
            raise
        self._open.add(connection)
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if connection not in self._open:
            return  # inherited across a fork
        self._idle.append(connection)
        if self._unusable:
            self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                connection.close()
                self._open.discard(connection)

    def before_fork(self) -> None:
        """Close what is idle, so that the child inherits nothing."""
        self._close_idle()

    def after_fork_in_child(self) -> None:
        """Begin with a free lock; refuse to work if a connection was inherited after all."""
        self._write_lock = threading.Lock()
        if self._open:
            _inherited.extend(self._open)  # never closed here: that could delete files the parent still uses
            self._open.clear()
            self._idle.clear()
            self._unusable = "this process was forked while its parent used them; start processes with 'spawn'"

    def _explained(self, error: sqlite3.Error) -> StoreError:
        code: int | None = getattr(error, "sqlite_errorcode", None)
        advice = _ADVICE.get(code & 0xFF, "") if code is not None else ""
        return StoreError(f"the documents in {self.path} cannot be used: {advice or 'see the cause'} "
                          f"({error}); nothing of this change was stored")  # fmt: skip


def _before_fork() -> None:
    for pool in list(_pools):
        pool.before_fork()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
