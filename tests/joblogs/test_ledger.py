"""The ledger: what arrives is kept, counts once, and is read whole or quarantined, whatever is in between."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from knockem_dagster.errors import Conflict, InvalidInput, StoreError
from knockem_dagster.joblogs import ledger as ledgers
from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.instances import reports_of
from knockem_dagster.joblogs.ledger import SCRATCH, Ledger, archive_key, metadata_key, sweep_scratch, table_key
from knockem_dagster.joblogs.report import PARSER_VERSION, ReadReport
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import InstanceRecord, QuarantineValue, ReportRecord, ReportState
from knockem_dagster.records.record import Repository
from knockem_dagster.stores.objects import Objects
from tests.services.job_play import record_in
from tests.services.joblogs import JOBS, METRICS, Report, report_of, table

MEMBERS = {"jobs": JOBS, "metric_num": METRICS}
OTHERS = {"jobs": table("jobs", [(9, "dog", "1.0", "ok", "2026-01-01 00:00:00")])}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        for name in ("i", "j", *map(str, range(10))):
            opened.records.job_log_instances.add(InstanceRecord(id=name, name=name))
        yield opened


@pytest.fixture
def ledger(platform: Platform) -> Ledger:
    return Ledger(platform.records, platform.objects)


def sent(folder: Path, name: str, members: dict[str, bytes]) -> Report:
    (folder / name).mkdir(exist_ok=True)
    return report_of(folder / name, members)


def receive(ledger: Ledger, report: Report, name: str = "1.5", *, instance: str = "i") -> ReportRecord:
    return ledger.receive(instance, name, report.archive, report.metadata.model_dump_json(by_alias=True).encode())


def damaged(report: Report) -> Report:
    report.archive.write_bytes(report.archive.read_bytes()[:-20])
    return report


def ids(platform: Platform, report: ReportRecord) -> list[int]:
    stored = platform.objects.get(table_key(report, "jobs"))
    return parquet.read_table(io.BytesIO(stored))["id"].to_pylist()


def test_a_report_is_kept_as_it_came_and_read_into_the_lake(platform: Platform, ledger: Ledger, tmp_path: Path) -> None:
    report = sent(tmp_path, "a", MEMBERS)
    arrived = receive(ledger, report)
    assert arrived.state is ReportState.RECEIVED
    assert platform.objects.get(archive_key(arrived)) == report.archive.read_bytes()
    assert platform.objects.exists(metadata_key(arrived))
    [loaded] = ledger.read_all("i")
    assert (loaded.state, loaded.kept, loaded.rejected) == (
        ReportState.LOADED,
        {"jobs": 3, "metric_num": 2},
        {"jobs": 0, "metric_num": 0},
    )
    assert (loaded.generated, loaded.galaxy_version, loaded.quarantine) == (1795212662.5, "26.1", None)
    assert ids(platform, loaded) == [1, 2, 3]
    assert ledger.read_all("i") == []
    assert reports_of(platform.records, "i") == [loaded]
    assert reports_of(platform.records, "other") == []


def test_the_same_again_changes_nothing(platform: Platform, ledger: Ledger, tmp_path: Path) -> None:
    report = sent(tmp_path, "a", MEMBERS)
    loaded = ledger.read(receive(ledger, report))
    before = {each.key: each.modified for each in platform.objects.list("joblogs")}
    assert receive(ledger, report) == loaded
    assert {each.key: each.modified for each in platform.objects.list("joblogs")} == before
    assert ledger.read(loaded).kept == loaded.kept, "read again, it is the same"
    assert {each.key for each in platform.objects.list("joblogs")} == before.keys()
    assert len(reports_of(platform.records, "i")) == 1


def test_another_under_the_name_of_one_in_use_is_kept_beside_it(
    platform: Platform, ledger: Ledger, tmp_path: Path
) -> None:
    loaded = ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS)))
    for _ in range(2):
        beside = receive(ledger, sent(tmp_path, "b", OTHERS))
        assert beside.state is ReportState.QUARANTINED
        assert "Something else has arrived as this report before" in str(beside.quarantine)
        assert platform.objects.exists(archive_key(beside))
        with pytest.raises(Conflict, match="Something else"):
            ledger.read(beside)
        assert {each.id for each in reports_of(platform.records, "i")} == {loaded.id, beside.id}
        assert platform.records.job_log_reports.get(loaded.id) == loaded
        assert ids(platform, loaded) == [1, 2, 3]
    assert ledger.read(receive(ledger, sent(tmp_path, "b", OTHERS), "2.5")).kept == {"jobs": 1}
    assert receive(ledger, sent(tmp_path, "b", OTHERS)).id == beside.id
    assert ledger.read(receive(ledger, sent(tmp_path, "b", OTHERS), instance="j")).kept == {"jobs": 1}


def test_what_is_sent_after_a_bad_one_takes_its_place(platform: Platform, ledger: Ledger, tmp_path: Path) -> None:
    bad = ledger.read(receive(ledger, damaged(sent(tmp_path, "a", MEMBERS))))
    assert bad.state is ReportState.QUARANTINED
    assert bad.quarantine is not None
    assert bad.quarantine.what.startswith("The archive is not the one of its metadata")
    assert ledger.read(bad).quarantine == bad.quarantine, "a release changes nothing while it is bad"
    mended = receive(ledger, sent(tmp_path, "b", MEMBERS))
    assert (mended.id, mended.state, mended.quarantine) == (bad.id, ReportState.RECEIVED, None)
    loaded = ledger.read(mended)
    assert (loaded.state, ids(platform, loaded)) == (ReportState.LOADED, [1, 2, 3])
    assert platform.objects.exists(archive_key(bad)), "what was sent is kept"
    assert reports_of(platform.records, "i") == [loaded]


def test_who_reads_what_has_been_replaced_meanwhile_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    bad = ledger.read(receive(ledger, damaged(sent(tmp_path, "a", MEMBERS))))
    loaded = ledger.read(receive(ledger, sent(tmp_path, "b", MEMBERS)))
    assert ledger.read(bad) == loaded


def test_of_two_that_come_at_once_one_is_in_use(platform: Platform, ledger: Ledger, tmp_path: Path) -> None:
    reports = [sent(tmp_path, "a", MEMBERS), sent(tmp_path, "b", OTHERS)]
    for number in range(10):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda report, number=number: receive(ledger, report, instance=f"{number}"), reports))
        there = reports_of(platform.records, f"{number}")
        assert sorted(each.state for each in there) == [ReportState.LOADED, ReportState.QUARANTINED]


def test_what_was_received_and_not_read_is_read_before_another_takes_its_place(
    platform: Platform, ledger: Ledger, tmp_path: Path
) -> None:
    """Whoever received the first died; the second must not wait behind what nobody will ever read."""
    receive(ledger, damaged(sent(tmp_path, "a", MEMBERS)))
    good = receive(ledger, sent(tmp_path, "b", MEMBERS))
    assert ledger.read(good).state is ReportState.LOADED
    assert [each.state for each in reports_of(platform.records, "i")] == [ReportState.LOADED]
    arrived = receive(ledger, sent(tmp_path, "a", MEMBERS), "2.5")  # which is in use as 1.5
    another = receive(ledger, sent(tmp_path, "b", OTHERS), "2.5")
    assert (another.id, another.state) == (arrived.id, ReportState.RECEIVED)


def test_what_was_kept_beside_is_forgotten_once_it_takes_the_place(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS)))
    beside = receive(ledger, sent(tmp_path, "b", OTHERS))
    spoiled = ArchiveFault("It is bad after all", "send another")
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "read_report", lambda *given: raising(spoiled))
        assert ledger.read(loaded).state is ReportState.QUARANTINED
    again = receive(ledger, sent(tmp_path, "b", OTHERS))
    assert (again.id, ledger.read(again).state) == (loaded.id, ReportState.LOADED)
    assert platform.records.job_log_reports.find_one(beside.id) is None


def raising(error: Exception) -> None:
    raise error


def test_one_that_is_in_use_by_now_is_not_replaced(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release may put a report in use between the look at it and its replacement."""
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "read_report", lambda *given: raising(ArchiveFault("An old parser", "wait")))
        bad = ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS)))
    get = Repository.get

    def get_before_the_release(self: Repository[ReportRecord], id: str) -> ReportRecord:
        found = get(self, id)
        if found.id == bad.id:
            ledger.read(found)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "get", get_before_the_release)
        sent_then = receive(ledger, sent(tmp_path, "b", OTHERS))
    assert (sent_then.state, sent_then.id != bad.id) == (ReportState.QUARANTINED, True)
    assert ids(platform, platform.records.job_log_reports.get(bad.id)) == [1, 2, 3]


