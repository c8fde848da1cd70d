"""Documents on MongoDB: the served record, with nothing but what every server version has.

String `_id`s, ordinary and unique indexes, the update operators of Patch, find_one_and_update, ordered bulk_write,
ranges with sort and limit. No transactions, so a batch that dies leaves a prefix of its operations. Values go
through JSON on their way in, which makes them exactly what the embedded store would hold.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import orjson
from bson.errors import BSONError
from pymongo import ASCENDING, MongoClient, ReturnDocument, UpdateOne
from pymongo.collection import Collection as MongoCollection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)

from knockem_dagster.errors import StoreError
from knockem_dagster.stores.declarations import Declarations, encode_json
from knockem_dagster.stores.documents import (
    Collection,
    DeleteOne,
    Document,
    Operation,
    Patch,
    PatchOne,
    PutNew,
    Sort,
    Where,
)

_Request: TypeAlias = "UpdateOne | dict[str, str]"

_PAGE = 256
_IDS_AT_ONCE = 10_000
_DUPLICATE_KEY = 11000
_TIME_TO_FIND_A_SERVER = 10_000  # ms


class MongoDocuments:
    """The documents protocol on a MongoDB database, shared by any number of threads, processes and machines."""

    def __init__(self, url: str, database: str, collections: Sequence[Collection]) -> None:
        """Connect and make the declared indexes; StoreError if the server cannot be reached or refuses."""
        self._url = url
        self._database = database
        self._declarations = Declarations(collections)
        self._clients: dict[int, MongoClient[Document]] = {}
        try:
            with self._explained():
                self._make_indexes()
        except StoreError:
            self.close()
            raise

    def get(self, collection: str, id: str) -> Document | None:
        """Return the document with this `_id`, or None."""
        with self._explained():
            return self._collection(collection).find_one({"_id": id})

    def get_many(self, collection: str, ids: Sequence[str]) -> dict[str, Document]:
        """Return those of the documents that exist, by `_id`."""
        found: dict[str, Document] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            part = list(ids[start : start + _IDS_AT_ONCE])
            found |= {document["_id"]: document for document in self.find(collection, {"_id": {"$in": part}})}
        return found

    def put_new(self, collection: str, document: Document) -> bool:
        """Store a document; False, changing nothing, if its `_id` or a unique index is taken."""
        stored = orjson.loads(self._declarations.encode(collection, document))
        with self._explained():
            try:
                self._collection(collection).insert_one(stored)
            except DuplicateKeyError:
                return False
        return True

    def patch(self, collection: str, id: str, patch: Patch) -> Document | None:
        """Change one document atomically and return it as it is now; None if there is none."""
        return self.claim(collection, {"_id": id}, patch)

    def claim(self, collection: str, where: Where, patch: Patch, *, sort: Sort = ()) -> Document | None:
        """Change the first document that matches, atomically, and return it as it is now."""
        self._declarations.check_query(collection, where, sort)
        update = self._update(collection, patch)
        with self._explained():
            return self._collection(collection).find_one_and_update(
                _filter(where), update, sort=list(sort) or None, return_document=ReturnDocument.AFTER
            )

    def find(self, collection: str, where: Where, *, sort: Sort = (), limit: int | None = None) -> Iterator[Document]:
        """Iterate over matching documents; those changed meanwhile may come as they were or as they are."""
        self._declarations.check_query(collection, where, sort)
        return iter(()) if limit == 0 else self._stream(collection, where, sort, limit or 0)

    def count(self, collection: str, where: Where) -> int:
        """Count matching documents."""
        self._declarations.check_query(collection, where)
        with self._explained():
            return self._collection(collection).count_documents(_filter(where))

    def bulk(self, operations: Sequence[Operation]) -> list[bool]:
        """Apply operations in order; for each, whether there was something to do.

        Neighbours that put or patch in one collection travel together, deletions one by one: group them.
        Whether a patched document was there is exact unless another process removes it in the same moment.
        """
        requests = [self._request(operation) for operation in operations]
        applied: list[bool] = []
        with self._explained():
            for (name, deletes), run in groupby(zip(operations, requests, strict=True), _travels_with):
                collection = self._collection(name)
                if deletes:
                    filters = [cast("dict[str, str]", request) for _, request in run]
                    applied += [collection.delete_one(each).deleted_count == 1 for each in filters]
                else:
                    applied += _write_together(collection, list(run))
        return applied

    def delete(self, collection: str, where: Where) -> int:
        """Remove all matching documents and return their number."""
        self._declarations.check_query(collection, where)
        with self._explained():
            return self._collection(collection).delete_many(_filter(where)).deleted_count

    def erase_deleted(self) -> bool:
        """Leave it to the server."""
        return True

    def close(self) -> None:
        """Close this process's connections."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _make_indexes(self) -> None:
        for collection in self._declarations:
            for index in collection.indexes:
                fields = [(field, ASCENDING) for field in index.fields]
                self._collection(collection.name).create_index(fields, unique=index.unique)

    def _collection(self, name: str) -> MongoCollection[Document]:
        self._declarations.check_collection(name)
        process = os.getpid()
        if process not in self._clients:
            # A client and its threads do not survive a fork: each process has its own.
            self._clients[process] = _connect(self._url)
        return self._clients[process][self._database][name]

    def _update(self, collection: str, patch: Patch) -> dict[str, Any]:
        self._declarations.check_patch(collection, patch)
        update = {
            "$set": patch.set,
            "$unset": dict.fromkeys(patch.unset, ""),
            "$inc": patch.increment,
            "$max": patch.maximum,
            "$addToSet": patch.add_to_set,
        }
        stated = {operator: changes for operator, changes in update.items() if changes}
        return orjson.loads(encode_json(stated, what=f"a patch of {collection}"))

    def _request(self, operation: Operation) -> _Request:
        match operation:
            case PutNew(collection, document):
                stored = orjson.loads(self._declarations.encode(collection, document))
                return UpdateOne({"_id": stored["_id"]}, {"$setOnInsert": stored}, upsert=True)
            case PatchOne(collection, id, patch):
                return UpdateOne({"_id": id}, self._update(collection, patch))
            case DeleteOne(collection, id):
                self._declarations.check_collection(collection)
                return {"_id": id}

    def _stream(self, collection: str, where: Where, sort: Sort, limit: int) -> Iterator[Document]:
        with self._explained():
            cursor = self._collection(collection).find(_filter(where), limit=limit, batch_size=_PAGE)
            with cursor.sort(list(sort)) if sort else cursor:
                yield from cursor

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except (PyMongoError, BSONError, OverflowError) as error:
            server = urlsplit(self._url).netloc.rpartition("@")[2]
            raise StoreError(f"the documents in MongoDB at {server} cannot be used: {_advice(error)}") from error


