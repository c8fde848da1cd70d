"""The marts: what is asked of an instance's jobs, computed from the job tables of its reports.

A generation of marts is named after the reports it is made of and never changes. Readers see the one in use; another
takes its place in one step when all of it is there. So whoever dies in between, or builds beside others, does no harm,
and nothing counts twice.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import parquet

from knockem_dagster.errors import NotFound
from knockem_dagster.joblogs import job_resources
from knockem_dagster.joblogs.job_resources import warehouse, write_table
from knockem_dagster.joblogs.ledger import SCRATCH, Ledger, metadata_key, table_key
from knockem_dagster.joblogs.report_metadata import read_metadata
from knockem_dagster.joblogs.served import ServedMarts
from knockem_dagster.joblogs.wanted import check_wanted, while_wanted
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import MARTS_ID, MartsRecord, ReportRecord
from knockem_dagster.records.record import new_id, now
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects

MARTS_VERSION = "4"
"""Another one where any mart would be another."""
KEPT_FOR_READERS = timedelta(hours=1)
"""How long marts are there that went out of use: somebody may be reading them."""
_LEAST_MEMORY_MB, _AMPLE_MEMORY_MB = 112, 1024
_MEMORY_OF_A_JOB = 60
"""Bytes. All else that does not fit goes to a file; what a quantile is of does not."""
_READ_AGAIN = "read-again"
"""Noted as if it were a generation: tables that another parser reads, or has read, will be of no use to anybody."""
_TRIES = 5
# The latest report to tell of a job is right; of two made at once, the one whose name is last.
_LATEST = """
CREATE TABLE latest AS
    SELECT * EXCLUDE (generated, report)
    FROM told
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY generated DESC, report DESC) = 1
"""
# Both sums of GB hours are of the jobs that tell what they had and what they used: the difference was wasted.
_PROFILE = """
    count(*) AS jobs,
    count(*) FILTER (state = 'ok') AS ok,
    count(*) FILTER (state = 'error') AS errors,
    min(created) AS first_created,
    max(created) AS last_created,
    sum(runtime) / 3600 AS hours,
    sum(cpu) / 3600 AS cpu_hours,
    sum(memory_allocated * runtime) FILTER (memory_peak IS NOT NULL) / 3.6e12 AS allocated_gb_hours,
    sum(memory_peak * runtime) FILTER (memory_allocated IS NOT NULL) / 3.6e12 AS used_gb_hours,
    count(memory_peak) AS memory_known,
    count(*) FILTER (is_censored) AS memory_censored,
    quantile_cont(memory_peak, [0.5, 0.95]) AS memory_quantiles,
    max(memory_peak) AS memory_largest,
    count(runtime) AS runtime_known,
    quantile_cont(runtime, [0.5, 0.95]) AS runtime_quantiles,
    max(runtime) AS runtime_longest,
