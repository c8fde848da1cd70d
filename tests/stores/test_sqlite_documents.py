"""What only the embedded documents store promises: about its file, its disk, and forks."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.errors import StoreError
from knockem_dagster.stores.documents import Collection, Documents, Index, Patch, PutNew
from knockem_dagster.stores.sqlite_documents import SqliteDocuments
from tests.services.document_stores import COLLECTIONS, DocumentsAddress, Processes, open_new_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "documents.sqlite"


@pytest.fixture
def documents(path: Path) -> Iterator[SqliteDocuments]:
    opened = SqliteDocuments(path, COLLECTIONS)
    yield opened
    opened.close()


def batch(first: int, end: int, size: int = 400) -> list[PutNew]:
    return [
        PutNew("things", {"_id": f"{n:06}", "group": "g", "rank": n, "text": "x" * size}) for n in range(first, end)
    ]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_file_and_folder_are_the_owners_alone(documents: SqliteDocuments, path: Path) -> None:
    documents.put_new("things", {"_id": "1"})
    assert mode(path.parent) == 0o700
    assert {file.name: mode(file) for file in path.parent.iterdir()} == dict.fromkeys(
        ["documents.sqlite", "documents.sqlite-wal", "documents.sqlite-shm"], 0o600
    )


@pytest.mark.parametrize(
    ("where", "order", "index"),
    [
        ({"group": "g", "rank": {"$gt": 1}}, "", "things.by.group.rank"),
        ({"group": {"$in": ["g", "h"]}}, "", "things.by.group.rank"),
        ({"place.shelf": "s"}, "", "things.by.place.shelf"),
        ({"_id": {"$in": ["1", "2"]}}, "", "sqlite_autoindex_things_1"),
        ({"state": "s"}, "rank", "things.by.state.rank"),
    ],
)
def test_declared_queries_use_their_index_and_sort_nothing(
    documents: SqliteDocuments, where: Mapping[str, Any], order: str, index: str
) -> None:
    statements: list[str] = []
    with documents._connections.reading() as connection:
        connection.set_trace_callback(statements.append)
    list(documents.find("things", where, sort=[(order, 1)] if order else ()))
    connection.set_trace_callback(None)
    plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[-1]}"))
    assert f"USING INDEX {index} " in plan
    assert "TEMP B-TREE" not in plan


def test_collections_and_indexes_may_be_added_to_a_file(documents: SqliteDocuments, path: Path) -> None:
    documents.put_new("plain", {"_id": "1", "colour": "red"})
    more = SqliteDocuments(path, [Collection("plain", (Index(("colour",)),)), Collection("new")])
    assert [found["_id"] for found in more.find("plain", {"colour": "red"})] == ["1"]
    assert more.put_new("new", {"_id": "1"})
    more.close()


def test_processes_may_open_a_new_file_together(tmp_path: Path, processes: Processes) -> None:
    assert processes.run(open_new_files, DocumentsAddress(path=tmp_path)) == []


def test_what_is_deleted_is_gone_from_the_file(documents: SqliteDocuments, path: Path) -> None:
    documents.bulk(batch(0, 3))
    documents.put_new("things", {"_id": "1", "text": "unforgettable"})
    assert documents.delete("things", {"_id": "1"}) == 1
    documents.close()
    assert b"unforgettable" not in path.read_bytes()
    assert b"xxxxxxxx" in path.read_bytes()


def test_deleting_much_deletes_all(documents: SqliteDocuments) -> None:
    documents.bulk([*batch(0, 2500), PutNew("things", {"_id": "other", "group": "h"})])
    assert documents.delete("things", {"group": "g"}) == 2500
    assert [found["_id"] for found in documents.find("things", {})] == ["other"]


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_writes_fail_whole(documents: Documents, complaint: str) -> None:
    stored = documents.count("things", {})
    with pytest.raises(StoreError, match=complaint) as refused:
        documents.bulk(batch(stored, 20_000))
    assert "nothing of this change was stored" in str(refused.value)
    assert documents.count("things", {}) == stored


def test_a_file_that_may_not_grow_keeps_what_it_has(documents: SqliteDocuments, path: Path) -> None:
    documents.bulk(batch(0, 500))
    with files_no_larger_than(2_000_000):
        assert_writes_fail_whole(documents, "check its space, quota")
    documents.bulk(batch(500, 1000))
    assert documents.count("things", {}) == 1000
    documents.close()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounting.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_keeps_what_it_has(small_disk: Path) -> None:
    path = small_disk / "documents.sqlite"
    documents = SqliteDocuments(path, COLLECTIONS)
    documents.bulk(batch(0, 500))
    assert_writes_fail_whole(documents, "the disk is full")
    assert documents.put_new("things", {"_id": "small"})
    documents.close()
    again = SqliteDocuments(path, COLLECTIONS)
    assert again.count("things", {}) == 501
    again.close()


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"my diary, " * 1000)
    with pytest.raises(StoreError, match="not an SQLite database: move the file away"):
        SqliteDocuments(path, COLLECTIONS)
    assert path.read_bytes() == b"my diary, " * 1000


def test_a_damaged_file_is_reported(documents: SqliteDocuments, path: Path) -> None:
    documents.bulk(batch(0, 3000))
    documents.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    damaged = SqliteDocuments(path, COLLECTIONS)
    with pytest.raises(StoreError, match="damaged: restore it from a backup"):
        list(damaged.find("things", {}))
    damaged.close()


def test_a_folder_that_cannot_be_made_is_reported() -> None:
    with pytest.raises(StoreError, match="KNOCKEM_HOME"):
        SqliteDocuments(Path("/proc/nothing/documents.sqlite"), COLLECTIONS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_is_not_writable_is_reported(documents: SqliteDocuments, path: Path) -> None:
    documents.close()
    path.chmod(0o400)
    with pytest.raises(StoreError, match="KNOCKEM_HOME"):
        SqliteDocuments(path, COLLECTIONS)


def test_a_file_that_was_removed_is_not_begun_anew(documents: SqliteDocuments, path: Path) -> None:
    other = SqliteDocuments(path, COLLECTIONS)
    documents.close()
    other.close()
    path.unlink()
    with pytest.raises(StoreError, match="closed; open it again"):
        other.count("things", {})
    assert not path.exists()


def exit_code_in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        succeeded = False
        try:
            succeeded = work()
        finally:
            os._exit(0 if succeeded else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def locks(path: Path) -> list[str]:
    """The kernel's locks that this process holds on a file."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    inode = str(path.stat().st_ino)
    return [line[3] for line in lines if line[4] == str(os.getpid()) and line[5].endswith(f":{inode}")]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="tells locks of files on Linux only")