def _connect(url: str) -> MongoClient[Document]:
    # Arguments win over the URL, where an operator may ask for another time.
    patience: dict[str, Any] = (
        {} if "serverselectiontimeoutms" in url.lower() else {"serverSelectionTimeoutMS": _TIME_TO_FIND_A_SERVER}
    )
    try:
        return MongoClient(url, w="majority", appname="knockem", connect=False, **patience)
    except (ConfigurationError, ValueError):
        # The cause may quote a part of the URL, and with it the password.
        raise StoreError(
            "KNOCKEM_DOCUMENTS_URL is not a MongoDB URL: write mongodb://user:password@host:port/name, with special "
            "characters of user and password percent-encoded"
        ) from None


def _advice(error: Exception) -> str:
    match error:
        case DuplicateKeyError():
            return f"another document already has this value in a unique index: choose another ({error})"
        case BulkWriteError(details=details) if details:
            return f"it refused a change: {details['writeErrors'][0]['errmsg']}"
        case ConnectionFailure():
            return f"no server answers: start it, or correct KNOCKEM_DOCUMENTS_URL ({error})"
        case OperationFailure(code=13 | 18):
            return "it refuses the user: correct user, password or roles in KNOCKEM_DOCUMENTS_URL"
        case _:
            return f"see the cause ({error})"


def _filter(where: Where) -> dict[str, Any]:
    return {field: _operand(wanted) for field, wanted in where.items()}


def _operand(wanted: object) -> object:
    if not isinstance(wanted, Mapping):
        return wanted
    operators = cast("Mapping[str, Any]", wanted)
    return {operator: list(operand) if operator == "$in" else operand for operator, operand in operators.items()}


def _travels_with(written: tuple[Operation, _Request]) -> tuple[str, bool]:
    operation, _ = written
    return operation.collection, isinstance(operation, DeleteOne)


def _write_together(collection: MongoCollection[Document], run: Sequence[tuple[Operation, _Request]]) -> list[bool]:
    """Send puts and patches in order, stepping over puts whose unique value is taken."""
    applied: list[bool] = []
    while len(applied) < len(run):
        rest = run[len(applied) :]
        try:
            outcome = collection.bulk_write([cast("UpdateOne", request) for _, request in rest]).bulk_api_result
        except BulkWriteError as error:
            outcome = error.details or {}
            refusal = outcome["writeErrors"][0]
            done, refused = rest[: refusal["index"]], rest[refusal["index"]][0]
            if refusal["code"] != _DUPLICATE_KEY or not isinstance(refused, PutNew):
                raise
            applied += [*_outcomes(collection, done, outcome), False]
        else:
            applied += _outcomes(collection, rest, outcome)
    return applied


def _outcomes(
    collection: MongoCollection[Document], done: Sequence[tuple[Operation, _Request]], outcome: Mapping[str, Any]
) -> list[bool]:
    """Tell operations apart in an answer that has the ids of new documents but only a total of those matched."""
    new = {upserted["_id"]: upserted["index"] for upserted in outcome["upserted"]}
    positions = set(new.values())
    patched = [operation.id for operation, _ in done if isinstance(operation, PatchOne)]
    taken = len(done) - len(patched) - len(new)
    if outcome["nMatched"] - taken == len(patched):
        present = set(patched)
    else:
        present = {document["_id"] for document in collection.find({"_id": {"$in": patched}}, {"_id": 1})}
    return [
        operation.id in present and new.get(operation.id, -1) < position
        if isinstance(operation, PatchOne)
        else position in positions
        for position, (operation, _) in enumerate(done)
    ]
