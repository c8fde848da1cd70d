"""What is asked of job logs: known answers of a real archive, and what is not told of all instances together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from knockem_dagster.errors import NotFound
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.questions import QUESTIONS, Cell, answer
from knockem_dagster.joblogs.recommendations import KEPT_FILE, as_file, recommend
from knockem_dagster.platform import Platform
from tests.services.job_play import record_in
from tests.services.joblogs import REAL, report_of, table

OLD, NEW = REAL if REAL[0].parents[1].name.startswith("a8fe") else REAL[::-1]
_GIVEN = {"galaxy_memory_mb": 2048, "runtime_seconds": 3600}
HISAT = "toolshed.g2.bx.psu.edu/repos/iuc/hisat2/hisat2"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Give a platform with both real archives."""
    with record_in(tmp_path_factory.mktemp("home")) as opened:
        for archive in REAL:
            send(opened, archive, archive.with_name("0.json").read_bytes(), instance=archive.parents[1].name)
        yield opened


def send(platform: Platform, archive: Path, metadata: bytes, *, instance: str) -> None:
    id = local_instance(platform.records, instance).id
    Ledger(platform.records, platform.objects).receive(id, "0", archive, metadata)
    Marts(platform.records, platform.objects).refresh(id)


def asked(platform: Platform, name: str, *, archive: Path | None = None, tool: str = "") -> list[dict[str, Cell]]:
    instance = None if archive is None else archive.parents[1].name
    found = answer(Marts(platform.records, platform.objects), name, instance=instance, tool=tool)
    names = [column.name for column in found.question.columns]
    return [dict(zip(names, row, strict=True)) for row in found.rows]


def test_months_and_tools_of_an_instance(platform: Platform) -> None:
    months = asked(platform, "months", archive=OLD)
    assert [(each["month"], each["state"], each["jobs"]) for each in months] == [
        ("2017-06", "error", 4),
        ("2017-06", "ok", 16),
        ("2017-07", "error", 18),
        ("2017-07", "ok", 60),
    ]
    tools = asked(platform, "tools", archive=NEW)
    assert [(each["tool"], each["jobs"], each["errors"]) for each in tools[:2]] == [
        ("Cut1", 376, 31),
        ("Grouping1", 158, 11),
    ]
    assert sum(int(each["jobs"] or 0) for each in tools) == 1940
    [hisat] = [each for each in tools if each["tool_id"] == HISAT]
    assert hisat["tool"] == "hisat2"
    assert hisat["wasted_gb_hours"] == pytest.approx(float(hisat["allocated_gb_hours"]) - float(hisat["used_gb_hours"]))  # type: ignore[arg-type]
    assert all(each["memory_largest"] is None for each in asked(platform, "tools", archive=OLD)), "unknown, and not 0"


def test_a_tool_of_a_tool_shed_has_its_name_and_all_its_versions(platform: Platform, tmp_path: Path) -> None:
    shed = "toolshed.g2.bx.psu.edu/repos/devteam/bwa/bwa_mem"
    versions = {"0.7.17.2": "ok", "0.7.18": "error", "0.7.19+galaxy1": "ok"}
    jobs = [
        (id, f"{shed}/{version}", version, state, f"2026-01-0{1 + id} 00:00:00")
        for id, (version, state) in enumerate(versions.items())
    ]
    report = report_of(tmp_path, {"jobs": table("jobs", jobs)})
    send(platform, report.archive, report.metadata.model_dump_json(by_alias=True).encode(), instance="shed")
    id = local_instance(platform.records, "shed").id
    marts = Marts(platform.records, platform.objects)
    [row] = answer(marts, "tools", instance=id).rows
    assert row[:3] == ("bwa_mem", shed, 3)
    found = [(row[0], row[1], row[4]) for row in answer(marts, "versions", instance=id, tool=shed).rows]
    assert found == [("0.7.19+galaxy1", 1, 0), ("0.7.18", 1, 1), ("0.7.17.2", 1, 0)]


def test_what_is_known_of_a_tool(platform: Platform) -> None:
    versions = asked(platform, "versions", archive=NEW, tool=HISAT)
    memory = asked(platform, "memory", archive=NEW, tool=HISAT)
    runtime = asked(platform, "runtime", archive=NEW, tool=HISAT)
    assert sum(int(each["jobs"] or 0) for each in versions) == 50
    assert sum(int(each["jobs"] or 0) for each in memory) == sum(int(each["memory_known"] or 0) for each in versions)
    assert 0 < sum(int(each["jobs"] or 0) for each in runtime) <= 50
    largest = max(float(each["memory_largest"] or 0) for each in versions)
    assert float(memory[-1]["low"] or 0) <= largest < float(memory[-1]["high"] or 0)


