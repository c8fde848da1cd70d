"""What a tool's jobs should be given: cores, memory by the size of their inputs, and time, from what they used.

Of each tool with all its versions, and of each version. Where fewer than FEWEST jobs succeeded, only that is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, groupby

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from knockem_dagster.joblogs.sizing.chosen import FEWEST, MOST, Chosen, bound, chosen
from knockem_dagster.joblogs.sizing.history import Floats, History
from knockem_dagster.joblogs.sizing.rule import Rule
from knockem_dagster.records.tables import Column

ENOUGH = 0.99
"""Share of jobs that the recommended time is enough for."""
TOO_FEW = "too few"
_SHORT = 10.0
"""Seconds: the CPU time of jobs that ran less tells little of the cores they used."""
_CORES_OF = 0.95
"""Share of jobs that the recommended cores are enough for."""
_LEAST_MEMORY = 16.0 * (1 << 20)
"""Bytes that a job is taken to need: schedulers count in MiB, and to some none is all there is."""
_MOST_CORES = 1 << 20
"""More are not what jobs used, but a clock that was wrong."""
_ALL = 0.8
"""Of the cores they were given: who used so many would use more."""
# The latest of each version; as a window they would take half as long again.
_JOBS = f"""
WITH latest AS (
    SELECT tool_id, tool_version, unnest(max_by(
        {{created: created, id: id, input_size: input_size, memory_peak: memory_peak, runtime: runtime, cpu: cpu,
          cores: cores, is_ok: state = 'ok', is_censored: is_censored}}, (created, id), {MOST}
    ), recursive := true)
    FROM jobs
    WHERE (state = 'ok' OR is_censored) AND tool_id BETWEEN $first AND $last
    GROUP BY tool_id, tool_version
)
SELECT * EXCLUDE id FROM latest ORDER BY tool_id, created, id
"""
_AT_A_TIME = 200_000
"""Jobs of several tools, or of one that has more."""

COLUMNS = (
    Column("tool_version", "str", "", "as the instance tells it; empty: of all versions"),
    Column("jobs", "int64", "", "latest jobs that succeeded"),
    Column("first_used", "str", "", "when the first of these was created, UTC"),
    Column("last_used", "str", "", "when the last of these was created, UTC"),
    Column("verdict", "str", "", f"{TOO_FEW!r} where they are fewer than {FEWEST}: then nothing is recommended"),
    Column("cores", "int64", "", f"enough for {_CORES_OF:.0%} of them"),
    Column("memory", "float64", "GB", "for inputs of the median size"),
    Column("memory_rule", "str", "GB", "for inputs of any size, in GB"),
    Column("next_try", "float64", "", "how many times as much a second try should be given"),
    Column("memory_known", "int64", "", "jobs whose peak memory is known"),
    Column("memory_at_limit", "float64", "", "share of them at their own limit, which may have wanted more"),
    Column("failed_tries", "float64", "", "expected in 100 jobs"),
    Column("runtime", "float64", "s", f"enough for {ENOUGH:.0%} of them, for inputs of the median size"),
    Column("runtime_rule", "str", "s", "for inputs of any size, in GB"),
)
"""Of what is recommended, as a table."""
KEPT_FILE = "recommendations.parquet"
"""How such a table of all tools is called that is kept with an instance's marts."""
_ARROW_TYPES = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
_KEPT = pa.schema([("tool_id", pa.string()), *((column.name, _ARROW_TYPES[column.dtype]) for column in COLUMNS)])


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What is recommended for a tool's version, or, without one, for all; sizes in bytes, times in seconds.

    `memory`, `runtime` and `cores` are None where too little is known. `typical_size` is NaN where no size is.
    """

    tool_id: str
    tool_version: str
    jobs: int
    first: datetime
    last: datetime
    typical_size: float
    memory_jobs: int
    at_limit: float
    memory: Chosen | None
    runtime: Rule | None
    cores: int | None

    @property
    def is_too_few(self) -> bool:
        """Whether nothing can be recommended."""
        return self.jobs < FEWEST

    @property
    def failed_tries(self) -> float | None:
        """Return how many are expected in 100 jobs: as many as there were in jobs that were not fitted to."""
        return None if self.memory is None else 100 * self.memory.cost.failed_tries / self.memory.cost.jobs


def recommend(opened: duckdb.DuckDBPyConnection, tool: str = "") -> list[Recommendation]:
    """Return what is recommended for a tool, or for all, from the marts; a tool before its versions."""
    recommended: list[Recommendation] = []
    for tool_id, jobs in _jobs_by_tool(opened, tool):
        whole = _recommend(tool_id, "", jobs)
        versions = list(jobs.groupby("tool_version", sort=True))
        recommended.append(whole)
        if len(versions) == 1 and len(versions[0][1]) == len(jobs):  # else others have no name here
            recommended.append(replace(whole, tool_version=str(versions[0][0])))
        else:
            recommended += [_recommend(tool_id, str(version), own) for version, own in versions]
    return [each for each in recommended if each.jobs]


def _jobs_by_tool(opened: duckdb.DuckDBPyConnection, tool: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the latest jobs of a tool, or of each: the marts are sorted by tool, and read some tools at a time."""
    counted = "SELECT tool_id, count(*) FROM jobs GROUP BY tool_id ORDER BY tool_id"
    number = {tool: 0} if tool else dict(opened.execute(counted).fetchall())
    ends = zip(number, accumulate(number.values()), strict=True)
    for _, batch in groupby(ends, key=lambda each: each[1] // _AT_A_TIME):
        ids = [id for id, _ in batch]
        found = opened.execute(_JOBS, {"first": ids[0], "last": ids[-1]}).df()
        for tool_id, jobs in found.groupby("tool_id", sort=True):
            yield str(tool_id), jobs


def rows(
    recommended: Iterable[Recommendation], *, is_rough: bool = False
) -> Iterator[tuple[str | int | float | None, ...]]:
    """Yield a row for each, as COLUMNS say; `is_rough`: with two digits, and no limits: single jobs may give them."""

    def told(number: float) -> float:
        return float(f"{number:.2g}") if is_rough else number

    for each in recommended:
        size = each.typical_size
        memory = None if each.memory is None else each.memory.rule
        yield (
            each.tool_version,
            each.jobs,
            each.first.isoformat(),
            each.last.isoformat(),
            TOO_FEW if each.is_too_few else "",
            each.cores,
            None if memory is None else told(_at(memory, size) / 1e9),
            None if memory is None else described(memory, unit=1e9, is_rough=is_rough),
            None if memory is None else told(memory.growth),
            each.memory_jobs,
            None if each.is_too_few or not each.memory_jobs else each.at_limit,
            each.failed_tries,
            None if each.runtime is None else told(_at(each.runtime, size)),
            None if each.runtime is None else described(each.runtime, unit=1.0, is_rough=is_rough),
        )


def as_file(recommended: Sequence[Recommendation]) -> bytes:
    """Return the rows of all as a Parquet file, of which `rows_of_tool` finds those of a tool."""
    told = [
        dict(zip(_KEPT.names, (each.tool_id, *row), strict=True))
        for each, row in zip(recommended, rows(recommended), strict=True)
    ]
    written = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(told, schema=_KEPT), written, compression="zstd")
    return written.getvalue().to_pybytes()


