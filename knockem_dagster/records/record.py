"""What all document models share: names, time, revision, deterministic ids, and the repository over one collection."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from knockem_dagster.errors import NotFound, SettingsError
from knockem_dagster.stores.documents import Collection, Document, Documents, Patch, PutNew, Sort, Where

_NAMESPACE = uuid.UUID("6f0d3c1e-8a55-5c57-9d0e-1c4b6a0f7e21")
FEWEST_CHARACTERS = 4
"""By which the beginning of an id may stand for it."""
_STAMP = Path(__file__).parent.parent / "REVISION"


def derived_id(*parts: str | int | bytes) -> str:
    """Return the UUID (version 5, RFC 9562) that these parts determine: the same parts give the same id, for ever."""
    key = b"\x1f".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return str(uuid.UUID(bytes=hashlib.sha1(_NAMESPACE.bytes + key).digest()[:16], version=5))


def new_id() -> str:
    """Return a random UUID (version 4)."""
    return str(uuid.uuid4())


def now() -> str:
    """Return the time, ISO 8601 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat()


@cache
def revision() -> str:
    """Return the short commit of this code: stamped at build time, else the checkout's.

    Raises SettingsError outside testing when neither is there.
    """
    if _STAMP.is_file():
        return _STAMP.read_text().strip()
    commit = _checked_out_commit()
    if commit is not None:
        return commit[:7]
    if os.environ.get("KNOCKEM_ENVIRONMENT") == "testing":
        return "unknown"
    raise SettingsError(
        "The revision of knockem_dagster is unknown, and results without it cannot be published. "
        f"Work in a git checkout with at least one commit, or write the commit to {_STAMP}."
    )


def _checked_out_commit() -> str | None:
    """Return the commit that git has checked out; read from its files where git itself is not installed."""
    if shutil.which("git") is not None:
        command = ["git", "-c", "safe.directory=*", "-C", str(_STAMP.parent), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else None
    folder = _STAMP.parent.parent / ".git"
    try:
        head = (folder / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
        packed = (line.split(" ", 1) for line in (folder / "packed-refs").read_text().splitlines() if " " in line)
        return next((commit for commit, reference in packed if reference == name), None)
    except OSError:
        return None


class Value(BaseModel):
    """A part of a document: snake_case in Python, camelCase where it is stored."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class Record(Value):
    """A document of one collection. `id` is stored as `id` and as `_id`."""

    collection: ClassVar[Collection]

    id: str
    datetime: str = Field(default_factory=now, description="ISO 8601, UTC")
    revision_knockem: str = Field(default_factory=revision, description="short commit of the code that wrote it")

    def to_document(self) -> Document:
        """Return the form that is stored. What is None is left out."""
        document: dict[str, Any] = self.model_dump(by_alias=True, exclude_none=True, mode="json")
        document["_id"] = self.id
        return document

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Read the form that is stored."""
        return cls.model_validate(document)


RecordT = TypeVar("RecordT", bound=Record)


class Repository(Generic[RecordT]):
    """One collection, as records."""

    def __init__(self, documents: Documents, model: type[RecordT]) -> None:
        self.documents = documents
        self.model = model
        self.name = model.collection.name

    def find_one(self, id: str) -> RecordT | None:
        """Return the record with this id, or None."""
        document = self.documents.get(self.name, id)
        return None if document is None else self.model.from_document(document)

    def get(self, id: str) -> RecordT:
        """Return the record with this id. Raises NotFound."""
        record = self.find_one(id)
        if record is None:
            raise NotFound(f"There is no entry {id!r} in {self.name}. `./knockem list` shows all submissions.")
        return record

    def beginning_with(self, prefix: str, *, most: int) -> list[RecordT]:
        """Return records whose ids begin so, at most so many."""
        where = {"_id": {"$gte": prefix, "$lt": prefix + "\uffff"}}
        return [self.model.from_document(found) for found in self.documents.find(self.name, where, limit=most)]

    def starting_with(self, prefix: str, *, what: str, listing: str) -> RecordT:
        """Return the one record whose id starts so, of FEWEST_CHARACTERS at least.

        Raises NotFound for none or several; it says `what` such records are called, and the command for `listing` them.
        """
        exact = self.find_one(prefix)
        if exact is not None:
            return exact
        found = self.beginning_with(prefix, most=2) if len(prefix) >= FEWEST_CHARACTERS else []
        if len(found) == 1:
            return found[0]
        told = f"Several {what}s begin with {prefix!r}; give more." if found else f"There is no {what} {prefix!r}."
        if len(prefix) < FEWEST_CHARACTERS:
            told += f" The beginning of an id needs at least {FEWEST_CHARACTERS} characters."
        raise NotFound(f"{told} `./knockem {listing}` shows all {what}s.")

    def get_many(self, ids: Sequence[str]) -> dict[str, RecordT]:
        """Return those that exist, by id."""
        return {id: self.model.from_document(found) for id, found in self.documents.get_many(self.name, ids).items()}

    def add(self, record: RecordT) -> bool:
        """Store a new record; False if its id is taken, in which case nothing changes."""
        return self.documents.put_new(self.name, record.to_document())

    def add_many(self, records: Iterable[RecordT]) -> list[bool]:
        """Store new records in order; for each, whether it was new."""
        return self.documents.bulk(self.additions(records))

    def additions(self, records: Iterable[RecordT]) -> list[PutNew]:
        """Return the batch operations that store these records."""
        return [PutNew(self.name, record.to_document()) for record in records]

    def patch(self, id: str, patch: Patch) -> RecordT | None:
        """Change one record atomically and return it as it is now; None if there is none."""
        document = self.documents.patch(self.name, id, patch)
        return None if document is None else self.model.from_document(document)

    def find(self, where: Where, *, sort: Sort = (), limit: int | None = None) -> Iterator[RecordT]:
        """Iterate over matching records."""
        found = self.documents.find(self.name, where, sort=sort, limit=limit)
        return (self.model.from_document(document) for document in found)
