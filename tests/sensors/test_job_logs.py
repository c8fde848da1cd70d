"""Job logs in Dagster: what arrives, by whatever way, is read by a run of its instance, and told in the UI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.partitions import JOB_LOGS_JOB
from knockem_dagster.definitions import build_definitions
from knockem_dagster.errors import StoreError
from knockem_dagster.joblogs import folders, report_metadata
from knockem_dagster.joblogs import ledger as ledgers
from knockem_dagster.joblogs.folders import DROPS
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.recommendations import KEPT_FILE, rows_of_tool
from knockem_dagster.joblogs.served import SCHEMA
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import ReportRecord, ReportState
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects, StoredObject
from resources.names import INSTANCES
from resources.platform import PlatformResource, SubmissionRuns
from sensors import job_logs
from sensors.job_logs import watch_job_logs
from tests.services.job_play import record_in
from tests.services.joblogs import REAL
from tests.services.platforms import tick
from tests.services.postgres import asked, postgres_server

OLD, NEW = REAL if REAL[0].parents[1].name.startswith("a8fe") else REAL[::-1]
INSTANCE = NEW.parents[1].name


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        yield opened


def watched(platform: Platform, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    found = tick(watch_job_logs, platform.settings.home, instance, cursor=cursor)
    assert isinstance(found, dg.SensorResult)
    for request in found.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions(INSTANCES, list(request.partition_keys))
    return found


def run(platform: Platform, instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    resource = PlatformResource(home=str(platform.settings.home))
    resources = {"platform": resource, "runs": SubmissionRuns(platform=resource)}
    return (
        build_definitions(resource_overrides=resources)
        .resolve_job_def(JOB_LOGS_JOB)
        .execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            run_config={**request.run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=dict(request.tags),
            raise_on_error=False,
        )
    )


def put(platform: Platform, archive: Path, *, metadata: bool = True, damaged: bool = False) -> None:
    folder = f"{DROPS}{archive.parents[1].name}/archives"
    content = archive.read_bytes()
    platform.objects.put(f"{folder}/0.tar.gz", content[:-9] if damaged else content)
    if metadata:
        platform.objects.put(f"{folder}/0.json", archive.with_name("0.json").read_bytes())


def materialized(done: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    """What each asset told."""
    told = (event.step_materialization_data.materialization for event in done.get_asset_materialization_events())
    return {each.asset_key.to_user_string(): each for each in told if isinstance(each, dg.AssetMaterialization)}


def seen(event: dg.AssetMaterialization, name: str) -> object:
    return event.metadata[name].value


def test_reports_put_into_the_object_store_are_read_by_a_run_of_their_instance(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    put(platform, NEW)
    first = watched(platform, instance)
    assert not first.run_requests, "it may still be written"
    second = watched(platform, instance, first.cursor)
    [request] = second.run_requests
    assert request.partition_key == INSTANCE and instance.has_dynamic_partition(INSTANCES, INSTANCE)
    done = run(platform, instance, request)
    assert done.success
    told = materialized(done)
    assert seen(told["job_log_archives"], "archives") == 1
    assert (seen(told["job_log_tables"], "loaded"), seen(told["job_log_tables"], "rows")) == (1, 27675)
    assert seen(told["job_log_marts"], "jobs") == 1940
    assert "| `Cut1` | 376 |" in str(seen(told["job_log_marts"], "most used tools"))
    assert seen(told["job_log_recommendations"], "tools") == 14
    assert "/fastqc` | 98 | 1 |" in str(seen(told["job_log_recommendations"], "recommended"))
    assert b"98 jobs" in Marts(platform.records, platform.objects).kept(INSTANCE, "tools.yml")
    kept = rows_of_tool(Marts(platform.records, platform.objects).kept(INSTANCE, KEPT_FILE), "Cut1")
    assert kept and kept[0][1] > 300
    [check] = done.get_asset_check_evaluations()
    assert check.passed
    third = watched(platform, instance, second.cursor)
    assert not third.run_requests and third.skip_reason is not None


def test_a_bad_report_is_told_and_holds_up_nobody(platform: Platform, instance: dg.DagsterInstance) -> None:
    put(platform, NEW, damaged=True)
    put(platform, OLD)
    requests = watched(platform, instance, watched(platform, instance).cursor).run_requests or ()
    ended = {request.partition_key: run(platform, instance, request) for request in requests}
    assert len(ended) == 2 and all(each.success for each in ended.values())
    table = materialized(ended[INSTANCE])["job_log_tables"].metadata["quarantine"]
    assert isinstance(table, dg.TableMetadataValue)
    assert "its SHA-256 is" in str(table.records[0].data["why"])
    with Marts(platform.records, platform.objects).opened() as marts:
        assert marts.sql("SELECT count(*) FROM jobs").fetchall() == [(98,)]


def test_an_archive_without_metadata_waits_for_them_a_while(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(platform, NEW, metadata=False)
    waiting = watched(platform, instance, watched(platform, instance).cursor)
    assert not waiting.run_requests
    monkeypatch.setattr(job_logs, "SECONDS_WITHOUT_METADATA", 0.0)
    [request] = watched(platform, instance, waiting.cursor).run_requests or ()
    assert run(platform, instance, request).success
    [report] = platform.records.job_log_reports.find({})
    assert report.state is ReportState.QUARANTINED and "no metadata" in str(report.quarantine)


@pytest.mark.parametrize("refused", [("a b", 4 << 30, "'a b' is not allowed"), ("0", 1000, "at most 1,000 bytes")])
def test_what_cannot_be_a_report_is_quarantined_and_told_once(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, int, str]
) -> None:
    name, most, why = refused
    monkeypatch.setattr(folders, "MOST_REPORT_BYTES", most)
    platform.objects.put(f"{DROPS}x/archives/{name}.tar.gz", NEW.read_bytes())
    platform.objects.put(f"{DROPS}x/archives/{name}.json", b"{}")
    second = watched(platform, instance, watched(platform, instance).cursor)
    [request] = second.run_requests or ()
    done = run(platform, instance, request)
    assert done.success and seen(materialized(done)["job_log_tables"], "quarantined") == 1
    [report] = platform.records.job_log_reports.find({})
    assert (report.name, report.state) == (name, ReportState.QUARANTINED) and why in str(report.quarantine)
    assert not list(platform.objects.list("joblogs/raw"))
    third = watched(platform, instance, second.cursor)
    assert not third.run_requests and str(third.skip_reason) == str(dg.SkipReason("Nothing has arrived."))


def test_what_cannot_be_an_instance_is_told_once(platform: Platform, instance: dg.DagsterInstance) -> None:
    platform.objects.put(f"{DROPS}{'x' * 201}/archives/0.tar.gz", NEW.read_bytes())
    platform.objects.put(f"{DROPS}{'x' * 201}/archives/0.json", b"{}")
    second = watched(platform, instance, watched(platform, instance).cursor)
    assert "The instance cannot be registered." in str(second.skip_reason)
    third = watched(platform, instance, second.cursor)
    assert str(third.skip_reason) == str(dg.SkipReason("Nothing has arrived."))


def test_metadata_are_read_no_further_than_any_are_long(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_metadata, "MOST_BYTES", 100)
    put(platform, NEW)
    watched(platform, instance, watched(platform, instance).cursor)
    [metadata] = [each for each in platform.objects.list("joblogs/raw") if each.key.endswith(".json")]
    assert metadata.size == 101


@pytest.mark.parametrize("error", [StoreError("the disk is full"), OSError("No space left on device")])
def test_what_cannot_be_stored_holds_up_nothing_and_is_tried_again_after_all_others(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put(platform, OLD)
    put(platform, NEW)
    receive, tried = Ledger.receive, list[str]()

    def receive_others(self: Ledger, instance: str, *given: Any) -> ReportRecord:
        tried.append(instance)
        if instance == bad:
            raise error
        return receive(self, instance, *given)

    bad, good = sorted(archive.parents[1].name for archive in REAL)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "receive", receive_others)
        second = watched(platform, instance, watched(platform, instance).cursor)
        assert [each.partition_key for each in second.run_requests or ()] == [good]
        platform.objects.put(f"{DROPS}{good}/archives/1.tar.gz", NEW.read_bytes())
        platform.objects.put(f"{DROPS}{good}/archives/1.json", NEW.with_name("0.json").read_bytes())
        third = watched(platform, instance, second.cursor)
        fourth = watched(platform, instance, third.cursor)
        assert tried == [bad, good, bad, good, bad]
    last = watched(platform, instance, fourth.cursor)
    assert {each.partition_key for each in last.run_requests or ()} == {bad, good}


def test_what_else_a_tick_does_holds_up_no_report(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    put(platform, NEW)
    monkeypatch.setattr(job_logs, "archive_own_jobs", fail)
    monkeypatch.setattr(Marts, "sweep", fail)
    first = watched(platform, instance)
    assert str(first.skip_reason).count("the disk is full") == 2
    assert watched(platform, instance, first.cursor).run_requests


def test_what_others_than_its_runs_read_reaches_dagster_too(platform: Platform, instance: dg.DagsterInstance) -> None:
    """As `joblogs upload`, `dismiss` and `release` do: all is read, and the marts are current."""
    ledger, marts = Ledger(platform.records, platform.objects), Marts(platform.records, platform.objects)
    whose, metadata = local_instance(platform.records, INSTANCE), NEW.with_name("0.json").read_bytes()

    def runs() -> list[dict[str, dg.AssetMaterialization]]:
        requests = watched(platform, instance).run_requests or ()
        return [materialized(run(platform, instance, request)) for request in requests]

    assert runs() == [], "an instance of which nothing is known is not told"
    ledger.read(ledger.receive(whose.id, "0", NEW, metadata))
    marts.refresh(whose.id)
    [told] = runs()
    assert instance.has_dynamic_partition(INSTANCES, INSTANCE)
    assert seen(told["job_log_tables"], "loaded") == 1 and marts.kept(whose.id, "tools.yml")
    assert runs() == []
    bad = ledger.read(ledger.receive(whose.id, "bad", OLD, b""))
    [told] = runs()
    table = told["job_log_tables"].metadata["quarantine"]
    assert isinstance(table, dg.TableMetadataValue)
    assert "There are no metadata" in str(table.records[0].data["why"])
    assert runs() == []
    ledger.dismiss(bad)
    [told] = runs()
    assert "quarantine" not in told["job_log_tables"].metadata
    marts.refresh(whose.id, again=True)
    [told] = runs()
    assert marts.kept(whose.id, "tools.yml") and runs() == []


def test_a_new_parser_reads_everything_again(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(platform, OLD)
    second = watched(platform, instance, watched(platform, instance).cursor)
    for request in second.run_requests or ():
        assert run(platform, instance, request).success
    monkeypatch.setattr(ledgers, "PARSER_VERSION", "another")
    [request] = watched(platform, instance, second.cursor).run_requests or ()
    assert run(platform, instance, request).success
    [report] = platform.records.job_log_reports.find({})
    assert report.parser_version == "another"
    assert Marts(platform.records, platform.objects).is_current(report.instance_id)


def test_a_copy_that_is_missing_is_made_by_a_run_and_a_database_that_is_away_holds_nothing_up(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = local_instance(platform.records, INSTANCE)
    Ledger(platform.records, platform.objects).receive(whose.id, "0", NEW, NEW.with_name("0.json").read_bytes())
    monkeypatch.setenv("KNOCKEM_WAREHOUSE_URL", "postgresql://user:secret@127.0.0.1:1/name")
    [request] = watched(platform, instance).run_requests or ()
    with monkeypatch.context() as patch:
        patch.delenv("KNOCKEM_WAREHOUSE_URL")
        assert run(platform, instance, request).success
    found = watched(platform, instance)
    assert not found.run_requests
    assert "KNOCKEM_WAREHOUSE_URL" in str(found.skip_reason) and "secret" not in str(found.skip_reason)
    with postgres_server() as url:
        monkeypatch.setenv("KNOCKEM_WAREHOUSE_URL", url)
        [request] = watched(platform, instance).run_requests or ()
        assert run(platform, instance, request).success
        jobs = f"{platform.settings.name_in_environment(SCHEMA, '_')}.jobs"
        assert asked(url, f"SELECT count(*) FROM {jobs}") == [(1940,)]
        assert not watched(platform, instance).run_requests


def test_a_run_is_requested_once_and_again_after_a_while_when_it_failed(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = local_instance(platform.records, INSTANCE)
    ledger = Ledger(platform.records, platform.objects)
    ledger.receive(whose.id, "0", NEW, NEW.with_name("0.json").read_bytes())
    [request] = watched(platform, instance).run_requests or ()
    for stored in list(platform.objects.list("joblogs/raw")):
        platform.objects.delete(stored.key)
    assert not run(platform, instance, request).success
    assert not watched(platform, instance).run_requests
    monkeypatch.setattr(job_logs, "FIRST_WAIT", 0.0)
    assert [each.partition_key for each in watched(platform, instance).run_requests or ()] == [INSTANCE]


def test_a_file_that_can_be_no_object_is_told_and_holds_up_no_report(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    put(platform, NEW)
    folder = platform.objects.path(f"{DROPS}x")
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "a\nb.tar.gz").write_bytes(NEW.read_bytes())
    (folder / "loop").symlink_to("loop")
    first = watched(platform, instance)
    assert first.skip_reason is not None
    told = r"passed over: 'uploads/joblogs/x/a\nb.tar.gz', and 1 more. Give it a name"
    assert told in (first.skip_reason.skip_message or "")
    requests = watched(platform, instance, first.cursor).run_requests or ()
    assert [each.partition_key for each in requests] == [INSTANCE]


def test_drops_that_cannot_be_listed_hold_up_nothing_else(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = local_instance(platform.records, INSTANCE)
    Ledger(platform.records, platform.objects).receive(whose.id, "0", NEW, NEW.with_name("0.json").read_bytes())
    put(platform, OLD)
    before, listing = watched(platform, instance), Objects.list

    def list_others(self: Objects, prefix: str = "") -> Iterator[StoredObject]:
        if prefix == DROPS:
            raise StoreError("the bucket is away")
        return listing(self, prefix)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "list", list_others)
        found = watched(platform, instance, before.cursor)
    assert [each.partition_key for each in found.run_requests or ()] == [INSTANCE]
    assert found.cursor == before.cursor, "and what was seen is not forgotten"


def test_no_run_is_requested_for_an_instance_that_is_being_removed_or_gone(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    whose = local_instance(platform.records, INSTANCE)
    Ledger(platform.records, platform.objects).receive(whose.id, "0", NEW, NEW.with_name("0.json").read_bytes())
    platform.records.job_log_instances.patch(whose.id, Patch(set={"unwanted": now()}))
    assert not watched(platform, instance).run_requests
    platform.records.documents.delete("jobLogInstances", {})
    assert not watched(platform, instance).run_requests
