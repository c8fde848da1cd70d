"""Taking runs and partitions out of Dagster's own storage, with every trace of them.

Dagster deletes a run with its events, but keeps its captured output, the latest materialization of each
asset, ticks and run keys; it cannot wipe single partitions of assets (`wipe_asset_partitions` is not
implemented by its open-source storages). So its tables are changed here, and nowhere else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.schedules.schema import InstigatorsTable, JobTable, JobTickTable
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage
from dagster._core.storage.tags import PARTITION_NAME_TAG

from resources.names import SUBMISSION_TAG

Connecting = AbstractContextManager[db.Connection]

BUSY_MILLISECONDS = 30_000
PURGED = "(purged)"
_CACHES = (AssetKeyTable.c.last_materialization, AssetKeyTable.c.cached_status_data)
_MENTIONS = (JobTickTable.c.tick_body, InstigatorsTable.c.instigator_body, JobTable.c.job_body)


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with its events and, where they are files of this machine, its captured output."""
    instance.delete_run(run_id)
    if isinstance(instance.compute_log_manager, LocalComputeLogManager):
        instance.compute_log_manager.delete_logs(prefix=[run_id])


def runs_of(instance: dg.DagsterInstance, partition: str) -> list[dg.DagsterRun]:
    """Return the runs of a partition: those asked for by us, and those that somebody started in the UI."""
    found = {
        run.run_id: run
        for tag in (SUBMISSION_TAG, PARTITION_NAME_TAG)
        for run in instance.get_runs(dg.RunsFilter(tags={tag: partition}))
    }
    return list(found.values())


def forget(instance: dg.DagsterInstance, partition: str, *, of: str) -> None:
    """Remove a partition `of` such partitions, its runs, and its key from everything that Dagster keeps beside them."""
    runs = [run.run_id for run in runs_of(instance, partition)]
    for run_id in runs:
        delete_run(instance, run_id)
    instance.delete_dynamic_partition(of, partition)
    events, schedules, history = instance.event_log_storage, instance.schedule_storage, instance.run_storage
    if isinstance(events, SqlEventLogStorage):
        with events.index_connection() as connection:
            _forget_in_asset_index(connection, partition, runs)
            _wipe_free_space(connection)
    if isinstance(schedules, SqlScheduleStorage):
        with _connecting(schedules) as connection:
            for column in _MENTIONS:
                _set_where_mentioned(connection, column, partition, db.func.replace(column, partition, PURGED))
            _wipe_free_space(connection)
    if isinstance(history, SqlRunStorage):
        with _connecting(history) as connection:
            _wipe_free_space(connection)


def _connecting(storage: Any) -> Connecting:
    return storage.connect()


def _forget_in_asset_index(connection: db.Connection, partition: str, runs: Sequence[str]) -> None:
    for column in _CACHES:
        _set_where_mentioned(connection, column, partition, db.null())
    connection.execute(AssetCheckExecutionsTable.delete().where(AssetCheckExecutionsTable.c.run_id.in_(runs)))


def _set_where_mentioned(
    connection: db.Connection, column: db.Column[Any], partition: str, value: db.ColumnElement[Any]
) -> None:
    table = column.table
    if db.inspect(connection).has_table(table.name):
        connection.execute(table.update().values({column.name: value}).where(column.contains(partition)))


def _wipe_free_space(connection: db.Connection) -> None:
    """Rewrite an SQLite file and empty its log: deleted rows stay readable in both until they are used again.

    Commits first, as SQLite rewrites a file only outside of transactions. PostgreSQL does this by itself.
    """
    connection.commit()
    raw = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection):
        raw.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        raw.execute("VACUUM")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
