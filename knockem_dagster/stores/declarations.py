"""What declared collections permit, so that every implementation refuses the same things in the same words.

What belongs here: checks of names, documents, queries and patches against the declarations. What does not:
anything that knows how a document is stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import orjson

from knockem_dagster.errors import StoreError
from knockem_dagster.stores.documents import Collection, Document, Index, Patch, Sort, Where

OPERATORS = frozenset({"$lt", "$lte", "$gt", "$gte", "$in"})
MAX_DOCUMENT_BYTES = 16_000_000
"""Just below MongoDB's own limit of 16 MiB, of BSON, for one document."""

_COLLECTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FIELD_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ENCODING = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class Declarations:
    """The declared collections of one store; each `check_...` raises StoreError saying what is not permitted."""

    def __init__(self, collections: Sequence[Collection]) -> None:
        """Take the declarations; StoreError if a name cannot be stored everywhere or occurs twice."""
        self._collections = {collection.name: collection for collection in collections}
        self._indexed_fields: dict[str, tuple[str, ...]] = {}
        self._unique_fields: dict[str, frozenset[str]] = {}
        # SQLite does not distinguish upper from lower case in names of tables.
        if len({name.lower() for name in self._collections}) != len(collections):
            names = ", ".join(collection.name for collection in collections)
            raise StoreError(f"two collections have the same name but for case: {names}; rename one")
        for collection in collections:
            fields = {field for index in collection.indexes for field in index.fields}
            if not _COLLECTION_NAME.fullmatch(collection.name):
                raise StoreError(f"collection name {collection.name!r} is not letters, digits and underscores")
            for field in fields:
                self._check_path(collection.name, field)
            self._indexed_fields[collection.name] = tuple(sorted(fields))
            unique = {field for index in collection.indexes if index.unique for field in index.fields}
            self._unique_fields[collection.name] = frozenset(unique)

    def __iter__(self) -> Iterator[Collection]:
        return iter(self._collections.values())

    def check_collection(self, collection: str) -> None:
        """Refuse a collection that was not declared."""
        if collection not in self._collections:
            known = ", ".join(sorted(self._collections)) or "none"
            raise StoreError(f"collection {collection!r} is not declared (declared: {known}); declare it where "
                             "the store is opened")  # fmt: skip

    def encode(self, collection: str, document: Document) -> bytes:
        """Return the document as JSON; StoreError for what JSON or this collection's indexes cannot hold."""
        self.check_collection(collection)
        document_id = document.get("_id")
        if not isinstance(document_id, str) or not document_id:
            raise StoreError(f"a document of {collection} needs a string _id that is not empty, not {document_id!r}")
        for field in self._indexed_fields[collection]:
            value = value_at(document, field)
            if isinstance(value, (dict, list, tuple)):
                raise StoreError(f"{field} of {collection} {document_id} is indexed and must be a string, number, "
                                 "boolean or null, not a list or object")  # fmt: skip
            if value is None and field in self._unique_fields[collection]:
                raise StoreError(f"{field} of {collection} {document_id} is in a unique index and must have a value")
        encoded = encode_json(document, what=f"{collection} {document_id}")
        if len(encoded) > MAX_DOCUMENT_BYTES:
            raise StoreError(f"{collection} {document_id} has {len(encoded)} bytes, more than {MAX_DOCUMENT_BYTES}: "
                             "put large content into the object store and its key here")  # fmt: skip
        return encoded

    def check_query(self, collection: str, where: Where, sort: Sort = ()) -> None:
        """Refuse a query that neither names documents by `_id` nor follows one declared index.

        An index serves a query whose conditions and sort name only its fields (and `_id`), the first of them
        among the conditions or, without conditions, first in the sort. A query that gives `_id`s may add
        conditions on any field. An empty `where` without sort means the whole collection.
        """
        self.check_collection(collection)
        for field, condition in where.items():
            self._check_path(collection, field)
            _check_condition(collection, field, condition)
        sorted_by = [field for field, _ in sort]
        for field in sorted_by:
            self._check_path(collection, field)
        if not where and not sorted_by:
            return
        by_id = where.get("_id")
        if isinstance(by_id, str) or (isinstance(by_id, Mapping) and "$in" in by_id):
            return
        asked = {*where, *sorted_by}
        entries = set(where) or set(sorted_by[:1])
        indexes = (*self._collections[collection].indexes, Index(("_id",), unique=True))
        if any(index.fields[0] in entries and asked <= {*index.fields, "_id"} for index in indexes):
            return
        unindexed = asked - {"_id", *self._indexed_fields[collection]}
        named = ", ".join(sorted(unindexed or asked))
        declared = " ".join(f"({', '.join(index.fields)})" for index in indexes)
        raise StoreError(f"collection {collection} has no index for a query by {named}; ask by one of {declared}, "
                         "or declare an index")  # fmt: skip

    def check_patch(self, collection: str, patch: Patch) -> None:
        """Refuse a patch that changes nothing, the `_id`, one field twice, or empties a unique field."""
        self.check_collection(collection)
        paths = [*patch.set, *patch.unset, *patch.increment, *patch.maximum, *patch.add_to_set]
        if not paths:
            raise StoreError(f"a patch of {collection} changes nothing; leave it out")
        for path in paths:
            self._check_path(collection, path)
            if path == "_id" or path.startswith("_id."):
                raise StoreError(f"the _id of a document of {collection} cannot change; store a new document")
        if len(paths) > 1:
            _check_apart(collection, paths)
        self._check_indexed_fields(collection, patch, paths)

    def _check_indexed_fields(self, collection: str, patch: Patch, paths: Sequence[str]) -> None:
        for field in self._unique_fields[collection]:
            emptied = field in patch.unset or (field in patch.set and patch.set[field] is None)
            if emptied or any(field.startswith(f"{path}.") for path in paths):
                raise StoreError(f"{field} of {collection} is in a unique index and must keep a value")
        for field in self._indexed_fields[collection]:
            if field in patch.add_to_set or isinstance(patch.set.get(field), (dict, list, tuple)):
                raise StoreError(f"{field} of {collection} is indexed and cannot hold a list or object")

    def _check_path(self, collection: str, path: str) -> None:
        if not _is_field_path(path):
            raise StoreError(f"{path!r} does not name a field of {collection}: use letters, digits, _ and -, "
                             "with dots between levels")  # fmt: skip


