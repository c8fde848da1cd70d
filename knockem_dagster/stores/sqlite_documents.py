"""Documents on SQLite: the embedded record, one file, no server.

One table per collection: `_id` and the document as JSON text; declared indexes are indexes on json_extract
expressions, written exactly as queries write them so that SQLite recognizes them. Tables keep their rowid: with
documents of some 500 bytes that made inserts three times faster than WITHOUT ROWID. Within one indexed field
values are of one type (or null): SQLite stores true as 1, and ranges do not stop at the end of a type.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import orjson

from knockem_dagster.stores.declarations import Declarations
from knockem_dagster.stores.documents import (
    Collection,
    DeleteOne,
    Document,
    Index,
    Operation,
    Patch,
    PatchOne,
    PutNew,
    Sort,
    Where,
)
from knockem_dagster.stores.patching import apply_patch
from knockem_dagster.stores.sqlite_connections import SqliteConnections

_PAGE = 256
_DELETED_AT_ONCE = 1000
_COMPARISONS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


class SqliteDocuments:
    """The documents protocol on one SQLite file, shared by threads and processes of one machine."""

    def __init__(self, path: Path, collections: Sequence[Collection]) -> None:
        """Open or make the file; StoreError if it cannot be used."""
        self._declarations = Declarations(collections)
        self._connections = SqliteConnections(path, [sql for each in collections for sql in _schema(each)])

    def get(self, collection: str, id: str) -> Document | None:
        """Return the document with this `_id`, or None."""
        self._declarations.check_collection(collection)
        with self._connections.reading() as connection:
            return _read(connection, collection, id)

    def get_many(self, collection: str, ids: Sequence[str]) -> dict[str, Document]:
        """Return those of the documents that exist, by `_id`."""
        found = self.find(collection, {"_id": {"$in": list(ids)}})
        return {document["_id"]: document for document in found}

    def put_new(self, collection: str, document: Document) -> bool:
        """Store a document; False, changing nothing, if its `_id` or a unique index is taken."""
        encoded = self._declarations.encode(collection, document)
        with self._connections.writing() as connection:
            return _insert(connection, collection, document["_id"], encoded)

    def patch(self, collection: str, id: str, patch: Patch) -> Document | None:
        """Change one document atomically and return it as it is now; None if there is none."""
        self._declarations.check_patch(collection, patch)
        with self._connections.writing() as connection:
            document = _read(connection, collection, id)
            return document and orjson.loads(self._change(connection, collection, document, patch))

    def claim(self, collection: str, where: Where, patch: Patch, *, sort: Sort = ()) -> Document | None:
        """Change the first document that matches, atomically, and return it as it is now."""
        self._declarations.check_query(collection, where, sort)
        self._declarations.check_patch(collection, patch)
        condition, parameters = _condition(where)
        select = f'SELECT body FROM "{collection}"{condition}{_order(sort)} LIMIT 1'
        with self._connections.reading() as connection:
            # Callers that wait for work ask often: when there is none they should not take the write lock.
            if connection.execute(select, parameters).fetchone() is None:
                return None
        with self._connections.writing() as connection:
            row = connection.execute(select, parameters).fetchone()
            return row and orjson.loads(self._change(connection, collection, orjson.loads(row[0]), patch))

    def find(self, collection: str, where: Where, *, sort: Sort = (), limit: int | None = None) -> Iterator[Document]:
        """Iterate over matching documents as they were when the iteration began."""
        self._declarations.check_query(collection, where, sort)
        condition, parameters = _condition(where)
        limited = "" if limit is None else f" LIMIT {int(limit)}"
        return self._stream(f'SELECT body FROM "{collection}"{condition}{_order(sort)}{limited}', parameters)

    def count(self, collection: str, where: Where) -> int:
        """Count matching documents."""
        self._declarations.check_query(collection, where)
        condition, parameters = _condition(where)
        with self._connections.reading() as connection:
            return connection.execute(f'SELECT count(*) FROM "{collection}"{condition}', parameters).fetchone()[0]

    def bulk(self, operations: Sequence[Operation]) -> list[bool]:
        """Apply operations in order, all or none of them; for each, whether there was something to do."""
        prepared = [self._prepared(operation) for operation in operations]
        with self._connections.writing() as connection:
            return [
                self._apply(connection, operation, encoded)
                for operation, encoded in zip(operations, prepared, strict=True)
            ]

    def delete(self, collection: str, where: Where) -> int:
        """Remove all matching documents, some at a time so that others can write in between; return their number."""
        self._declarations.check_query(collection, where)
        condition, parameters = _condition(where)
        chosen = f'SELECT rowid FROM "{collection}"{condition} LIMIT {_DELETED_AT_ONCE}'
        removed = 0
        while True:
            with self._connections.writing() as connection:
                count = connection.execute(f'DELETE FROM "{collection}" WHERE rowid IN ({chosen})', parameters).rowcount
            removed += count
            if count < _DELETED_AT_ONCE:
                return removed

    def erase_deleted(self) -> bool:
        """Empty the write-ahead log; pages of the file are overwritten as they are deleted."""
        return self._connections.empty_log()

    def close(self) -> None:
        """Close the file."""
        self._connections.close()

    def _stream(self, sql: str, parameters: Sequence[object]) -> Iterator[Document]:
        with self._connections.reading() as connection:
            cursor = connection.execute(sql, parameters)
            try:
                while rows := cursor.fetchmany(_PAGE):
                    for (body,) in rows:
                        yield orjson.loads(body)
            finally:
                cursor.close()

    def _prepared(self, operation: Operation) -> bytes:
        match operation:
            case PutNew(collection, document):
                return self._declarations.encode(collection, document)
            case PatchOne(collection, _, patch):
                self._declarations.check_patch(collection, patch)
            case DeleteOne(collection, _):
                self._declarations.check_collection(collection)
        return b""

    def _apply(self, connection: sqlite3.Connection, operation: Operation, encoded: bytes) -> bool:
        match operation:
            case PutNew(collection, document):
                return _insert(connection, collection, document["_id"], encoded)
            case PatchOne(collection, id, patch):
                document = _read(connection, collection, id)
                if document is None:
                    return False
                self._change(connection, collection, document, patch)
                return True
            case DeleteOne(collection, id):
                return connection.execute(f'DELETE FROM "{collection}" WHERE _id = ?', (id,)).rowcount == 1

    def _change(self, connection: sqlite3.Connection, collection: str, document: Document, patch: Patch) -> str:
        apply_patch(document, patch)
        body = self._declarations.encode(collection, document).decode()
        connection.execute(f'UPDATE "{collection}" SET body = ? WHERE _id = ?', (body, document["_id"]))
        return body


def _schema(collection: Collection) -> Iterator[str]:
    yield f'CREATE TABLE IF NOT EXISTS "{collection.name}" (_id TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL)'
    for index in collection.indexes:
        yield _index_schema(collection.name, index)


def _index_schema(collection: str, index: Index) -> str:
    name = ".".join([collection, "unique" if index.unique else "by", *index.fields])
    expressions = ", ".join(_expression(field) for field in index.fields)
    return f'CREATE {"UNIQUE " * index.unique}INDEX IF NOT EXISTS "{name}" ON "{collection}" ({expressions})'


def _expression(field: str) -> str:
    if field == "_id":
        return "_id"
    path = "".join(f'."{name}"' for name in field.split("."))
    return f"json_extract(body, '${path}')"


def _condition(where: Where) -> tuple[str, list[object]]:
    terms: list[str] = []
    parameters: list[object] = []
    for field, wanted in where.items():
        expression = _expression(field)
        if wanted is None:
            terms.append(f"{expression} IS NULL")
        elif not isinstance(wanted, Mapping):
            terms.append(f"{expression} = ?")
            parameters.append(wanted)
        else:
            for operator, operand in cast("Mapping[str, Any]", wanted).items():
                if operator == "$in":
                    # One parameter whatever the number of values: no limit on them, and one prepared statement.
                    terms.append(f"{expression} IN (SELECT value FROM json_each(?))")
                    parameters.append(orjson.dumps(list(operand)).decode())
                else:
                    terms.append(f"{expression} {_COMPARISONS[operator]} ?")
                    parameters.append(operand)
    return (" WHERE " + " AND ".join(terms) if terms else ""), parameters


def _order(sort: Sort) -> str:
    terms = [f"{_expression(field)} {'ASC' if direction == 1 else 'DESC'}" for field, direction in sort]
    return " ORDER BY " + ", ".join(terms) if terms else ""


def _read(connection: sqlite3.Connection, collection: str, id: str) -> Document | None:
    row = connection.execute(f'SELECT body FROM "{collection}" WHERE _id = ?', (id,)).fetchone()
    return None if row is None else orjson.loads(row[0])


def _insert(connection: sqlite3.Connection, collection: str, id: str, encoded: bytes) -> bool:
    statement = f'INSERT INTO "{collection}" (_id, body) VALUES (?, ?) ON CONFLICT DO NOTHING'
    return connection.execute(statement, (id, encoded.decode())).rowcount == 1