def test_the_same_archive_under_another_name_is_not_in_use_twice(
    platform: Platform, ledger: Ledger, tmp_path: Path
) -> None:
    first, second = (receive(ledger, sent(tmp_path, "a", MEMBERS), name) for name in ("1.5", "june"))
    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(ledger.read, (second, first)))
    assert [each.id for each in read] == [second.id, first.id]
    found = {each.state: each for each in reports_of(platform.records, "i")}
    beside, in_use = found[ReportState.QUARANTINED], found[ReportState.LOADED]
    assert f"in use as report {in_use.name}" in str(beside.quarantine)
    assert ledger.read(beside).state is ReportState.QUARANTINED
    assert ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS), instance="j")).state is ReportState.LOADED


def test_a_file_that_changes_meanwhile_spoils_no_other_report(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = sent(tmp_path, "a", MEMBERS)
    whole = report.archive.read_bytes()
    put = Objects.put

    def put_after_a_change(self: Objects, key: str, data: bytes | Path, **how: object) -> bool:
        report.archive.write_bytes(b"being written")
        return put(self, key, data, **how)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", put_after_a_change)
        arrived = receive(ledger, report)
    assert platform.objects.get(archive_key(arrived)) == whole
    assert ledger.read(arrived).state is ReportState.LOADED


def test_what_killed_processes_had_in_work_is_swept_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    day = ledgers.KEPT_SCRATCH.total_seconds()
    for name, age in {f"{SCRATCH}old": day + 60, f"{SCRATCH}new": day - 3600, "of others": 2 * day}.items():
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "archive").write_bytes(b"half of it")
        then = time.time() - age
        os.utime(tmp_path / name, (then, then))
    sweep_scratch()
    assert {path.name for path in tmp_path.iterdir()} == {f"{SCRATCH}new", "of others"}


