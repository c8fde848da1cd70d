"""The copy of the marts in PostgreSQL, for whoever asks there: of each instance one whole generation, or nothing.

A generation takes the place of another in one transaction, which holds the instance's lock. So whoever dies amid it
leaves what was there before, and of two at once the second finds what the first has done.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pyarrow as pa
from psycopg2 import sql
from pyarrow import csv

from knockem_dagster.errors import StoreError
from knockem_dagster.settings import Settings

SCHEMA = "knockem_joblogs"
_ROWS_AT_ONCE = 20_000
_MEMORY = "256MB"
_SECONDS_TO_CONNECT = 10
# The lock of a machine that vanished is not held for hours.
_KEEPALIVES = "SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6"
_PROFILE = """
    jobs bigint, ok bigint, errors bigint, first_created timestamp, last_created timestamp, hours double precision,
    cpu_hours double precision, allocated_gb_hours double precision, used_gb_hours double precision,
    memory_known bigint, memory_censored bigint, memory_median double precision, memory_95 double precision,
    memory_largest double precision, runtime_known bigint, runtime_median double precision,
    runtime_95 double precision, runtime_longest double precision
"""
# Tool ids may be longer than any index takes: none is in one.
_COLUMNS = {
    "jobs": """
        instance text, id bigint, tool_id text, tool_version text, state text, created timestamp,
        cores double precision, runtime double precision, cpu double precision, memory_allocated double precision,
        memory_peak double precision, memory_limit double precision, is_censored boolean, input_size double precision,
        PRIMARY KEY (instance, id)
    """,
    "tools": f"instance text, tool_id text, tool_version text, {_PROFILE}",
    "tool_months": f"instance text, tool_id text, month timestamp, {_PROFILE}",
    "months": f"instance text, month timestamp, state text, {_PROFILE}",
    "reports": """
        instance text, report text, generated timestamp, galaxy_version text, users_active bigint, users_total bigint,
        jobs bigint, export_seconds double precision, timings jsonb, PRIMARY KEY (instance, report)
    """,
    "generations": "instance text PRIMARY KEY, generation text NOT NULL",
}
_DEFINITION = " ".join(
    [
        *(f"CREATE TABLE {{schema}}.{name} ({' '.join(columns.split())});" for name, columns in _COLUMNS.items()),
        *(f"CREATE INDEX ON {{schema}}.{name} (instance);" for name in ("tools", "tool_months", "months")),
    ]
)
_VERSION = hashlib.sha256(_DEFINITION.encode()).hexdigest()
_WITH_QUANTILES = """
    SELECT
        * EXCLUDE (memory_quantiles, runtime_quantiles),
        memory_quantiles[1] AS memory_median, memory_quantiles[2] AS memory_95,
        runtime_quantiles[1] AS runtime_median, runtime_quantiles[2] AS runtime_95
    FROM mart
