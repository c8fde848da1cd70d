"""Documents stores for tests: an address that other processes can open, and the work they do there."""

from __future__ import annotations

import itertools
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

from knockem_dagster.errors import StoreError
from knockem_dagster.stores.documents import Collection, Documents, Index, Operation, Patch, PatchOne, PutNew
from knockem_dagster.stores.mongo_documents import MongoDocuments
from knockem_dagster.stores.sqlite_documents import SqliteDocuments

ROOT = Path(__file__).parents[2]
COLLECTIONS = (
    Collection(
        "things",
        (Index(("group", "rank")), Index(("state", "rank")), Index(("place.shelf",)), Index(("flag",))),
    ),
    Collection("names", (Index(("name",), unique=True), Index(("owner", "number"), unique=True))),
    Collection("plain"),
)


@dataclass(frozen=True)
class DocumentsAddress:
    """Where a documents store is; unlike an opened store it can be sent to another process."""

    path: Path | None = None
    url: str = ""
    database: str = ""
    stand_in: bool = False

    def open(self, collections: tuple[Collection, ...] = COLLECTIONS) -> Documents:
        if self.path is not None:
            return SqliteDocuments(self.path, collections)
        return MongoDocuments(self.url, self.database, collections)


class Processes:
    """A few other processes, which start each piece of work at the same moment."""

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self._manager = context.Manager()
        self._pool = ProcessPoolExecutor(number, mp_context=context)

    def run(self, work: Callable[[DocumentsAddress, int, Barrier], list[str]], address: DocumentsAddress) -> list[str]:
        """Run `work(address, number, start)` once in each process and return all results together."""
        start = self._manager.Barrier(self.number)
        jobs = [self._pool.submit(work, address, number, start) for number in range(self.number)]
        return [each for job in jobs for each in job.result(timeout=120)]

    def close(self) -> None:
        self._pool.shutdown()
        self._manager.shutdown()


def open_new_files(address: DocumentsAddress, number: int, start: Barrier) -> list[str]:
    """Open 20 files that nobody has made yet, each at the same moment as everybody else; return the complaints."""
    assert address.path is not None
    complaints: list[str] = []
    for n in range(20):
        start.wait()
        try:
            DocumentsAddress(path=address.path / str(n)).open().close()
        except StoreError as error:
            complaints.append(str(error))
    return complaints


def claim_all(address: DocumentsAddress, number: int, start: Barrier) -> list[str]:
    """Claim free things until there are none; return their ids."""
    documents = address.open()
    start.wait()
    claimed: list[str] = []
    patch = Patch(set={"state": "taken", "by": number}, increment={"times": 1})
    while (thing := documents.claim("things", {"state": "free"}, patch, sort=[("rank", 1)])) is not None:
        claimed.append(thing["_id"])
    documents.close()
    return claimed


def put_same(address: DocumentsAddress, number: int, start: Barrier) -> list[str]:
    """Put the same ids as everybody else; return those that were new."""
    start.wait()
    documents = address.open()
    new = [f"{n:03}" for n in range(60) if documents.put_new("things", {"_id": f"{n:03}", "by": number})]
    documents.close()
    return new


def put_same_names(address: DocumentsAddress, number: int, start: Barrier) -> list[str]:
    """Put documents of one's own with the same unique values as everybody else; return the values won."""
    documents = address.open()
    start.wait()
    operations = [
        PutNew("names", {"_id": f"{number}-{n}", "name": f"{n:03}", "owner": str(number), "number": n})
        for n in range(60)
    ]
    won = documents.bulk(operations[:30]) + documents.bulk(operations[30:])
    documents.close()
    return [f"{n:03}" for n in range(60) if won[n]]


def increment_together(address: DocumentsAddress, number: int, start: Barrier) -> list[str]:
    """Add 1 to the same field 60 times, half of them in batches."""
    documents = address.open()
    start.wait()
    add = Patch(increment={"total": 1}, add_to_set={"by": number})
    for _ in range(30):
        documents.patch("things", "counter", add)
    for _ in range(3):
        batch: list[Operation] = [PatchOne("things", "counter", add)] * 10
        documents.bulk(batch)
    documents.close()
    return []


def start_writing_batches(address: DocumentsAddress, *, size: int) -> subprocess.Popen[str]:
    """Start a process that puts batch after batch and prints each one's number when it is stored, until killed."""
    script = f"from tests.services.document_stores import *; write_batches({address!r}, {size})"
    script = f"from pathlib import PosixPath; {script}"
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def write_batches(address: DocumentsAddress, size: int) -> None:
    """Put batches for ever; see start_writing_batches."""
    documents = address.open()
    for batch in itertools.count():
        documents.bulk(
            [
                PutNew("things", {"_id": f"{batch}-{n}", "group": batch, "rank": n, "text": "x" * 200})
                for n in range(size)
            ]
        )
        sys.stdout.write(f"{batch}\n")
        sys.stdout.flush()
