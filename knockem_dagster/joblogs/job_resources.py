"""One row per job: what it asked for and what it used, out of a report's tables.

Only jobs that are over are there: what is exported while it runs is never corrected. `memory.max_usage_in_bytes` of
cgroup version 1 and `memory.peak` of version 2 are one quantity; a limit of 2^60 bytes or more is none.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from knockem_dagster.joblogs.archive_fault import SEND_AGAIN, ArchiveFault
from knockem_dagster.joblogs.members import DATASETS, JOBS, METRIC_NUM, Member

NAME = "job_resources"
OVER = ("ok", "error", "deleted", "failed", "stopped", "skipped")
"""States of Galaxy's jobs that never change again."""
COLUMNS = (
    "id BIGINT, tool_id VARCHAR, tool_version VARCHAR, state VARCHAR, created TIMESTAMP, cores DOUBLE, runtime DOUBLE, "
    "cpu DOUBLE, memory_allocated DOUBLE, memory_peak DOUBLE, memory_limit DOUBLE, is_censored BOOLEAN, "
    "input_size DOUBLE"
)
"""Times in seconds, sizes in bytes, `created` in UTC; what is not known is null."""
_MEMORY_MB = 96
_ROW_GROUP = "8MB"
_NO_LIMIT = float(1 << 60)
_CENSORED_SHARE = 0.99
"""Of its limit: a peak that is so near it says only that the job wanted as much, or more."""

# An id that ends in another version than the job's is kept: which of the two is right, nobody knows. Where the job has
# none, the id tells it.
_NAMED = """
    SELECT
        id,
        CASE WHEN version = version_in_id THEN regexp_replace(tool_id, '/[^/]+$', '') ELSE tool_id END AS tool_id,
        version AS tool_version,
        state::VARCHAR AS state,
        make_timestamp(epoch_us(create_time)) AS created
    FROM (
        SELECT
            * REPLACE (tool_id::VARCHAR AS tool_id),
            nullif(regexp_extract(tool_id::VARCHAR, '^[^/]+/repos/[^/]+/[^/]+/[^/]+/([^/]+)$', 1), '') AS version_in_id,
            coalesce(nullif(tool_version::VARCHAR, ''), version_in_id, '') AS version
        FROM jobs
    )
"""
_TOLD_TWICE = "SELECT id FROM jobs GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 1"
_JOB_RESOURCES = f"""
WITH named AS ({_NAMED}),
metrics AS (
    SELECT
        job_id,
        max(value) FILTER (plugin = 'core' AND name = 'galaxy_slots') AS cores,
        max(value) FILTER (plugin = 'core' AND name = 'galaxy_memory_mb') * 1048576 AS memory_allocated,
        max(value) FILTER (plugin = 'core' AND name = 'runtime_seconds') AS runtime,
        max(value) FILTER (name IN ('memory.peak', 'memory.max_usage_in_bytes')) AS memory_peak,
        max(value) FILTER (name IN ('memory.max', 'memory.limit_in_bytes') AND value < {_NO_LIMIT}) AS memory_limit,
        coalesce(
            max(value) FILTER (name = 'cpu.stat.usage_usec') / 1e6, max(value) FILTER (name = 'cpuacct.usage') / 1e9
        ) AS cpu,
        max(value) FILTER (name IN ('memory.events.oom_kill', 'memory.failcnt')) > 0 AS was_held_back
    FROM metric_num
    GROUP BY job_id
),
sizes AS (
    SELECT job_id, CASE WHEN count(*) = count(file_size) THEN sum(file_size) END AS input_size
    FROM datasets
    WHERE type = 'input'
    GROUP BY job_id
)
SELECT
    id,
    tool_id,
    tool_version,
    state,
    created,
    cores,
    runtime,
    cpu,
    memory_allocated,
    memory_peak,
    memory_limit,
    coalesce(was_held_back OR memory_peak >= {_CENSORED_SHARE} * memory_limit, false) AS is_censored,
    input_size
FROM named
LEFT JOIN metrics ON metrics.job_id = id
LEFT JOIN sizes ON sizes.job_id = id
WHERE state IN {OVER}
"""


@contextmanager
def warehouse(scratch: Path, *, memory_mb: int) -> Generator[duckdb.DuckDBPyConnection]:
    """Give a database in memory, of so much of it at most: what does not fit goes to this folder, which exists."""
    pa.default_memory_pool().release_unused()  # what reading an archive took would be added to what this takes
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(scratch),
        "threads": 2,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=settings) as connection:
        connection.execute("SET enable_progress_bar = false")  # which is shown wherever the output goes
        yield connection


def write_job_resources(tables: Path) -> None:
    """Write a table of the jobs of a report, whose members' tables are in this folder, into it.

    Raises ArchiveFault where the report tells of a job twice: which of the two is right, nobody knows.
    """
    with warehouse(tables, memory_mb=_MEMORY_MB) as connection:
        for member in (JOBS, METRIC_NUM, DATASETS):
            _open(connection, member, tables / f"{member.name}.parquet")
        if twice := connection.execute(_TOLD_TWICE).fetchone():
            raise ArchiveFault(f"Job {twice[0]} is told of twice", SEND_AGAIN, member=JOBS.name)
        write_table(connection.sql(_JOB_RESOURCES), tables / f"{NAME}.parquet")


def write_table(rows: duckdb.DuckDBPyRelation, path: Path) -> None:
    """Write rows as a Parquet file, a part at a time that fits into little memory however long their texts are."""
    rows.write_parquet(str(path), compression="zstd", row_group_size_bytes=_ROW_GROUP)


def _open(connection: duckdb.DuckDBPyConnection, member: Member, path: Path) -> None:
    """Let a member's rows be a view of its name; none where the archive did not have it."""
    found = connection.read_parquet(str(path)) if path.is_file() else connection.from_arrow(member.schema.empty_table())
    found.create_view(member.name)