"""
_QUERIES = {
    "jobs": "FROM mart",
    **dict.fromkeys(("tools", "tool_months", "months"), _WITH_QUANTILES),
    "reports": "SELECT * REPLACE (to_json(timings)::VARCHAR AS timings) FROM mart",
}


class ServedMarts:
    """The copies of all instances' marts in one schema of a database. Safe to use by several at once."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema

    def generation_of(self, instance: str) -> str | None:
        """Return of which generation the copy of an instance is; None where there is none."""
        with self._transaction() as cursor:
            return self._generation_of(cursor, instance)

    @contextmanager
    def locked(self, instance: str) -> Generator[InstanceCopy]:
        """Give the copy of an instance to one at a time. What is done is done when all has gone well, or not at all."""
        with self._transaction() as cursor:
            self._lock(cursor, instance)
            yield InstanceCopy(cursor, self._schema, instance, self._generation_of(cursor, instance))

    def remove(self, instance: str) -> None:
        """Remove all rows of an instance."""
        with self.locked(instance) as copy:
            copy.replace(None, {})

    def _generation_of(self, cursor: Any, instance: str) -> str | None:
        query = sql.SQL("SELECT generation FROM {} WHERE instance = %s")
        cursor.execute(query.format(sql.Identifier(self._schema, "generations")), (instance,))
        found = cursor.fetchone()
        return None if found is None else found[0]

    @contextmanager
    def _transaction(self) -> Generator[Any]:
        """Give a cursor in a transaction, in a database that has the tables. Raises StoreError."""
        try:
            connection = psycopg2.connect(self._url, connect_timeout=_SECONDS_TO_CONNECT)
        except psycopg2.ProgrammingError:  # the message may quote the password
            raise StoreError(
                "KNOCKEM_WAREHOUSE_URL is no address of PostgreSQL: write postgresql://user:password@host:port/name, "
                "with special characters of the password percent-encoded."
            ) from None
        except psycopg2.OperationalError as error:
            raise StoreError(f"The database of KNOCKEM_WAREHOUSE_URL cannot be used: {_said(error)}") from error
        with closing(connection):
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute(_KEEPALIVES)
                    self._define(cursor)
                    yield cursor
            except psycopg2.Error as error:
                raise StoreError(f"Marts cannot be copied to KNOCKEM_WAREHOUSE_URL: {_said(error)}") from error

    def _define(self, cursor: Any) -> None:
        """Make the tables where they are missing, or anew where they are another version's: marts are copied again."""
        if self._is_defined(cursor):
            return
        self._lock(cursor, "")
        if self._is_defined(cursor):
            return
        schema = sql.Identifier(self._schema)
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        for name in _COLUMNS:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self._schema, name)))
        cursor.execute(sql.SQL(_DEFINITION).format(schema=schema))
        cursor.execute(sql.SQL("COMMENT ON SCHEMA {} IS %s").format(schema), (_VERSION,))
        cursor.connection.commit()

    def _is_defined(self, cursor: Any) -> bool:
        query = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s"
        cursor.execute(query, (self._schema,))
        return cursor.fetchone() == (_VERSION,)

    def _lock(self, cursor: Any, instance: str) -> None:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{self._schema} {instance}",))


class InstanceCopy:
    """The copy of one instance, while nobody else changes it. `generation`: of which it is; None for no copy."""

    def __init__(self, cursor: Any, schema: str, instance: str, generation: str | None) -> None:
        self._cursor = cursor
        self._schema = schema
        self._instance = instance
        self.generation = generation

    def replace(self, generation: str | None, files: Mapping[str, Path]) -> None:
        """Let these files of a generation take the place of what is there; None: nothing does."""
        for name in _COLUMNS:
            deletion = sql.SQL("DELETE FROM {} WHERE instance = %s").format(sql.Identifier(self._schema, name))
            self._cursor.execute(deletion, (self._instance,))
            if generation is not None and name in _QUERIES:
                self._fill(name, files[name])
        if generation is not None:
            noted = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(sql.Identifier(self._schema, "generations"))
            self._cursor.execute(noted, (self._instance, generation))

    def _fill(self, name: str, path: Path) -> None:
        with duckdb.connect(config={"threads": 1, "memory_limit": _MEMORY}) as connection:
            connection.execute("SET enable_progress_bar = false")  # which is shown wherever the output goes
            connection.read_parquet(str(path)).create_view("mart")
            rows = connection.sql(_QUERIES[name]).to_arrow_reader(_ROWS_AT_ONCE)
            columns = sql.SQL(", ").join(map(sql.Identifier, rows.schema.names))
            command = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                sql.Identifier(self._schema, name), columns
            )
            self._cursor.copy_expert(command, io.BufferedReader(_Text(rows), 1 << 16))


class _Text(io.RawIOBase):
    """Rows as the text that COPY reads, a few at a time: what is null has no quotes."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            batch = next(self._batches, None)
            if batch is None:
                return 0
            out = io.BytesIO()
            csv.write_csv(batch, out, csv.WriteOptions(include_header=False))
            self._left = out.getbuffer()
        number = min(len(self._left), len(buffer))
        buffer[:number] = self._left[:number]
        self._left = self._left[number:]
        return number


def open_served(settings: Settings) -> ServedMarts | None:
    """Return the copies in the database that is set; None where none is."""
    if settings.warehouse_url is None:
        return None
    return ServedMarts(settings.warehouse_url, settings.name_in_environment(SCHEMA, "_"))


def _said(error: psycopg2.Error) -> str:
    return str(error).strip().partition("\n")[0]