def test_allocation_against_use_is_of_jobs_whose_memory_is_known(platform: Platform, tmp_path: Path) -> None:
    jobs = [(id, "cat", "1.0", "ok", "2026-01-01 00:00:00") for id in range(3)]
    given = [(id, "core", name, value) for id in range(3) for name, value in _GIVEN.items()]
    used = [(0, "cgroup", "memory.peak", 1 << 30), (1, "cgroup", "memory.peak", 1 << 29)]
    report = report_of(tmp_path, {"jobs": table("jobs", jobs), "metric_num": table("metric_num", [*given, *used])})
    id = local_instance(platform.records, "given").id
    metadata = report.metadata.model_dump_json(by_alias=True).encode()
    Ledger(platform.records, platform.objects).receive(id, "0", report.archive, metadata)
    marts = Marts(platform.records, platform.objects)
    marts.refresh(id)
    found = answer(marts, "versions", instance=id, tool="cat")
    [row] = [dict(zip([column.name for column in found.question.columns], each, strict=True)) for each in found.rows]
    assert (row["jobs"], row["allocation_known"]) == (3, 2)
    assert row["allocated_gb_hours"] == pytest.approx(2 * 2 * 2**30 / 1e9)
    assert row["used_gb_hours"] == pytest.approx(1.5 * 2**30 / 1e9)
    assert row["used_share"] == pytest.approx(0.375)


def test_reports_are_told_of_an_instance_and_not_of_all(platform: Platform) -> None:
    assert asked(platform, "reports", archive=OLD) == [
        {
            "report": "0",
            "generated": "2017-08-04T08:49:57.080000",
            "galaxy_version": "17.09",
            "users_active": 1,
            "users_total": 1,
            "jobs": 98,
            "export_seconds": 2.7863590717315674,
        }
    ]
    [new] = asked(platform, "reports", archive=NEW)
    assert (new["users_active"], new["users_total"], new["jobs"]) == (33, 33, 1970)
    with pytest.raises(NotFound, match="no table 'reports' of all instances together"):
        asked(platform, "reports")


def test_of_all_instances_only_tools_that_several_run_are_told(platform: Platform, tmp_path: Path) -> None:
    assert asked(platform, "tools") == [], "two instances are too few"
    rows = [(id, "common", "1.0", "ok", "2026-01-01 00:00:00") for id in range(10)]
    for number in range(3):
        mine = [*rows[: 5 + number], (100, f"only_{number}", "1.0", "ok", "2026-01-01 00:00:00")]
        report = report_of(tmp_path, {"jobs": table("jobs", mine)})
        send(platform, report.archive, report.metadata.model_dump_json(by_alias=True).encode(), instance=f"i{number}")
        told = [each["tool"] for each in asked(platform, "tools")]
        assert told == [], f"{number + 1} instances, {sum(5 + each for each in range(number + 1))} jobs"
    report = report_of(tmp_path, {"jobs": table("jobs", rows[:2])})
    send(platform, report.archive, report.metadata.model_dump_json(by_alias=True).encode(), instance="i3")
    assert [(each["tool"], each["jobs"]) for each in asked(platform, "tools")] == [("common", 20)]
    assert [each["jobs"] for each in asked(platform, "versions", tool="common")] == [20]
    for tool in ("only_1", "nothing"):
        with pytest.raises(NotFound, match="of which enough is known"):
            asked(platform, "versions", tool=tool)