def rows_of_tool(file: bytes, tool: str) -> list[tuple[str | int | float | None, ...]]:
    """Return the rows of a tool, as COLUMNS say; none where nothing is recommended for it."""
    found = parquet.read_table(pa.BufferReader(file), filters=[("tool_id", "=", tool)])
    return [tuple(row.values()) for row in found.drop_columns("tool_id").to_pylist()]


def described(rule: Rule, *, unit: float, is_rough: bool = False) -> str:
    """Return a rule in words, for sizes in GB."""

    def told(number: float) -> str:
        return f"{number / unit:.2g}" if is_rough else f"{number / unit:.3g}"

    if not rule.depends_on_size:
        return told(max(rule.base, rule.least))
    factor = f"{told(rule.factor * 1e9**rule.power)} × size"
    power = "" if rule.power == 1 else f"^{rule.power:.2g}"
    base = f"{told(rule.base)} + " if rule.base else ""
    limits = "" if is_rough else f", {told(rule.least)} to {told(rule.most)}"
    return f"{base}{factor}{power}{limits}; {told(rule.otherwise)} if the size is unknown"


def _recommend(tool_id: str, tool_version: str, jobs: pd.DataFrame) -> Recommendation:
    jobs = jobs.iloc[-MOST:]
    ok = jobs["is_ok"].to_numpy(bool)
    memory, runtime = _floats(jobs, "memory_peak"), _floats(jobs, "runtime")
    sizes, is_censored = _floats(jobs, "input_size"), jobs["is_censored"].to_numpy(bool)
    is_known = (memory > 0) & (runtime >= 0)
    history = History(sizes, np.maximum(memory, _LEAST_MEMORY), runtime, is_censored).of(is_known)
    timed = ok & (runtime > 0)
    created = jobs["created"][ok]
    return Recommendation(
        tool_id=tool_id,
        tool_version=tool_version,
        jobs=int(ok.sum()),
        first=(created if len(created) else jobs["created"]).min().to_pydatetime(),
        last=(created if len(created) else jobs["created"]).max().to_pydatetime(),
        typical_size=float(np.nanmedian(sizes)) if (~np.isnan(sizes)).any() else float("nan"),
        memory_jobs=len(history),
        at_limit=float(history.is_censored.mean()) if len(history) else 0.0,
        memory=chosen(history) if (ok & is_known & ~is_censored).sum() >= FEWEST else None,
        runtime=bound(sizes[timed], runtime[timed], ENOUGH) if timed.sum() >= FEWEST else None,
        cores=_cores(jobs[ok]),
    )


def _cores(jobs: pd.DataFrame) -> int | None:
    """Return so many cores as nearly all of these jobs used on average; None where too few tell."""
    cpu, runtime, given = (_floats(jobs, name) for name in ("cpu", "runtime", "cores"))
    is_known = (cpu >= 0) & (runtime > 0)
    if is_known.sum() < FEWEST:
        return None
    is_long = is_known & (runtime >= _SHORT)
    if is_long.sum() >= FEWEST:
        used = float(np.quantile(cpu[is_long] / runtime[is_long], _CORES_OF))
    else:
        used = float(cpu[is_known].sum()) / float(runtime[is_known].sum())
    common = float(np.nanmedian(given[is_known])) if (~np.isnan(given[is_known])).any() else float("nan")
    wanted = max(used, common) if used >= _ALL * common else used
    return int(np.clip(np.ceil(wanted), 1, _MOST_CORES))


def _floats(jobs: pd.DataFrame, name: str) -> Floats:
    return jobs[name].to_numpy(dtype=float, na_value=np.nan)


def _at(rule: Rule, size: float) -> float:
    return float(rule.of(np.array([size]))[0])