def test_bad_rows_are_described(ledger: Ledger, tmp_path: Path) -> None:
    rows = [(number, "core", "n", "1") for number in range(5000)]
    metrics = table("metric_num", [*rows, *[(1, "core", "n", "NaN")] * 30])
    loaded = ledger.read(receive(ledger, sent(tmp_path, "a", {"metric_num": metrics})))
    assert (loaded.kept, loaded.rejected) == ({"metric_num": 5000}, {"metric_num": 30})
    assert [each.line for each in loaded.rejects] == list(range(5002, 5022))
    assert loaded.rejects[0].cause == "value is 'NaN' and not a number from 0 to 1e+20"


def test_a_report_that_tells_of_a_job_twice_is_quarantined(ledger: Ledger, tmp_path: Path) -> None:
    jobs = [(id, "cat", "1.0", state, "2026-01-01 00:00:00") for id, state in ((6, "ok"), (7, "ok"), (7, "error"))]
    found = ledger.read(receive(ledger, sent(tmp_path, "a", {"jobs": table("jobs", jobs)})))
    assert found.state is ReportState.QUARANTINED
    assert str(found.quarantine).startswith("Job 7 is told of twice in jobs: send the archive again")


def test_nothing_is_in_use_before_all_tables_are_there(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = receive(ledger, sent(tmp_path, "a", MEMBERS))
    put = Objects.put
    stored: list[str] = []

    def put_one(self: Objects, key: str, data: bytes | Path, **how: object) -> bool:
        if stored:
            raise StoreError("the disk is full")
        stored.append(key)
        return put(self, key, data, **how)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", put_one)
        with pytest.raises(StoreError, match="the disk is full"):
            ledger.read(arrived)
    assert len(stored) == 1
    assert reports_of(platform.records, "i") == [arrived]
    assert ledger.read(arrived).state is ReportState.LOADED


def test_a_new_parser_reads_from_the_raw_archive_and_leaves_the_old_tables(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS)))
    old = table_key(first, "jobs")
    monkeypatch.setattr(ledgers, "PARSER_VERSION", "another")
    second = ledger.read(first)
    assert (first.parser_version, second.parser_version) == (PARSER_VERSION, "another")
    assert platform.objects.exists(old)
    assert old != table_key(second, "jobs")
    assert ids(platform, second) == [1, 2, 3]


@pytest.mark.parametrize("name", ["", "../1.5", "a/b", ".hidden", "a" * 101, "a\n", "é", "a b"])
def test_what_is_no_name_is_refused_and_nothing_is_stored(
    platform: Platform, ledger: Ledger, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="letters, digits, dots"):
        receive(ledger, sent(tmp_path, "a", MEMBERS), name)
    assert list(platform.objects.list()) == []
    assert reports_of(platform.records, "i") == []