def test_of_all_instances_nothing_is_told_of_a_single_one_or_job(platform: Platform, tmp_path: Path) -> None:
    for number in range(3):
        jobs = [(id, "shared", "1.0", "ok", "2025-03-04 05:06:07") for id in range(30)]
        metrics = [(id, "core", "runtime_seconds", 100) for id in range(30)]
        metrics += [(id, "cgroup", "memory.peak", 3_000_000_000 + id) for id in range(30)]
        if number == 0:  # what only this one did
            jobs += [(id, "shared", "2.0", "ok", "2025-05-06 07:08:09") for id in range(100, 130)]
            jobs += [
                (200, "shared", "1.0", "error", "2025-05-31 23:59:59"),
                (201, "alone", "1", "ok", "2025-04-01 00:00:00"),
            ]
            metrics += [(id, "core", "runtime_seconds", 7000) for id in (*range(100, 130), 200)]
            metrics += [(id, "cgroup", "memory.peak", 99_000_000_000) for id in (*range(100, 130), 200)]
        if number != 1:  # of the CPU, two are too few
            metrics += [(id, "cgroup", "cpuacct.usage", 10**11) for id in range(30)]
        report = report_of(tmp_path, {"jobs": table("jobs", jobs), "metric_num": table("metric_num", metrics)})
        send(platform, report.archive, report.metadata.model_dump_json(by_alias=True).encode(), instance=f"s{number}")
    months = [(each["month"], each["jobs"]) for each in asked(platform, "months") if str(each["month"]) < "2026"]
    assert months == [("2025-03", 90)]
    [tool] = [each for each in asked(platform, "tools") if each["tool"] == "shared"]
    assert (tool["jobs"], tool["memory_largest"], tool["cpu_hours"]) == (91, None, None), (
        "else the other version would be the difference"
    )
    assert tool["last_used"] == "2025-05-01T00:00:00"
    [version] = asked(platform, "versions", tool="shared")
    assert (version["tool_version"], version["jobs"], version["memory_largest"]) == ("1.0", 91, None)
    assert (version["first_used"], version["last_used"]) == ("2025-03-01T00:00:00", "2025-05-01T00:00:00")
    for name, most in (("memory", 5), ("runtime", 200)):
        [bin] = asked(platform, name, tool="shared")
        assert bin["jobs"] == 90 and float(bin["high"] or 0) < most
    recommended = asked(platform, "recommendations", tool="shared")
    assert {each["tool_version"] for each in recommended} <= {"", "1.0"}
    assert {(each["cores"], each["last_used"]) for each in recommended} <= {
        (None, "2025-03-01T00:00:00"),
        (None, "2025-05-01T00:00:00"),
    }


def test_what_two_instances_know_is_not_known_of_all(platform: Platform, tmp_path: Path) -> None:
    for number in range(3):
        jobs = [(id, "timed", "1.0", "ok", "2025-03-04 05:06:07") for id in range(30)]
        metrics = [(id, "cgroup", "memory.peak", 3_000_000_000 + id) for id in range(30)]
        if number:
            metrics += [(id, "core", "runtime_seconds", 1234) for id in range(30)]
        report = report_of(tmp_path, {"jobs": table("jobs", jobs), "metric_num": table("metric_num", metrics)})
        send(platform, report.archive, report.metadata.model_dump_json(by_alias=True).encode(), instance=f"t{number}")
    [whole, version] = asked(platform, "recommendations", tool="timed")
    assert (
        (whole["jobs"], whole["memory_known"], whole["runtime"])
        == (90, 0, None)
        == tuple(version[name] for name in ("jobs", "memory_known", "runtime"))
    )


def test_what_an_instances_run_has_kept_is_told_as_it_would_be_computed(platform: Platform) -> None:
    marts, instance = Marts(platform.records, platform.objects), NEW.parents[1].name
    computed = asked(platform, "recommendations", archive=NEW, tool=HISAT)
    with marts.opened([instance]) as opened:
        recommended = recommend(opened)
    others = [each for each in recommended if each.tool_id != HISAT]
    marts.keep(instance, marts.generation_of(instance), KEPT_FILE, as_file(others))
    assert asked(platform, "recommendations", archive=NEW, tool=HISAT) == computed != [], "though it is not there"
    marts.keep(instance, marts.generation_of(instance), KEPT_FILE, as_file(recommended))
    assert asked(platform, "recommendations", archive=NEW, tool=HISAT) == computed
    changed = [replace(each, jobs=12345) for each in recommended]
    marts.keep(instance, marts.generation_of(instance), KEPT_FILE, as_file(changed))
    assert {each["jobs"] for each in asked(platform, "recommendations", archive=NEW, tool=HISAT)} == {12345}
    marts.refresh(instance, again=True)
    assert asked(platform, "recommendations", archive=NEW, tool=HISAT) == computed, "it was of marts out of use"


def test_a_table_or_a_tool_that_is_none_is_told(platform: Platform) -> None:
    with pytest.raises(
        NotFound, match="of all instances together: months, tools, versions, memory, runtime, recommendations are"
    ):
        asked(platform, "months; DROP TABLE jobs")
    with pytest.raises(NotFound, match=", ".join(QUESTIONS)):
        asked(platform, "nothing", archive=OLD)
    with pytest.raises(NotFound, match="no tool"):
        asked(platform, "memory", archive=OLD, tool="' OR true --")


@pytest.mark.parametrize("name", QUESTIONS)
def test_rows_have_the_columns_that_are_told(platform: Platform, name: str) -> None:
    types = {"str": str, "int64": int, "float64": float}
    found = answer(Marts(platform.records, platform.objects), name, instance=NEW.parents[1].name, tool=HISAT)
    assert found.rows
    for row in found.rows:
        for column, value in zip(found.question.columns, row, strict=True):
            assert value is None or isinstance(value, types[column.dtype]), (column.name, value)
