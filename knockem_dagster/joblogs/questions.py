"""What people ask of job logs, each a table over the marts: of one instance, or of all.

Of all, a tool, or a version of it, is shown only where FEWEST_INSTANCES ran it and FEWEST_JOBS are known, a month and a
bin only where they are of so many instances, and nothing is told of a single job, so that nobody's work is.
Memory is in GB (10^9 bytes), times in hours or seconds; what is not known is null, and never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from knockem_dagster.errors import NotFound
from knockem_dagster.joblogs import recommendations
from knockem_dagster.joblogs.marts import JOBS, REPORTS, TOOLS, Marts
from knockem_dagster.records.tables import Column

FEWEST_INSTANCES = 3
FEWEST_JOBS = 20
Cell = str | int | float | None

# How many instances must be behind what is told: one, unless `shown` says otherwise.
_FEWEST_INSTANCES = "coalesce(getvariable('fewest_instances'), 1)"
_FEWEST_JOBS = "coalesce(getvariable('fewest_jobs'), 1)"
_SHORT = "regexp_extract(tool_id, '[^/]+$')"
_JOBS = (
    Column("jobs", "int64", "", "jobs that are over"),
    Column("ok", "int64", "", "jobs that succeeded"),
    Column("errors", "int64", "", "jobs that failed"),
    Column("error_rate", "float64", "", "failed jobs over those that succeeded or failed"),
)
_ERROR_RATE = "errors / nullif(ok + errors, 0) AS error_rate"
_USE = (
    Column("hours", "float64", "h", "how long jobs ran, added up"),
    Column("cpu_hours", "float64", "h", "CPU time of jobs, where it is known, added up"),
    Column("allocated_gb_hours", "float64", "GB h", "memory of jobs whose peak is known, times how long they ran"),
    Column("used_gb_hours", "float64", "GB h", "peak memory of the same jobs, times how long they ran"),
    Column("wasted_gb_hours", "float64", "GB h", "the difference of the two"),
)


def _of_enough(number: str, quantity: str) -> str:
    """Return a number where enough instances know the quantity it is of; null elsewhere."""
    instances = f"count(DISTINCT instance) FILTER ({quantity} IS NOT NULL)"
    return f"CASE WHEN {instances} >= {_FEWEST_INSTANCES} THEN {number} END"


_ALLOCATION = "(memory_allocated + memory_peak + runtime)"


def _gb_hours(memory: str) -> str:
    total = f"sum({memory} * runtime) FILTER ({_ALLOCATION} IS NOT NULL) / 3.6e12"
    return _of_enough(total, _ALLOCATION)


_SUMS = ", ".join(
    [
        *(f"sum({name})::BIGINT AS {name}" for name in ("jobs", "ok", "errors")),
        *(
            f"{_of_enough(f'sum({name})', name)} AS {name}"
            for name in ("hours", "cpu_hours", "allocated_gb_hours", "used_gb_hours")
        ),
    ]
)
_USE_OF = "hours, cpu_hours, allocated_gb_hours, used_gb_hours, allocated_gb_hours - used_gb_hours AS wasted_gb_hours"
_TOOL = (
    Column("tool", "str", "", "the last part of the tool's id"),
    Column("tool_id", "str", "", "the tool's id"),
)
_BIN = (
    Column("low", "float64", "", "where the bin begins"),
    Column("high", "float64", "", "where it ends"),
    Column("jobs", "int64", "", "jobs in it"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A table: its columns in order, and the query that gives them, or, where none does, a function, `compute`.

    `marts`: those that it is answered from. `of_a_tool`: whether it is about one.
    `of_an_instance`: whether it is never told of all together. `compute` gets the tool's id, and whether it is for all.
    `kept`: what is kept of it with an instance's marts, maybe, and a function that finds the tool there.
    """

    name: str
    columns: tuple[Column, ...]
    marts: tuple[str, ...]
    query: str = ""
    of_a_tool: bool = False
    of_an_instance: bool = False
    compute: Callable[[duckdb.DuckDBPyConnection, str, bool], Iterable[tuple[Any, ...]]] | None = None
    kept: tuple[str, Callable[[bytes, str], list[tuple[Any, ...]]]] | None = None