@lru_cache(maxsize=4096)
def _is_field_path(path: str) -> bool:
    return _FIELD_PATH.fullmatch(path) is not None


def encode_json(value: object, *, what: str) -> bytes:
    """Return a value as JSON; StoreError, naming `what`, if that would lose something."""
    try:
        encoded = orjson.dumps(value, option=_ENCODING)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} is not JSON: {error}; store text, numbers, booleans, null, lists, objects") from error
    # JSON has no word for these, and the encoder would quietly write null.
    if b"null" in encoded and _holds_non_finite(value):
        raise StoreError(f"{what} holds NaN or infinity, which JSON cannot; store null or leave the field out")
    return encoded


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path through objects, or None if there is none."""
    if "." not in path:
        return document.get(path)
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, Any]", value).get(name)
    return value


def _check_condition(collection: str, field: str, condition: object) -> None:
    if not isinstance(condition, Mapping):
        operands: Iterable[object] = (condition,)
    else:
        operators = cast("Mapping[str, object]", condition)
        unknown = sorted(operators.keys() - OPERATORS)
        if unknown or not operators:
            raise StoreError(f"a condition on {field} of {collection} uses {unknown or 'no operator'}; permitted are "
                             f"a plain value or {', '.join(sorted(OPERATORS))}")  # fmt: skip
        members = operators.get("$in", ())
        if not isinstance(members, (list, tuple, set, frozenset)):
            raise StoreError(f"$in on {field} of {collection} needs a list, not {members!r}")
        bounds = [operand for operator, operand in operators.items() if operator != "$in"]
        operands = [*bounds, *cast("Iterable[object]", members)]
        if any(operand is None for operand in operands):
            raise StoreError(f"a range or $in on {field} of {collection} cannot hold null; ask for null by itself")
    for operand in operands:
        if operand is not None and not isinstance(operand, (str, int, float)):
            raise StoreError(f"a condition on {field} of {collection} compares with {operand!r}; permitted are "
                             "strings, numbers, booleans and null")  # fmt: skip
        if field == "_id" and not isinstance(operand, str):
            raise StoreError(f"the _id of a document of {collection} is a string, not {operand!r}")


def _check_apart(collection: str, paths: Sequence[str]) -> None:
    taken: set[str] = set()
    for path in sorted(paths, key=lambda path: path.count(".")):
        parts = path.split(".")
        if any(".".join(parts[:depth]) in taken for depth in range(1, len(parts) + 1)):
            raise StoreError(f"a patch of {collection} changes {path} twice; name every field once")
        taken.add(path)


def _holds_non_finite(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_holds_non_finite(member) for member in cast("Mapping[str, object]", value).values())
    if isinstance(value, (list, tuple)):
        return any(_holds_non_finite(member) for member in cast("Sequence[object]", value))
    return False
