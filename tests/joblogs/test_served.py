"""The copy of marts in PostgreSQL: what DuckDB says, whoever dies amid copying, and nothing of who was removed."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest

from knockem_dagster.errors import Conflict, NotFound, StoreError
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import TABLES, Marts, mart_key
from knockem_dagster.joblogs.removal import remove_instance
from knockem_dagster.joblogs.served import InstanceCopy, ServedMarts, open_served
from knockem_dagster.platform import Platform
from tests.services.command_line import ROOT, command_line, environment_of, knockem
from tests.services.job_play import record_in
from tests.services.joblogs import REAL, report_of, table
from tests.services.postgres import asked, postgres_server

SCHEMA = "knockem_joblogs_testing"
ODD = (None, "", " ", "tab\there", "two\nlines\r\n", '"quoted", and \\N', "a\n\\.\nb", "\\.", "Grüße 🧬\u2028", "NULL")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    asked(server, f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    return server


@pytest.fixture
def platform(tmp_path: Path, url: str) -> Iterator[Platform]:
    with record_in(tmp_path / "home", environment="testing", warehouse_url=url) as opened:
        yield opened


@pytest.fixture
def served(platform: Platform) -> ServedMarts:
    found = open_served(platform.settings)
    assert found is not None
    return found


@pytest.fixture
def marts(platform: Platform, served: ServedMarts) -> Marts:
    return Marts(platform.records, platform.objects, served)


def send_real(platform: Platform) -> list[str]:
    """Send the reports of tests/data; return their instances."""
    ids: list[str] = []
    for archive in REAL:
        ids.append(local_instance(platform.records, archive.parents[1].name).id)
        metadata = archive.with_name("0.json").read_bytes()
        Ledger(platform.records, platform.objects).receive(ids[-1], "0", archive, metadata)
    return ids


def write_reports(folder: Path, *names: str) -> Path:
    """Write reports of an instance as its exporter does: each tells of one job more."""
    (folder / "i").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rows = [(id, "cat", "1.0", "ok", "2026-01-01 00:00:00") for id in range(1 + number)]
        report = report_of(folder, {"jobs": table("jobs", rows)}, generated=str(1_700_000_000 + number))
        report.archive.rename(folder / "i" / f"{name}.tar.gz")
        (folder / "i" / f"{name}.json").write_text(report.metadata.model_dump_json(by_alias=True))
    return folder


def flat(url: str, name: str) -> str:
    """How a mart's rows are asked for in DuckDB, in the order of the columns in PostgreSQL."""
    columns = {
        "memory_median": "memory_quantiles[1]",
        "memory_95": "memory_quantiles[2]",
        "runtime_median": "runtime_quantiles[1]",
        "runtime_95": "runtime_quantiles[2]",
    }
    of_it = f"table_schema = '{SCHEMA}' AND table_name = '{name}'"
    found = asked(url, f"SELECT column_name FROM information_schema.columns WHERE {of_it} ORDER BY ordinal_position")
    return ", ".join(columns.get(each, each) for (each,) in found)


def by_key(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: repr(row[:3]))


def test_every_row_and_every_total_is_that_of_duckdb(platform: Platform, marts: Marts, url: str) -> None:
    for id in send_real(platform):
        marts.refresh(id)
        assert marts.is_current(id)
    with marts.opened() as opened:
        for name in TABLES:
            here = opened.sql(f"SELECT {flat(url, name)} FROM {name}").fetchall()
            there = asked(url, f"SELECT * FROM {SCHEMA}.{name}")
            assert there and by_key(here) == by_key(there), name
        totals = "SELECT sum(jobs), sum(ok), sum(errors), sum(hours), sum(allocated_gb_hours) FROM {}"
        here, there = opened.sql(totals.format("tools")).fetchall(), asked(url, totals.format(f"{SCHEMA}.tools"))
    assert here[0][:3] == there[0][:3] == (2038, *here[0][1:3])
    assert here[0][3:] == pytest.approx(there[0][3:], rel=1e-12)
    assert dict(asked(url, f"SELECT * FROM {SCHEMA}.generations")) == marts.in_use()