def _histogram(name: str, quantity: str, unit: str) -> Question:
    """Return how a quantity is distributed: in bins of which each is twice as wide as the one before the last."""
    low, high, jobs = _BIN
    return Question(
        name,
        (Column(low.name, low.dtype, unit, low.meaning), Column(high.name, high.dtype, unit, high.meaning), jobs),
        (TOOLS, JOBS),
        f"""
        SELECT 2 ** (place / 2) AS low, 2 ** ((place + 1) / 2) AS high, sum(jobs)::BIGINT AS jobs
        FROM (
            SELECT instance, floor(2 * log2({quantity})) AS place, count(*) AS jobs
            FROM jobs WHERE tool_id = $tool AND {quantity} > 0 GROUP BY ALL
        )
        GROUP BY place HAVING count(*) >= {_FEWEST_INSTANCES} ORDER BY place
        """,
        of_a_tool=True,
    )


QUESTIONS = {
    question.name: question
    for question in (
        Question(
            "months",
            (
                Column("month", "str", "", "of the jobs' creation, UTC"),
                Column("state", "str", "", "in which they ended"),
                Column("jobs", "int64", "", "jobs that are over"),
                Column("hours", "float64", "h", "how long they ran, added up"),
            ),
            ("months",),
            "SELECT strftime(month, '%Y-%m') AS month, state, sum(jobs)::BIGINT AS jobs, "
            f"{_of_enough('sum(hours)', 'hours')} AS hours "
            f"FROM months GROUP BY ALL HAVING count(DISTINCT instance) >= {_FEWEST_INSTANCES} ORDER BY month, state",
        ),
        Question(
            "tools",
            (
                *_TOOL,
                *_JOBS,
                *_USE,
                Column("memory_largest", "float64", "GB", "largest peak memory of a job"),
                Column("last_used", "str", "", "when its last job was created, UTC"),
            ),
            (TOOLS,),
            f"""
            SELECT {_SHORT} AS tool, tool_id, jobs, ok, errors, {_ERROR_RATE}, {_USE_OF}, memory_largest, last_used
            FROM (
                SELECT tool_id, {_SUMS}, max(memory_largest) / 1e9 AS memory_largest, max(last_created) AS last_used
                FROM tools GROUP BY tool_id
            )
            ORDER BY jobs DESC, tool_id
            """,
        ),
        Question(
            "versions",
            (
                Column("tool_version", "str", "", "as the instance tells it; none: others, of all instances together"),
                *_JOBS,
                Column("memory_known", "int64", "", "jobs whose peak memory is known"),
                Column("memory_median", "float64", "GB", "median of their peaks"),
                Column("memory_95", "float64", "GB", "95th percentile of their peaks"),
                Column("memory_largest", "float64", "GB", "largest of their peaks"),
                Column("memory_at_limit", "int64", "", "jobs at their own limit, which may have wanted more"),
                Column("runtime_median", "float64", "s", "median of how long jobs ran"),
                Column("runtime_95", "float64", "s", "95th percentile of how long jobs ran"),
                Column("first_used", "str", "", "when its first job was created, UTC"),
                Column("last_used", "str", "", "when its last job was created, UTC"),
                Column("allocation_known", "int64", "", "jobs of which runtime, given and peak memory are known"),
                Column(
                    "allocated_gb_hours", "float64", "GB h", "memory that these were given, times how long they ran"
                ),
                Column("used_gb_hours", "float64", "GB h", "their peak memory, times how long they ran"),
                Column("used_share", "float64", "", "of what was allocated"),
            ),
            (TOOLS, JOBS),
            f"""
            SELECT
                tool_version, jobs, ok, errors, {_ERROR_RATE}, memory_known, memory[1] AS memory_median,
                memory[2] AS memory_95, memory_largest, memory_at_limit, runtime[1] AS runtime_median,
                runtime[2] AS runtime_95, first_used, last_used, allocation_known, allocated AS allocated_gb_hours,
                used AS used_gb_hours, used / nullif(allocated, 0) AS used_share
            FROM (
                SELECT
                    tool_version, count(*) AS jobs, count(*) FILTER (state = 'ok') AS ok,
                    count(*) FILTER (state = 'error') AS errors, count(memory_peak) AS memory_known,
                    {_of_enough("quantile_cont(memory_peak / 1e9, [0.5, 0.95])", "memory_peak")} AS memory,
                    CASE WHEN {_FEWEST_INSTANCES} = 1 THEN max(memory_peak) / 1e9 END AS memory_largest,
                    count(*) FILTER (is_censored) AS memory_at_limit,
                    {_of_enough("quantile_cont(runtime, [0.5, 0.95])", "runtime")} AS runtime,
                    min(created) AS first_used, max(created) AS last_used,
                    count({_ALLOCATION}) AS allocation_known,
                    {_gb_hours("memory_allocated")} AS allocated,
                    {_gb_hours("memory_peak")} AS used
                FROM jobs WHERE tool_id = $tool GROUP BY tool_version
                HAVING count(DISTINCT instance) >= {_FEWEST_INSTANCES} AND count(*) >= {_FEWEST_JOBS}
            )
            ORDER BY last_used DESC, tool_version
            """,
            of_a_tool=True,
        ),
        Question(
            "reports",
            (
                Column("report", "str", "", "its name"),
                Column("generated", "str", "", "when it was made, UTC"),
                Column("galaxy_version", "str", "", "as the instance tells it"),
                Column("users_active", "int64", "", "users with a job in the time of the report"),
                Column("users_total", "int64", "", "users in all"),
                Column("jobs", "int64", "", "jobs that it tells of, over or not"),
                Column("export_seconds", "float64", "s", "how long making it took"),
            ),
            (REPORTS,),
            "SELECT report, generated, galaxy_version, users_active, users_total, jobs, export_seconds "
            "FROM reports ORDER BY generated, report",
            of_an_instance=True,
        ),
        _histogram("memory", "(memory_peak / 1e9)", "GB"),
        _histogram("runtime", "runtime", "s"),
        Question(
            "recommendations",
            recommendations.COLUMNS,
            (TOOLS, JOBS),
            of_a_tool=True,
            compute=lambda opened, tool, of_all: recommendations.rows(
                recommendations.recommend(opened, tool), is_rough=of_all
            ),
            kept=(recommendations.KEPT_FILE, recommendations.rows_of_tool),
        ),
    )
}
"""By name."""
_IS_KNOWN = "SELECT 1 FROM tools WHERE tool_id = $tool LIMIT 1"
# Views of the same names, found before those of all. What is recommended is of enough instances, too: versions of fewer
# have no name there and count as others, and what fewer know is not known. Where the others are of too few, they are
# left out of everything, or one would find them as the difference.
_SHOWN = f"""
SET VARIABLE fewest_instances = {FEWEST_INSTANCES};
SET VARIABLE fewest_jobs = {FEWEST_JOBS};
CREATE SCHEMA shown;
SET search_path = 'shown,main';
"""
_ARE_ENOUGH = f"count(DISTINCT instance) >= {FEWEST_INSTANCES} AND sum(jobs) >= {FEWEST_JOBS}"
_KNOW = " AND ".join(
    f"count(DISTINCT instance) FILTER ({whether}) NOT BETWEEN 1 AND {FEWEST_INSTANCES - 1}"
    for whether in (
        "has_memory AND memory_known > 0",
        "has_cpu AND cpu_hours >= 0",
        "has_runtime AND runtime_known > 0",
    )
)
_ASKED = "CREATE TABLE shown.asked AS FROM main.tools WHERE NOT $of_a_tool OR tool_id = $tool"
_SHOWN_TOOLS = f"""
CREATE TABLE shown.known AS
    SELECT
        tool_id, {_of_enough("true", "nullif(memory_known, 0)")} AS has_memory,
        {_of_enough("true", "cpu_hours")} AS has_cpu, {_of_enough("true", "nullif(runtime_known, 0)")} AS has_runtime
    FROM shown.asked GROUP BY tool_id HAVING {_ARE_ENOUGH};
CREATE TABLE shown.versions AS
    WITH named AS (
        SELECT tool_id, tool_version, tool_version AS shown_version
        FROM shown.asked JOIN shown.known USING (tool_id)
        GROUP BY tool_id, tool_version HAVING {_ARE_ENOUGH} AND {_KNOW}
    ),
    others AS (
        SELECT * FROM shown.asked JOIN shown.known USING (tool_id) ANTI JOIN named USING (tool_id, tool_version)
    )
    FROM named
    UNION ALL
    SELECT DISTINCT tool_id, tool_version, NULL FROM others
    WHERE tool_id IN (SELECT tool_id FROM others GROUP BY tool_id HAVING {_ARE_ENOUGH} AND {_KNOW});
CREATE VIEW shown.tools AS
    SELECT * REPLACE (NULL::DOUBLE AS memory_largest, date_trunc('month', last_created)::TIMESTAMP AS last_created)
    FROM shown.asked SEMI JOIN shown.versions USING (tool_id, tool_version);
"""
# Sizes are not known unless `has_sizes` is set.
_SHOWN_JOBS = """
CREATE VIEW shown.jobs AS
    SELECT jobs.* REPLACE (
        shown_version AS tool_version, date_trunc('month', created)::TIMESTAMP AS created,
        CASE WHEN has_memory THEN memory_peak END AS memory_peak, CASE WHEN has_cpu THEN cpu END AS cpu,
        CASE WHEN has_runtime THEN runtime END AS runtime,
        CASE WHEN getvariable('has_sizes') THEN input_size END AS input_size
    )
    FROM main.jobs AS jobs JOIN shown.known USING (tool_id) JOIN shown.versions USING (tool_id, tool_version);
"""
_HAS_SIZES = f"""
SET VARIABLE has_sizes = (
    SELECT count(DISTINCT instance) >= {FEWEST_INSTANCES} FROM main.jobs WHERE tool_id = $tool AND input_size >= 0
)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a table, in the order of its columns."""

    question: Question
    rows: tuple[tuple[Cell, ...], ...]