def test_opening_the_file_once_more_keeps_the_locks_of_those_who_have_it_open(
    documents: SqliteDocuments, path: Path
) -> None:
    documents.put_new("things", {"_id": "before"})
    other = SqliteDocuments(path, COLLECTIONS)
    assert locks(path)
    for id in ("first", "second"):  # where the locks are gone, the first to leave takes the others' log along
        put_and_leave(path, id)
        assert documents.patch("things", id, Patch(set={"seen": True})) is not None
    assert other.count("things", {}) == 3
    other.close()


def put_and_leave(path: Path, id: str) -> None:
    """Put a document in a process of its own, which closes the file again."""
    script = (
        "import pathlib, sys\n"
        "from knockem_dagster.stores.sqlite_documents import SqliteDocuments\n"
        "from tests.services.document_stores import COLLECTIONS\n"
        "documents = SqliteDocuments(pathlib.Path(sys.argv[1]), COLLECTIONS)\n"
        "documents.put_new('things', {'_id': sys.argv[2]})\n"
        "documents.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path), id], cwd=ROOT, check=True)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="tells locks of files on Linux only")
def test_a_forked_child_has_connections_and_locks_of_its_own(documents: SqliteDocuments, path: Path) -> None:
    documents.put_new("things", {"_id": "parent"})
    assert locks(path)

    def work() -> bool:
        return documents.put_new("things", {"_id": "child"}) and bool(locks(path))

    assert exit_code_in_child(work) == 0
    assert documents.patch("things", "child", Patch(set={"seen": True})) == {"_id": "child", "seen": True}
    assert documents.count("things", {}) == 2


def test_a_child_forked_while_reading_refuses_to_work(documents: SqliteDocuments) -> None:
    documents.bulk(batch(0, 1000))
    reading = documents.find("things", {})
    next(reading)

    def work() -> bool:
        with pytest.raises(StoreError, match="start processes with 'spawn'"):
            documents.count("things", {})
        return True

    assert exit_code_in_child(work) == 0
    assert sum(1 for _ in reading) == 999
    assert documents.put_new("things", {"_id": "after"})