def test_the_example_of_the_page_tells_what_was_wasted(
    platform: Platform, marts: Marts, url: str, tmp_path: Path
) -> None:
    metrics = [(id, "core", name, 3600) for id in (1, 2, 3) for name in ("runtime_seconds", "galaxy_memory_mb")]
    metrics += [(1, "cgroup", "memory.peak", 3000 << 20)]  # nobody knows those of the others
    jobs = [(id, "cat", f"1.{id % 2}", "ok", "2026-01-01 00:00:00") for id in (1, 2, 3)]
    report = report_of(tmp_path, {"jobs": table("jobs", jobs), "metric_num": table("metric_num", metrics)})
    id = local_instance(platform.records, "i").id
    metadata = report.metadata.model_dump_json(by_alias=True).encode()
    Ledger(platform.records, platform.objects).receive(id, "1", report.archive, metadata)
    marts.refresh(id)
    [example] = re.findall(r"```sql\n(.*?);\n```", (ROOT / "docs" / "job-logs.md").read_text(), re.S)
    assert asked(url, example.replace("knockem_joblogs.", f"{SCHEMA}.")) == [
        ("cat", 3, pytest.approx(600 * (1 << 20) / 1e9))
    ]


def test_a_second_copy_changes_nothing_and_another_generation_takes_the_place(
    platform: Platform, marts: Marts, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = send_real(platform)
    marts.refresh(first)
    marts.refresh(second)
    copied: list[str | None] = []
    replace = InstanceCopy.replace

    def noted(self: InstanceCopy, generation: str | None, files: Any) -> None:
        copied.append(generation)
        replace(self, generation, files)

    monkeypatch.setattr(InstanceCopy, "replace", noted)
    before = asked(url, f"SELECT xmin::text, * FROM {SCHEMA}.tools ORDER BY 2, 3, 4")
    marts.refresh(first)
    assert asked(url, f"SELECT xmin::text, * FROM {SCHEMA}.tools ORDER BY 2, 3, 4") == before
    marts.refresh(first, again=True)
    assert copied == [marts.in_use()[first]]
    assert [row[1:] for row in asked(url, f"SELECT xmin::text, * FROM {SCHEMA}.tools ORDER BY 2, 3, 4")] == [
        row[1:] for row in before
    ]


def test_what_was_not_copied_is_made_up_for(platform: Platform, marts: Marts, served: ServedMarts) -> None:
    id, _ = send_real(platform)
    without = Marts(platform.records, platform.objects)
    without.refresh(id)
    assert without.is_current(id) and not marts.is_current(id)
    marts.refresh(id)
    assert marts.is_current(id)
    assert served.generation_of(id) == marts.in_use()[id]


@pytest.mark.slow
def test_who_is_killed_amid_copying_leaves_what_was_there(tmp_path: Path, url: str) -> None:
    home, reports = tmp_path / "home", write_reports(tmp_path / "reports", "1")
    assert knockem("joblogs", "upload", reports, home=home, KNOCKEM_WAREHOUSE_URL=url).returncode == 0
    before = asked(url, f"SELECT * FROM {SCHEMA}.generations")
    write_reports(tmp_path / "reports", "1", "2")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {SCHEMA}.months IN EXCLUSIVE MODE")  # jobs and tools come before it
        copying = subprocess.Popen(
            command_line("joblogs", "upload", reports), env=environment_of(home, KNOCKEM_WAREHOUSE_URL=url)
        )
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%months%'"
        while asked(url, waiting) == [(0,)]:
            assert copying.poll() is None
            time.sleep(0.05)
        assert asked(url, f"SELECT count(*) FROM {SCHEMA}.jobs") == [(1,)], "what is half done is not seen"
        copying.kill()
        copying.wait()
    assert asked(url, f"SELECT count(*) FROM {SCHEMA}.jobs") == [(1,)]
    assert asked(url, f"SELECT * FROM {SCHEMA}.generations") == before
    with record_in(home, environment="testing", warehouse_url=url) as platform:
        marts = Marts(platform.records, platform.objects, open_served(platform.settings))
        [id] = marts.in_use()
        assert marts.in_use()[id] != before[0][1], "readers of DuckDB have the new ones already"
        assert not marts.is_current(id)
        marts.refresh(id)
        assert marts.is_current(id)
    assert asked(url, f"SELECT sum(jobs) FROM {SCHEMA}.months") == [(2,)]


def test_several_at_once_copy_as_one_does(platform: Platform, marts: Marts, url: str) -> None:
    ids = send_real(platform)
    others = [threading.Thread(target=marts.refresh, args=[id]) for id in ids * 3]
    for each in others:
        each.start()
    for each in others:
        each.join()
    assert all(marts.is_current(id) for id in ids)
    assert asked(url, f"SELECT count(*) FROM {SCHEMA}.jobs") == [(2038,)]


def test_a_removed_instance_is_in_no_table(platform: Platform, marts: Marts, served: ServedMarts, url: str) -> None:
    first, second = send_real(platform)
    for id in (first, second):
        marts.refresh(id)
    remove_instance(platform.records, platform.objects, platform.records.job_log_instances.get(first), served=served)
    for name in (*TABLES, "generations"):
        assert asked(url, f"SELECT DISTINCT instance FROM {SCHEMA}.{name}") == [(second,)]


def test_an_instance_that_is_removed_while_it_is_copied_is_in_no_table(
    platform: Platform, marts: Marts, served: ServedMarts, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, _ = send_real(platform)
    instance = platform.records.job_log_instances.get(id)
    removal = threading.Thread(
        target=remove_instance, args=[platform.records, platform.objects, instance], kwargs={"served": served}
    )
    replace = InstanceCopy.replace

    def with_removal(self: InstanceCopy, generation: str | None, files: Any) -> None:
        if generation is None:
            replace(self, generation, files)
            return
        copied = {name: Path(path).read_bytes() for name, path in files.items()}
        removal.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        while asked(url, waiting) == [(0,)]:
            time.sleep(0.05)
        for name, content in copied.items():  # the objects are gone already
            files[name].parent.mkdir(parents=True, exist_ok=True)
            files[name].write_bytes(content)
        replace(self, generation, files)

    monkeypatch.setattr(InstanceCopy, "replace", with_removal)
    with pytest.raises((NotFound, Conflict)):
        marts.refresh(id)
    removal.join()
    for name in (*TABLES, "generations"):
        assert asked(url, f"SELECT * FROM {SCHEMA}.{name}") == []


def test_odd_values_survive(platform: Platform, marts: Marts, served: ServedMarts, url: str) -> None:
    id, _ = send_real(platform)
    marts.refresh(id)
    generation = marts.in_use()[id]
    numbers = [None, float("nan"), float("inf"), -0.0, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 1e22, 123456789.125]
    jobs = platform.objects.path(mart_key(id, generation, "jobs"))
    assert jobs is not None
    with duckdb.connect() as connection:
        connection.read_parquet(str(jobs)).limit(0).create("made")
        for number, (text, value) in enumerate(zip(ODD, numbers, strict=True)):
            row = [id, number, text, text, "ok", None, value, value, *[None] * 6]
            connection.execute(f"INSERT INTO made VALUES ({', '.join('?' * len(row))})", row)
        connection.execute(
            "UPDATE made SET is_censored = (id % 2 = 0), created = TIMESTAMP '2026-01-01 00:00:00.000001'"
        )
        connection.table("made").write_parquet(str(jobs))
        here = connection.table("made").order("id").fetchall()
    served.remove(id)
    assert not marts.is_current(id)
    marts.refresh(id)
    there = asked(url, f"SELECT * FROM {SCHEMA}.jobs ORDER BY id")
    assert repr(there) == repr(here)
    assert [row[2] for row in there] == list(ODD)


def test_tables_of_another_version_are_made_anew(
    platform: Platform, marts: Marts, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, _ = send_real(platform)
    marts.refresh(id)
    asked(url, f"COMMENT ON SCHEMA {SCHEMA} IS 'another'; ALTER TABLE {SCHEMA}.jobs DROP COLUMN cpu")
    assert not marts.is_current(id)
    marts.refresh(id)
    assert asked(url, f"SELECT count(cpu) > 0 FROM {SCHEMA}.jobs") == [(True,)]


def test_a_database_that_is_not_there_or_refuses_is_told_without_the_password(server: str) -> None:
    for bad, why in {
        server.replace("secret", "guess"): "password authentication failed",
        "postgresql://u:secret@127.0.0.1:1/x": "refused",
        "postgresql://u:sec%ret@127.0.0.1/x": "percent-encoded",
    }.items():
        with pytest.raises(StoreError, match=why) as refused:
            ServedMarts(bad, SCHEMA).generation_of("i")
        assert "secret" not in str(refused.value) and "guess" not in str(refused.value)