"""
JOBS = "jobs"
TOOLS = "tools"
REPORTS = "reports"
_QUERIES = {
    JOBS: "SELECT * FROM latest ORDER BY tool_id, tool_version, id",
    TOOLS: f"SELECT tool_id, tool_version, {_PROFILE} FROM jobs GROUP BY ALL ORDER BY tool_id, tool_version",
    "tool_months": f"""
        SELECT tool_id, date_trunc('month', created) AS month, {_PROFILE}
        FROM jobs GROUP BY ALL ORDER BY tool_id, month
    """,
    "months": f"""
        SELECT date_trunc('month', created) AS month, state, {_PROFILE}
        FROM jobs GROUP BY ALL ORDER BY month, state
    """,
    REPORTS: "SELECT * FROM report_rows ORDER BY generated, report",
}
TABLES = tuple(_QUERIES)
"""The marts: a row per job, per tool and version, per tool and month, per month and state, and per report in use. Sizes
are bytes, times seconds, GB 10^9 bytes; what is not known is null."""
_REPORTS = pa.schema(
    [
        ("report", pa.string()),
        ("generated", pa.timestamp("us")),
        ("galaxy_version", pa.string()),
        ("users_active", pa.int64()),
        ("users_total", pa.int64()),
        ("jobs", pa.int64()),
        ("export_seconds", pa.float64()),
        ("timings", pa.map_(pa.string(), pa.float64())),
    ]
)
"""`jobs` are those that the report tells of, in whatever state; `timings`, when its exporter came where."""


@dataclass(frozen=True, slots=True)
class LakeFile:
    """The jobs of a report: where they are, when the report was made, in seconds since 1970, and its name."""

    path: Path
    generated: float
    report: str


class Marts:
    """The marts of all instances, over the record and the object store. Safe to use by several at once.

    `served`: the copy that follows them, if there is one.
    """

    def __init__(self, records: Records, objects: Objects, served: ServedMarts | None = None) -> None:
        self._records = records
        self._objects = objects
        self._served = served
        self._ledger = Ledger(records, objects)

    def in_use(self) -> dict[str, str]:
        """Return the generations in use, by instance."""
        found = self._records.job_log_marts.find_one(MARTS_ID)
        return {} if found is None else found.in_use

    def is_current(self, instance: str) -> bool:
        """Tell whether all reports of an instance were read, and the marts in use, and copied, are those of them."""
        return self._is_computed(instance) and self._is_copied(instance)

    def refresh(self, instance: str, *, again: bool = False) -> None:
        """Read what was not read yet, and let marts of all that is in use take the place of those that are.

        `again`: compute them anew even so. Readers see what was there before until all of the new is.
        """
        with while_wanted(self._records, self._objects, instance):
            self._refresh(instance, again=again)
            if self._served is not None and not self._is_copied(instance):
                self._copy(self._served, instance)

    def _is_computed(self, instance: str) -> bool:
        return not self._ledger.unread(instance) and self._are_of(instance, self._ledger.in_use(instance))

    def _is_copied(self, instance: str) -> bool:
        return self._served is None or self._served.generation_of(instance) == self.in_use().get(instance)

    def _copy(self, served: ServedMarts, instance: str) -> None:
        """Copy the generation in use, whichever that is when it is one's turn."""
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder, served.locked(instance) as copy:
            check_wanted(self._records, instance)  # whoever removes it waits for this to be over
            generation = self.in_use().get(instance)
            if generation == copy.generation:
                return
            files: dict[str, Path] = {}
            if generation is not None:
                files = {name: self._file(mart_key(instance, generation, name), Path(folder)) for name in TABLES}
            copy.replace(generation, files)

    def _refresh(self, instance: str, *, again: bool) -> None:
        suffix = f"-{new_id()[:8]}" if again else ""
        while again or not self._is_computed(instance):
            again = False
            if any(each.parser_version for each in self._ledger.unread(instance)):
                self._announce(instance, _READ_AGAIN)
            self._ledger.read_all(instance)
            reports = self._ledger.in_use(instance)
            generation = _content_of(reports) + suffix
            if reports and not self._is_there(instance, generation):
                self._announce(instance, generation)
                self._build(instance, generation, reports)
            self._use(instance, generation if reports else None)

    def sweep(self, *, older: timedelta = KEPT_FOR_READERS) -> int:
        """Remove marts that have been out of use for so long; return how many were noted.

        With them go the tables that an earlier parser read.
        """
        found = self._records.job_log_marts.find_one(MARTS_ID)
        if found is None:
            return 0
        before = (datetime.now(UTC) - older).isoformat()
        gone = [
            (instance, generation)
            for instance, generations in found.left.items()
            for generation, when in generations.items()
            if when < before and found.in_use.get(instance) != generation
        ]
        for instance, generation in gone:
            self._objects.delete_prefix(_folder(instance, generation))
        if gone:
            self._ledger.sweep({instance for instance, _ in gone})
            self._records.job_log_marts.patch(MARTS_ID, Patch(unset=[".".join(("left", *each)) for each in gone]))
        return len(gone)

    def generation_of(self, instance: str) -> str:
        """Return the generation in use of an instance. Raises NotFound where there is none."""
        generation = self.in_use().get(instance)
        if generation is None:
            raise NotFound(f"There are no marts of instance {instance}.")
        return generation

    def keep(self, instance: str, generation: str, name: str, data: bytes | Path) -> None:
        """Store what was made of a generation of an instance's marts, for as long as that."""
        with while_wanted(self._records, self._objects, instance):
            self._objects.put(f"{_folder(instance, generation)}/{name}", data)

    def kept(self, instance: str, name: str) -> bytes:
        """Return what was stored by `keep` with the generation in use. Raises NotFound."""
        return self._objects.get(f"{_folder(instance, self.generation_of(instance))}/{name}")

    @contextmanager
    def opened(
        self, instances: Iterable[str] | None = None, names: Sequence[str] = TABLES
    ) -> Generator[duckdb.DuckDBPyConnection]:
        """Give a database with the marts in use as views, of these instances, or of all; `names`: which of TABLES.

        From a bucket the files of these are copied first.
        """
        with (
            tempfile.TemporaryDirectory(prefix=SCRATCH) as folder,
            warehouse(Path(folder), memory_mb=_AMPLE_MEMORY_MB) as found,
        ):
            files = self._files_in_use(None if instances is None else set(instances), names, Path(folder))
            if files:
                for name in names:
                    found.read_parquet([str(each[name]) for each in files]).create_view(name)
            else:
                _open_reports(found, [], [])
                for name, rows in _computed(found, "", _REPORTS.empty_table()):
                    rows.create(name)
            yield found

    def made_of(self, instance: str, scratch: Path) -> tuple[str, list[LakeFile]]:
        """Return the generation in use of an instance, and the job tables of the lake that it is made of.

        Raises NotFound where there are no marts, or they are not of the reports that are in use now.
        """
        generation = self.generation_of(instance)
        reports = self._ledger.in_use(instance)
        if not self._are_of(instance, reports):
            raise NotFound(f"The marts of instance {instance} are not of all its reports yet.")
        return generation, [
            LakeFile(self._file(table_key(each, job_resources.NAME), scratch), each.generated or 0.0, each.name)
            for each in reports
        ]

    def _files_in_use(self, instances: Set[str] | None, names: Sequence[str], scratch: Path) -> list[dict[str, Path]]:
        for _ in range(_TRIES):
            in_use = self.in_use()
            wanted = [each for each in in_use.items() if instances is None or each[0] in instances]
            try:
                return [{name: self._file(mart_key(*each, name), scratch) for name in names} for each in wanted]
            except NotFound:  # another generation has taken the place of one of these
                continue
        raise NotFound("The marts of job logs change all the time; try again.")

    def _file(self, key: str, scratch: Path) -> Path:
        """Return an object as a file. Raises NotFound."""
        path = self._objects.path(key)
        if path is None:
            path = scratch / hashlib.sha256(key.encode()).hexdigest()
            self._objects.fetch(key, path)
        elif not path.is_file():
            raise NotFound(f"There is no object {key}.")
        return path

    def _are_of(self, instance: str, reports: Sequence[ReportRecord]) -> bool:
        generation = self.in_use().get(instance, "")
        is_there = not generation or self._is_there(instance, generation)
        return generation.partition("-")[0] == _content_of(reports) and is_there

    def _is_there(self, instance: str, generation: str) -> bool:
        return all(self._objects.exists(mart_key(instance, generation, name)) for name in TABLES)

    def _build(self, instance: str, generation: str, reports: Sequence[ReportRecord]) -> None:
        enough = max(_LEAST_MEMORY_MB, sum(each.jobs for each in reports) * _MEMORY_OF_A_JOB // 10**6)
        try:
            self._build_within(enough, instance, generation, reports)
        except duckdb.OutOfMemoryException:  # names of tools are far longer, and more, than any server has
            self._build_within(max(_AMPLE_MEMORY_MB, 2 * enough), instance, generation, reports)

    def _build_within(self, memory_mb: int, instance: str, generation: str, reports: Sequence[ReportRecord]) -> None:
        with (
            tempfile.TemporaryDirectory(prefix=SCRATCH) as folder,
            warehouse(Path(folder), memory_mb=memory_mb) as made,
        ):
            scratch = Path(folder)
            files = [self._file(table_key(each, job_resources.NAME), scratch) for each in reports]
            _open_reports(made, reports, files)
            for name, rows in _computed(made, instance, self._tell_of(reports)):
                path = scratch / f"{name}.parquet"
                write_table(rows, path)
                made.read_parquet(str(path)).create_view(name)
                self._objects.put(mart_key(instance, generation, name), path)

    def _tell_of(self, reports: Sequence[ReportRecord]) -> pa.Table:
        """Return a row for each report: what its instance says of it, and how many jobs of it are in the lake."""
        rows: list[dict[str, Any]] = []
        for report in reports:
            said = read_metadata(self._objects.get(metadata_key(report)))
            generated, timings = datetime.fromtimestamp(float(said.generated), UTC), said.timings
            rows.append(
                {
                    "report": report.name,
                    "generated": generated.replace(tzinfo=None),
                    "galaxy_version": said.galaxy_version.replace("\0", ""),  # which no database of others takes
                    "users_active": None if said.users is None else said.users.active,
                    "users_total": None if said.users is None else said.users.total,
                    "jobs": report.jobs,
                    "export_seconds": max(timings.values(), default=None),
                    "timings": list(timings.items()),
                }
            )
        return pa.Table.from_pylist(rows, schema=_REPORTS)

    def _announce(self, instance: str, generation: str) -> None:
        """Note a generation as out of use before there is anything of it: who builds it may die before it is in use."""
        self._records.job_log_marts.add(MartsRecord(id=MARTS_ID))
        self._records.job_log_marts.patch(MARTS_ID, Patch(set={f"left.{instance}.{generation}": now()}))

    def _use(self, instance: str, generation: str | None) -> None:
        """Let this generation take the place of the one in use."""
        marts = self._records.job_log_marts
        marts.add(MartsRecord(id=MARTS_ID))
        before = self.in_use().get(instance)
        left = {} if before in {None, generation} else {f"left.{instance}.{before}": now()}
        if generation is None:
            marts.patch(MARTS_ID, Patch(set=left, unset=[f"inUse.{instance}", f"jobs.{instance}"]))
        else:
            with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
                jobs = self._file(mart_key(instance, generation, JOBS), Path(folder))
                number = parquet.read_metadata(jobs).num_rows
            used = {f"inUse.{instance}": generation, f"jobs.{instance}": number}
            marts.patch(MARTS_ID, Patch(set={**left, **used}))


def mart_key(instance: str, generation: str, name: str) -> str:
    """Return where a mart is."""
    return f"{_folder(instance, generation)}/{name}.parquet"


def _folder(instance: str, generation: str) -> str:
    return f"joblogs/marts/{instance}/{generation}"


def _content_of(reports: Sequence[ReportRecord]) -> str:
    """Return how a generation of marts of these reports is called; empty for no report."""
    parts = [(each.parser_version, each.name, each.digest) for each in reports]
    return hashlib.sha256(repr((MARTS_VERSION, parts)).encode()).hexdigest()[:32] if parts else ""


def _open_reports(
    connection: duckdb.DuckDBPyConnection, reports: Sequence[ReportRecord], files: Sequence[Path]
) -> None:
    """Let `told` be all rows of these reports, with the report's name, and when it was made."""
    if not files:
        connection.execute(f"CREATE TABLE told ({job_resources.COLUMNS}, generated DOUBLE, report VARCHAR)")
        return
    made = pa.table(
        {
            "file": list(map(str, files)),
            "generated": [each.generated for each in reports],
            "report": [each.name for each in reports],
        }
    )
    connection.register("made", made)
    rows = "SELECT * EXCLUDE file FROM read_parquet($files, filename = 'file') JOIN made USING (file)"
    connection.sql(rows, params={"files": list(map(str, files))}).create_view("told")


def _computed(
    connection: duckdb.DuckDBPyConnection, instance: str, reports: pa.Table
) -> Iterator[tuple[str, duckdb.DuckDBPyRelation]]:
    """Yield the marts of what is told, each to be there by its name before the next is asked for.

    `reports` has a row for each report.
    """
    connection.register("report_rows", reports)
    connection.execute(_LATEST)  # and sorted only then: one of the two at a time needs memory
    for name, query in _QUERIES.items():
        yield name, connection.sql(f"SELECT $instance AS instance, * FROM ({query})", params={"instance": instance})
        if name == JOBS:
            connection.execute("DROP TABLE latest")