def answer(marts: Marts, name: str, *, instance: str | None = None, tool: str = "") -> Answer:
    """Answer a question about an instance, or, by default, about all; `tool`: which, where it is about one.

    Raises NotFound for a question that is none, or not of all, and a tool that is not to be shown.
    """
    asked = {each.name: each for each in QUESTIONS.values() if instance is not None or not each.of_an_instance}
    question = asked.get(name)
    if question is None:
        whose = "all instances together" if instance is None else "an instance"
        raise NotFound(f"There is no table {name!r} of {whose}: {', '.join(asked)} are.")
    with marts.opened(None if instance is None else [instance], question.marts) as opened:
        if instance is None:
            _show_enough(opened, question, tool)
        if question.of_a_tool and not opened.execute(_IS_KNOWN, {"tool": tool}).fetchall():
            raise NotFound(f"There is no tool {tool!r} of which enough is known.")
        found = [] if instance is None else _kept(marts, question, instance, tool)
        if not found and question.compute is not None:
            found = list(question.compute(opened, tool, instance is None))
        elif not found:
            found = opened.execute(question.query, {"tool": tool} if question.of_a_tool else {}).fetchall()
    return Answer(question, tuple(tuple(map(_cell, row)) for row in found))


def _show_enough(opened: duckdb.DuckDBPyConnection, question: Question, tool: str) -> None:
    """Let the marts of a question hold what is shown of all instances, and no more."""
    opened.execute(_SHOWN)
    if TOOLS in question.marts:
        opened.execute(_ASKED, {"of_a_tool": question.of_a_tool, "tool": tool})
        opened.execute(_SHOWN_TOOLS)
    if JOBS in question.marts:
        opened.execute(_SHOWN_JOBS)
    if question.compute is not None:  # nothing else is told of sizes
        opened.execute(_HAS_SIZES, {"tool": tool})


def _kept(marts: Marts, question: Question, instance: str, tool: str) -> list[tuple[Any, ...]]:
    """Return the rows that are kept with the marts of an instance; none where no run has been there since."""
    if question.kept is None:
        return []
    name, of_tool = question.kept
    try:
        return of_tool(marts.kept(instance, name), tool)
    except NotFound:
        return []


def _cell(value: Any) -> Cell:
    return value.isoformat() if isinstance(value, datetime) else value