@pytest.mark.parametrize("error", [OSError("full"), duckdb.OutOfMemoryException("full"), pa.ArrowMemoryError("full")])
def test_one_that_cannot_be_read_holds_up_no_other(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    parts = {
        name: {"jobs": table("jobs", [(id, "cat", "1", "ok", "2026-01-01 00:00:00")])} for id, name in enumerate("abc")
    }
    for name, members in parts.items():
        receive(ledger, sent(tmp_path, name, members), name)
    read, failing = ledgers.read_report, iter([None, error])

    def read_but_one(*given: Any) -> ReadReport:
        if (raised := next(failing, None)) is not None:
            raise raised
        return read(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "read_report", read_but_one)
        with pytest.raises(StoreError, match=f"1 of 3 reports could not be read, the first b: {error}"):
            ledger.read_all("i")
    assert [each.name for each in ledger.in_use("i")] == ["a", "c"]
    assert [each.name for each in ledger.read_all("i")] == ["b"]


@pytest.mark.parametrize("error", [duckdb.ConversionException("no 'hunter2'"), pa.ArrowInvalid("no 'hunter2'")])
def test_one_that_is_never_read_is_quarantined(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It would let every run of its instance fail."""
    receive(ledger, sent(tmp_path, "a", MEMBERS))
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "write_job_resources", lambda *given: raising(error))
        [report] = ledger.read_all("i")
        assert ledger.read_all("i") == []
    assert str(report.quarantine).startswith(f"knockem itself cannot read it ({type(error).__name__}): report this")
    assert ledger.read(report).state is ReportState.LOADED


def test_what_is_dismissed_is_off_the_list_until_something_else_arrives(
    platform: Platform, ledger: Ledger, tmp_path: Path
) -> None:
    bad = ledger.read(receive(ledger, damaged(sent(tmp_path, "a", MEMBERS))))
    dismissed = ledger.dismiss(bad)
    assert dismissed.state is ReportState.DISMISSED and platform.objects.exists(archive_key(dismissed))
    assert ledger.dismiss(bad) == dismissed
    again = receive(ledger, damaged(sent(tmp_path, "a", MEMBERS)))
    assert again == dismissed and ledger.read_all("i", again=True) == ledger.in_use("i") == []
    assert ledger.read(dismissed).state is ReportState.QUARANTINED, "released, it is read"
    ledger.dismiss(bad)
    loaded = ledger.read(receive(ledger, sent(tmp_path, "b", MEMBERS)))
    assert (loaded.id, loaded.state) == (bad.id, ReportState.LOADED)
    with pytest.raises(Conflict, match="is loaded; only what is quarantined"):
        ledger.dismiss(loaded)


def test_twins_and_what_was_kept_beside_can_be_dismissed_for_good(
    platform: Platform, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS)))
    ledger.dismiss(ledger.read(receive(ledger, sent(tmp_path, "a", MEMBERS), "twin")))
    ledger.dismiss(receive(ledger, sent(tmp_path, "b", OTHERS)))
    monkeypatch.setattr(ledgers, "PARSER_VERSION", "another")
    for _ in range(2):
        receive(ledger, sent(tmp_path, "a", MEMBERS), "twin")
        receive(ledger, sent(tmp_path, "b", OTHERS))
        ledger.read_all("i")
        states = [each.state for each in reports_of(platform.records, "i")]
        assert sorted(states) == ["dismissed", "dismissed", "loaded"]
    assert [each.id for each in ledger.in_use("i")] == [loaded.id]


def test_a_refusal_that_is_dismissed_is_told_again_when_it_is_another(platform: Platform, ledger: Ledger) -> None:
    def refused(what: str) -> ReportRecord:
        ledger.refuse("i", "unnamed", QuarantineValue(what=what, remedy="send it again"))
        [report] = reports_of(platform.records, "i")
        return report

    ledger.dismiss(refused("It is too large"))
    assert refused("It is too large").state is ReportState.DISMISSED
    assert refused("It has no data").state is ReportState.QUARANTINED
    assert refused("It is too large").state is ReportState.QUARANTINED


def test_a_report_from_the_future_is_quarantined(ledger: Ledger, tmp_path: Path) -> None:
    """Its jobs would be right for ever, whatever later reports tell of them."""
    day = 86400.0
    first, second = ({"jobs": table("jobs", [(id, "cat", "1", "ok", "2026-01-01 00:00:00")])} for id in (1, 2))
    near = report_of(tmp_path, first, generated=f"{time.time() + day - 600:.3f}")
    assert ledger.read(receive(ledger, near, "near")).state is ReportState.LOADED
    far = ledger.read(receive(ledger, report_of(tmp_path, second, generated=f"{time.time() + day + 600:.3f}"), "far"))
    assert far.state is ReportState.QUARANTINED
    assert "It says that it was made at" in str(far.quarantine) and "correct the clock" in str(far.quarantine)
    right = ledger.read(receive(ledger, report_of(tmp_path, second, generated=f"{time.time():.3f}"), "far"))
    assert (right.id, right.state) == (far.id, ReportState.LOADED)
