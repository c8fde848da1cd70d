"""What is recommended for the tools of the real archive, and what is never told."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
import pytest

from knockem_dagster.joblogs import recommendations
from knockem_dagster.joblogs.job_resources import COLUMNS
from knockem_dagster.joblogs.recommendations import Recommendation, as_file, recommend, rows, rows_of_tool
from knockem_dagster.joblogs.sizing.chosen import FEWEST, MOST

_JOB = (
    "({id}, '{tool}', '{version}', '{state}', TIMESTAMP '2026-01-01' + INTERVAL ({id}) HOUR, 4, {runtime}, {cpu}, 8e9, "
    "{peak}, {limit}, {censored}, {size})"
)
_NAMES = [column.name for column in recommendations.COLUMNS]


def opened(*jobs: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE jobs ({COLUMNS})")
    if jobs:
        connection.execute(f"INSERT INTO jobs VALUES {', '.join(jobs)}")
    return connection


def job(id: int, **said: object) -> str:
    usual = {"tool": "t", "version": "1", "state": "ok", "runtime": 100, "cpu": 150, "peak": 1e9 + id, "limit": 8e9}
    return _JOB.format(**{"id": id, "censored": "false", "size": 1e6, **usual, **said})


def told(each: Recommendation) -> dict[str, str | int | float | None]:
    [row] = rows([each])
    return dict(zip(_NAMES, row, strict=True))


def only(found: list[Recommendation]) -> Recommendation:
    """Return what is recommended for a tool of one version; the same, with the version, follows."""
    whole, version = found
    assert (whole.tool_version, version.tool_version) == ("", "1")
    return whole


def test_below_twenty_finished_jobs_nothing_is_recommended() -> None:
    few = only(recommend(opened(*(job(id) for id in range(FEWEST - 1)), job(99, state="error"))))
    assert few.is_too_few and (few.memory, few.runtime, few.cores, few.failed_tries) == (None, None, None, None)
    row = told(few)
    assert row["verdict"] == "too few" and row["jobs"] == FEWEST - 1
    assert all(row[name] is None for name in ("cores", "memory", "memory_rule", "runtime", "failed_tries", "next_try"))
    assert row["memory_at_limit"] is None
    enough = only(recommend(opened(*(job(id) for id in range(FEWEST)))))
    assert not enough.is_too_few and enough.memory is not None and enough.runtime is not None
    assert enough.memory.rule.base == pytest.approx(1e9, rel=0.2) and enough.cores == 2
    assert (enough.first.isoformat(), enough.last.isoformat()) == ("2026-01-01T00:00:00", "2026-01-01T19:00:00")


def test_what_is_unknown_is_told_as_unknown_and_never_as_zero() -> None:
    unknown = only(recommend(opened(*(job(id, peak="NULL", cpu="NULL", size="NULL") for id in range(40)))))
    assert (unknown.memory, unknown.cores, unknown.memory_jobs) == (None, None, 0)
    assert unknown.runtime is not None and unknown.runtime.base == 100
    row = told(unknown)
    assert row["memory"] is None and row["memory_at_limit"] is None and row["runtime"] == 100


def test_jobs_at_their_limit_are_counted_and_the_rule_goes_beyond() -> None:
    below = [job(id, peak=7e9) for id in range(30)]
    jobs = [*below, *(job(id, peak=8e9, state="error", censored=True) for id in range(30, 40))]
    found = only(recommend(opened(*jobs)))
    assert found.jobs == 30 and found.memory_jobs == 40 and found.at_limit == 0.25
    assert found.memory is not None and found.memory.rule.base > 7e9


def test_each_version_has_its_own_and_cores_are_those_that_jobs_used() -> None:
    jobs = [job(id, version="1", peak=1e9, cpu=95) for id in range(0, 60, 2)]
    jobs += [job(id, version="2", peak=5e9, cpu=390) for id in range(1, 60, 2)]
    whole, first, second = recommend(opened(*jobs))
    assert [each.tool_version for each in (whole, first, second)] == ["", "1", "2"]
    assert first.memory is not None and second.memory is not None
    assert first.memory.rule.base < 2e9 and second.memory.rule.base >= 5e9
    assert (first.cores, second.cores, whole.cores) == (1, 4, 4)


def test_a_version_is_not_all_where_others_have_no_name() -> None:
    jobs = [job(id, peak=1e9) for id in range(30)]
    found = opened(*jobs, *(job(id, peak=4e9) for id in range(30, 90)))
    found.execute("UPDATE jobs SET tool_version = NULL WHERE memory_peak > 2e9")
    whole, version = recommend(found)
    assert (whole.tool_version, whole.jobs, version.tool_version, version.jobs) == ("", 90, "1", 30)
    assert whole.memory is not None and version.memory is not None
    assert whole.memory.rule.base > 2 * version.memory.rule.base


def test_who_used_more_cores_than_were_given_is_recommended_what_was_used() -> None:
    assert only(recommend(opened(*(job(id, cpu=750) for id in range(30))))).cores == 8


def test_jobs_that_hardly_need_memory_are_given_some() -> None:
    found = only(recommend(opened(*(job(id, peak=500) for id in range(30)))))
    assert found.memory is not None and found.memory.rule.base >= 16 << 20


def test_times_of_two_close_sizes_are_no_law() -> None:
    found = only(
        recommend(opened(*(job(id, size=9.9e5 if id % 2 else 1e6, runtime=60 + id % 2 * 30) for id in range(60))))
    )
    assert told(found)["runtime"] == 90


def test_what_is_told_of_the_jobs_is_of_the_latest_only() -> None:
    versions = [job(id, version=str(id % 2)) for id in range(2 * MOST)]
    whole, *_ = recommend(opened(*versions))
    assert whole.jobs == MOST and whole.first == datetime(2026, 1, 1) + timedelta(hours=MOST)


def test_only_the_tool_that_was_asked_for() -> None:
    found = recommend(opened(*(job(id, tool="a" if id % 2 else "b") for id in range(50))), "b")
    assert {each.tool_id for each in found} == {"b"}
    assert recommend(opened(), "b") == [] == recommend(opened())


@pytest.mark.parametrize(("runtime", "cpu"), [("1e-308", 1e5), (20, 1e20)])
def test_clocks_that_were_wrong_give_no_number_that_is_none(runtime: object, cpu: float) -> None:
    found = recommend(opened(*(job(id, runtime=runtime, cpu=cpu) for id in range(60))))
    assert only(found).cores == 1 << 20
    assert len(rows_of_tool(as_file(found), "t")) == 2


def test_roughly_nothing_is_told_that_only_one_job_gives() -> None:
    jobs = [job(id, size=1e8 * (1 + id * 37 % 100), peak=1.2345e8 * (1 + id * 37 % 100)) for id in range(100)]
    found = only(recommend(opened(*jobs)))
    exact, rough = (dict(zip(_NAMES, next(rows([found], is_rough=each)), strict=True)) for each in (False, True))
    assert " to " in str(exact["memory_rule"]) and " to " not in str(rough["memory_rule"])
    assert rough["memory"] == float(f"{exact['memory']:.2g}") != exact["memory"]
