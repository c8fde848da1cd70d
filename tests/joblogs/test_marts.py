"""The marts: known jobs by hand, each job once, and nothing half done seen by readers."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.errors import StoreError
from knockem_dagster.joblogs import job_resources
from knockem_dagster.joblogs import ledger as ledgers
from knockem_dagster.joblogs.instances import local_instance, view_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import TABLES, Marts, mart_key
from knockem_dagster.joblogs.members import LONGEST_NAME
from knockem_dagster.joblogs.report import PARSER_VERSION
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import InstanceRecord, MartsRecord, ReportRecord
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects
from tests.services.job_play import record_in
from tests.services.joblogs import REAL, report_of, table

AS_TOLD = """
    SELECT
        id, tool_id::VARCHAR AS tool_id, tool_version::VARCHAR AS tool_version, state::VARCHAR AS state,
        make_timestamp(epoch_us(create_time)) AS created, 1.0 AS cores, 1.0 AS runtime, 1.0 AS cpu,
        1.0 AS memory_allocated, 1.0 AS memory_peak, 1.0 AS memory_limit, false AS is_censored, 1.0 AS input_size
    FROM jobs
"""
"""The jobs of a report with the ids of tools as they are told."""


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        for name in ("i", "j", *map(str, range(10))):
            opened.records.job_log_instances.add(InstanceRecord(id=name, name=name))
        yield opened


@pytest.fixture
def marts(platform: Platform) -> Marts:
    return Marts(platform.records, platform.objects)


def jobs_of(*rows: tuple[object, ...]) -> dict[str, bytes]:
    return {"jobs": table("jobs", rows)}


def job(id: int, *, tool: str = "cat", state: str = "ok", created: str = "2026-01-01 00:00:00") -> tuple[object, ...]:
    return id, tool, "1.0", state, created


def receive(
    platform: Platform, folder: Path, members: dict[str, bytes], *, name: str = "1", instance: str = "i", **said: Any
) -> None:
    report = report_of(folder, members, **said)
    metadata = report.metadata.model_dump_json(by_alias=True).encode()
    Ledger(platform.records, platform.objects).receive(instance, name, report.archive, metadata)


def rows(marts: Marts, query: str, *instances: str) -> list[tuple[Any, ...]]:
    with marts.opened(instances or None) as opened:
        return opened.sql(query).fetchall()


def test_without_any_report_all_marts_are_empty(marts: Marts) -> None:
    marts.refresh("i")
    assert marts.is_current("i")
    for name in TABLES:
        assert rows(marts, f"SELECT count(*) FROM {name}") == [(0,)]


def test_jobs_known_by_hand(platform: Platform, marts: Marts) -> None:
    for archive in REAL:
        instance = local_instance(platform.records, archive.parents[1].name)
        metadata = archive.with_name("0.json").read_bytes()
        Ledger(platform.records, platform.objects).receive(instance.id, "0", archive, metadata)
        marts.refresh(instance.id)
    found = {
        (instance[:4], id): rest
        for instance, id, *rest in rows(
            marts,
            "SELECT instance, id, cores, runtime, round(cpu, 6), memory_allocated, memory_peak, memory_limit, "
            "input_size FROM jobs",
        )
    }
    gib = 1024**3
    assert found["2682", 5] == [1, 74, 54.544217, 8 * gib, 3308558380, 8 * gib, 97000], "cgroup of version 1"
    assert found["2682", 12] == [8, 476, 1654.577505, 8 * gib, 6514615735, 8 * gib, 1126000000]
    assert found["2682", 7] == [1, 2, 1.454629, gib / 2, 22861138, None, 9400], "cgroup of version 2"
    assert found["2682", 10] == [4, 22, 38.369617, 2 * gib, 795792790, None, None], (
        "one of its inputs is of unknown size"
    )
    assert found["a8fe", 1] == [1, 4, None, None, None, None, None], "no cgroup: unknown, and not 0"
    assert rows(marts, "SELECT sum(jobs), sum(errors) FROM tools") == [(1940 + 98, 168 + 22)]
    assert rows(marts, "SELECT sum(jobs) FROM months") == rows(marts, "SELECT sum(jobs) FROM tool_months") == [(2038,)]
    assert rows(marts, "SELECT count(*) FROM jobs", "a8fe6488-b87f-55ae-ae9e-2d2764db2977") == [(98,)]


def test_of_an_instance_each_job_counts_once(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    for name in ("a", "b"):
        receive(
            platform, tmp_path, jobs_of(job(1), job(2, created=f"2026-01-0{'ab'.index(name) + 1} 00:00:00")), name=name
        )
    marts.refresh("i")
    instance = platform.records.job_log_instances.get("i")
    assert view_instance(platform.records, instance).jobs == 2
    receive(platform, tmp_path, jobs_of(job(3), job(4, state="running")), name="c")
    marts.refresh("i")
    assert view_instance(platform.records, instance).jobs == 3


def test_texts_that_are_as_long_as_may_be_need_little_memory(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    number, generator = 100_000, random.Random(1)
    tools = (generator.randbytes(20).hex().ljust(LONGEST_NAME, "x") for _ in range(number))
    receive(platform, tmp_path, jobs_of(*(job(id, tool=tool) for id, tool in enumerate(tools))))
    marts.refresh("i")
    assert rows(marts, "SELECT count(DISTINCT tool_id) FROM jobs") == [(number,)]


def test_only_what_is_asked_of_is_opened(marts: Marts, platform: Platform, tmp_path: Path) -> None:
    receive(platform, tmp_path, jobs_of(job(1)))
    marts.refresh("i")
    with marts.opened(["i"], ["months"]) as opened:
        assert opened.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall() == [("months",)]


def test_reports_as_their_instance_tells_of_them(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    times = {"_times": [["init", 0.5], ["job_finish", 7]]}
    receive(platform, tmp_path, jobs_of(job(1), job(2, state="running")), name="b", generated="0.25", metrics=times)
    receive(platform, tmp_path, jobs_of(job(3)), name="a", users=None, metrics={"_times": "soon"})
    marts.refresh("i")
    columns = "instance, report, epoch(generated), users_active, users_total, jobs, export_seconds, timings"
    assert rows(marts, f"SELECT {columns} FROM reports ORDER BY generated") == [
        ("i", "b", 0.25, 1, 2, 2, 7, {"init": 0.5, "job_finish": 7}),
        ("i", "a", 1795212662.5, None, None, 1, None, {}),
    ]


def test_of_a_job_told_of_twice_the_latest_report_is_right(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    receive(platform, tmp_path, jobs_of(job(1, state="error"), job(2)), name="late", generated="300")
    receive(platform, tmp_path, jobs_of(job(1), job(3)), name="early", generated="200")
    marts.refresh("i")
    assert rows(marts, "SELECT id, state FROM jobs ORDER BY id") == [(1, "error"), (2, "ok"), (3, "ok")]
    assert rows(marts, "SELECT jobs, ok, errors FROM tools") == [(3, 2, 1)]


def test_jobs_that_may_yet_change_are_not_counted(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    receive(platform, tmp_path, jobs_of(job(1), job(2, state="running"), job(3, state="queued")))
    marts.refresh("i")
    assert rows(marts, "SELECT id FROM jobs") == [(1,)]


def test_a_peak_at_its_limit_says_only_that_it_wanted_as_much(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    limits = {1: (100, 100, 0), 2: (100, 50, 0), 3: (100, 50, 1), 4: (1 << 63, 100, 0)}
    metrics = [
        (id, "cgroup", name, value)
        for id, values in limits.items()
        for name, value in zip(
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt"), values, strict=True
        )
    ]
    receive(platform, tmp_path, {**jobs_of(*map(job, limits)), "metric_num": table("metric_num", metrics)})
    marts.refresh("i")
    found = rows(marts, "SELECT memory_limit, is_censored FROM jobs ORDER BY id")
    assert found == [(100, True), (100, False), (100, True), (None, False)]


def test_a_tool_of_a_tool_shed_is_one_in_all_its_versions(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    shed = "toolshed.g2.bx.psu.edu/repos/iuc/hisat2/hisat2"
    told = [
        (f"{shed}/2.2.1+galaxy1", "2.2.1+galaxy1", shed, "2.2.1+galaxy1"),
        (f"{shed}/2.1.0+galaxy5", "2.1.0+galaxy5", shed, "2.1.0+galaxy5"),
        (f"{shed}/2.2.0", "", shed, "2.2.0"),
        (shed, "1.0", shed, "1.0"),
        (f"{shed}/2.2.1", "1.0.0", f"{shed}/2.2.1", "1.0.0"),
        ("localhost:9009/repos/me/cat/cat/1.0", "1.0", "localhost:9009/repos/me/cat/cat", "1.0"),
        ("Cut1", "1.0.2", "Cut1", "1.0.2"),
        ("a/b/c/d/e/1.0", "1.0", "a/b/c/d/e/1.0", "1.0"),
        ("Cut1", "", "Cut1", ""),
    ]
    given = [(id, tool, version, "ok", "2026-01-01 00:00:00") for id, (tool, version, *_) in enumerate(told)]
    receive(platform, tmp_path, jobs_of(*given))
    marts.refresh("i")
    assert rows(marts, "SELECT tool_id, tool_version FROM jobs ORDER BY id") == [tuple(each[2:]) for each in told]
    assert rows(marts, f"SELECT count(*), sum(jobs) FROM tools WHERE tool_id = '{shed}'") == [(4, 4)]


def test_what_an_earlier_parser_read_is_read_and_computed_anew(
    platform: Platform, marts: Marts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(platform, tmp_path, jobs_of(job(1, tool="t.org/repos/o/r/cat/1.0")))
    with monkeypatch.context() as earlier:
        earlier.setattr(ledgers, "PARSER_VERSION", "3")
        earlier.setattr(job_resources, "_JOB_RESOURCES", AS_TOLD)
        marts.refresh("i")
    assert rows(marts, "SELECT tool_id FROM tools") == [("t.org/repos/o/r/cat/1.0",)]
    assert not marts.is_current("i")
    marts.refresh("i")
    assert rows(marts, "SELECT tool_id, jobs FROM tools") == [("t.org/repos/o/r/cat", 1)]


def test_wasted_is_what_the_same_jobs_had_and_did_not_use(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    mib, hour = 1 << 20, 3600
    metrics = [(id, "core", "runtime_seconds", hour) for id in (1, 2, 3, 4)]
    metrics += [(id, "core", "galaxy_memory_mb", 1000) for id in (1, 2, 3, 5)]
    metrics += [(id, "cgroup", "memory.peak", 900 * mib) for id in (1, 4, 5)]  # 5 ran for nobody knows how long
    receive(platform, tmp_path, {**jobs_of(*map(job, range(1, 6))), "metric_num": table("metric_num", metrics)})
    marts.refresh("i")
    for name in ("tools", "tool_months", "months"):
        [found] = rows(marts, f"SELECT hours, allocated_gb_hours, used_gb_hours FROM {name}")
        assert found == pytest.approx((4, 1000 * mib / 1e9, 900 * mib / 1e9)), name


def test_refreshing_again_changes_nothing_and_a_new_report_takes_the_place(
    platform: Platform, marts: Marts, tmp_path: Path
) -> None:
    receive(platform, tmp_path, jobs_of(job(1)))
    assert not marts.is_current("i")
    marts.refresh("i")
    first = marts.in_use()["i"]
    marts.refresh("i")
    assert marts.in_use() == {"i": first} and marts.is_current("i")
    receive(platform, tmp_path, jobs_of(job(2)), name="2")
    marts.refresh("i")
    assert marts.in_use()["i"] != first
    assert rows(marts, "SELECT id FROM jobs ORDER BY id") == [(1,), (2,)]
    assert marts.sweep() == 0, "somebody may be reading"
    assert marts.sweep(older=timedelta(0)) == 1
    assert not platform.objects.exists(mart_key("i", first, "jobs"))
    assert marts.sweep(older=timedelta(0)) == 0
    assert rows(marts, "SELECT id FROM jobs ORDER BY id") == [(1,), (2,)]


def test_readers_see_the_old_or_the_new_totals_and_nothing_else(
    platform: Platform, marts: Marts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(platform, tmp_path, jobs_of(*(job(id) for id in range(100))))
    receive(platform, tmp_path, jobs_of(*(job(id) for id in range(100, 150))), name="2")
    marts.refresh("i")
    receive(platform, tmp_path, jobs_of(*(job(id) for id in range(150, 157))), name="3")
    seen: set[int] = set()
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            [(number,)] = rows(marts, "SELECT sum(jobs) FROM tools")
            seen.add(number)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in ("a", "b", "c"):
            monkeypatch.setattr(ledgers, "PARSER_VERSION", version)
            marts.refresh("i")
    finally:
        is_over.set()
        reader.join()
    assert seen <= {150, 157} and 157 in seen
    assert {report.parser_version for report in platform.records.job_log_reports.find({})} == {"c"}
    assert tables_of(platform) == {PARSER_VERSION, "a", "b", "c"}, "somebody may be reading them"
    marts.sweep(older=timedelta(0))
    assert tables_of(platform) == {"c"}


def test_tables_are_swept_that_another_parser_read_until_it_died(
    platform: Platform, marts: Marts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2"):
        receive(platform, tmp_path, jobs_of(job(int(name))), name=name)
    marts.refresh("i")
    read = Ledger.read

    def once(ledger: Ledger, report: ReportRecord) -> ReportRecord:
        if report.name == "2":
            raise KeyboardInterrupt
        return read(ledger, report)

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(ledgers, "PARSER_VERSION", "a")
        dying.setattr(Ledger, "read", once)
        marts.refresh("i")
    assert tables_of(platform) == {PARSER_VERSION, "a"}
    marts.refresh("i")
    assert marts.sweep() == 0, "somebody may be at it"
    marts.sweep(older=timedelta(0))
    assert tables_of(platform) == {PARSER_VERSION}
    assert rows(marts, "SELECT sum(jobs) FROM tools") == [(2,)]


def tables_of(platform: Platform) -> set[str]:
    """By which parsers the tables were read that are there."""
    return {stored.key.split("/")[2] for stored in platform.objects.list("joblogs/lake")}


def test_all_can_be_computed_again_from_the_archives(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    receive(platform, tmp_path, jobs_of(job(1), job(2)))
    marts.refresh("i")
    before = marts.in_use()
    for stored in list(platform.objects.list("joblogs/lake")):
        platform.objects.delete(stored.key)
    Ledger(platform.records, platform.objects).read_all("i", again=True)
    marts.refresh("i", again=True)
    assert marts.in_use() != before and marts.is_current("i")
    assert rows(marts, "SELECT sum(jobs) FROM tools") == [(2,)]
    after = marts.in_use()
    marts.refresh("i")
    assert marts.in_use() == after


def test_two_refresh_at_once_as_one_does(platform: Platform, marts: Marts, tmp_path: Path) -> None:
    for name in range(6):
        receive(platform, tmp_path, jobs_of(job(name), job(100)), name=str(name), generated=str(name + 1))
    others = [threading.Thread(target=marts.refresh, args=["i"]) for _ in range(3)]
    for each in others:
        each.start()
    for each in others:
        each.join()
    assert marts.is_current("i")
    assert rows(marts, "SELECT sum(jobs) FROM tools") == [(7,)]


@pytest.mark.parametrize("at", range(1, len(TABLES) + 2))
def test_what_somebody_built_who_died_is_swept(
    platform: Platform, marts: Marts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    receive(platform, tmp_path, jobs_of(job(1)))
    marts.refresh("i")
    left, put, patch = at, Objects.put, platform.records.job_log_marts.patch

    def until_then(self: Objects, *given: Any, **more: Any) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            raise StoreError("it died")
        return put(self, *given, **more)

    def not_in_use(id: str, change: Patch) -> MartsRecord | None:
        if any(name.startswith("inUse") for name in change.set):
            raise StoreError("it died when all was there")
        return patch(id, change)

    with monkeypatch.context() as dying, pytest.raises(StoreError, match="it died"):
        dying.setattr(Objects, "put", until_then)
        dying.setattr(platform.records.job_log_marts, "patch", not_in_use)
        marts.refresh("i", again=True)
    assert marts.sweep() == 0, "somebody may yet put it in use"
    marts.sweep(older=timedelta(0))
    stored = {entry.key for entry in platform.objects.list("joblogs/marts")}
    assert stored == {mart_key("i", marts.in_use()["i"], name) for name in TABLES}
    assert rows(marts, "SELECT sum(jobs) FROM tools") == [(1,)]


def test_who_dies_amid_refreshing_is_followed_by_whoever_comes_next(
    platform: Platform, marts: Marts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(platform, tmp_path, jobs_of(job(1)))
    marts.refresh("i")
    receive(platform, tmp_path, jobs_of(job(2), job(3)), name="2")
    put = Objects.put

    last = 0
    for last in range(1, 12):
        left = last

        def until_then(self: Objects, *given: Any, **more: Any) -> bool:
            nonlocal left
            left -= 1
            if left == 0:
                raise StoreError("it died")
            return put(self, *given, **more)

        monkeypatch.setattr(Objects, "put", until_then)
        try:
            marts.refresh("i")
        except StoreError:
            assert rows(marts, "SELECT sum(jobs) FROM tools") == [(1,)]
            assert not marts.is_current("i")
        else:
            break
        finally:
            monkeypatch.setattr(Objects, "put", put)
    assert last > len(TABLES)
    assert rows(marts, "SELECT sum(jobs) FROM tools") == [(3,)]
