"""The documents store: one small interface, implemented on SQLite (embedded) and MongoDB (served).

A document is a JSON object with a string `_id`. Queries go by `_id` or by a declared index; single
documents change atomically, batches are applied in order (SQLite: in one transaction; MongoDB: one
ordered bulk_write, so a crash may leave a prefix). What belongs here: the interface and the
declaration of collections. What does not: models of single collections (see records/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Document: TypeAlias = dict[str, Any]
Where: TypeAlias = Mapping[str, Any]
"""Equality on declared fields; a value may be {"$lt"|"$lte"|"$gt"|"$gte"|"$in": ...} for ranges and sets.

None means null or missing. Within one field values are of one type (or null), so that every store orders them alike.
"""
Sort: TypeAlias = Sequence[tuple[str, Literal[1, -1]]]


@dataclass(frozen=True, slots=True)
class Index:
    """Fields, in order, by which a collection may be queried; `unique` fields are in every document."""

    fields: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection's name and its declared indexes."""

    name: str
    indexes: tuple[Index, ...] = ()


@dataclass(frozen=True, slots=True)
class Patch:
    """A change of one document. Field names may be dotted paths through objects, not through lists.

    Amounts go to numbers and members to lists: anything else there is a StoreError.
    """

    set: Mapping[str, Any] = field(default_factory=dict[str, Any])
    unset: Sequence[str] = ()
    increment: Mapping[str, int | float] = field(default_factory=dict[str, "int | float"])
    maximum: Mapping[str, int | float | str] = field(default_factory=dict[str, "int | float | str"])
    add_to_set: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class PutNew:
    """Batch operation: store a document unless its `_id` (or a unique index) is taken already."""

    collection: str
    document: Document


@dataclass(frozen=True, slots=True)
class PatchOne:
    """Batch operation: change the document with this `_id`; nothing happens if there is none."""

    collection: str
    id: str
    patch: Patch


@dataclass(frozen=True, slots=True)
class DeleteOne:
    """Batch operation: remove the document with this `_id`, if any."""

    collection: str
    id: str


Operation: TypeAlias = PutNew | PatchOne | DeleteOne


class Documents(Protocol):
    """The record. Safe to use from several threads and processes.

    Every method raises StoreError when the store cannot be reached or refuses to write.
    """

    def get(self, collection: str, id: str) -> Document | None:
        """Return the document with this `_id`, or None."""
        ...

    def get_many(self, collection: str, ids: Sequence[str]) -> dict[str, Document]:
        """Return those of the documents that exist, by `_id`. Any number of ids."""
        ...

    def put_new(self, collection: str, document: Document) -> bool:
        """Store a document; False, changing nothing, if its `_id` or a unique index is taken."""
        ...

    def patch(self, collection: str, id: str, patch: Patch) -> Document | None:
        """Change one document atomically and return it as it is now; None if there is none."""
        ...

    def claim(self, collection: str, where: Where, patch: Patch, *, sort: Sort = ()) -> Document | None:
        """Change the first document that matches, atomically, and return it as it is now.

        Of several callers at once, each matching document is given to those for whom it still
        matches at that moment: two never both take what only one may have.
        """
        ...

    def find(self, collection: str, where: Where, *, sort: Sort = (), limit: int | None = None) -> Iterator[Document]:
        """Iterate over matching documents, in pages: bounded memory whatever their number.

        Documents equal in the sorted fields, or without `sort`, come in no particular order.
        """
        ...

    def count(self, collection: str, where: Where) -> int:
        """Count matching documents. Not for hot paths."""
        ...

    def bulk(self, operations: Sequence[Operation]) -> list[bool]:
        """Apply operations in order; for each, whether there was something to do.

        That is: for PutNew whether the document was new, for PatchOne and DeleteOne whether it was there.
        """
        ...

    def delete(self, collection: str, where: Where) -> int:
        """Remove all matching documents and return their number."""
        ...

    def erase_deleted(self) -> bool:
        """Take what was deleted out of the store's files, too; False while others keep it from being done.

        What a served database does with its files is its own affair.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...
