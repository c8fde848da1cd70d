"""What came back of an instance of job logs while it was removed is removed, and nothing that is still needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import PARTITION_NAME_TAG

from assets.partitions import JOB_LOGS_JOB
from knockem_dagster.definitions import build_definitions
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.removal import remove_instance
from knockem_dagster.platform import Platform
from resources.dagster_storage import runs_of
from resources.names import INSTANCES
from sensors import removed_instances as upkeep
from sensors.removed_instances import removed_instances
from tests.services.job_play import record_in
from tests.services.joblogs import REAL
from tests.services.platforms import tick


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        yield opened


def looked(platform: Platform, instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[str, str]:
    """What a tick tells, and its cursor."""
    found = tick(removed_instances, platform.settings.home, instance, cursor=cursor)
    assert isinstance(found, dg.SensorResult) and found.skip_reason is not None and found.cursor is not None
    return (found.skip_reason.skip_message or "").partition(": ")[2], found.cursor


def gone(platform: Platform, name: str = "our server") -> str:
    found = local_instance(platform.records, name)
    remove_instance(platform.records, platform.objects, found)
    return found.id


def requested_too_late(instance: dg.DagsterInstance, id: str) -> dg.DagsterRun:
    """Do what a tick under way does after its instance was removed: add the partition, make the run."""
    instance.add_dynamic_partitions(INSTANCES, [id])
    job = build_definitions().resolve_job_def(JOB_LOGS_JOB)
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={PARTITION_NAME_TAG: id})


def test_partition_of_a_removed_instance_is_forgotten_once_its_run_is_over(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    kept, id = local_instance(platform.records, "another").id, gone(platform)
    instance.add_dynamic_partitions(INSTANCES, [kept])
    run = requested_too_late(instance, id)
    assert looked(platform, instance)[0] == "0 in the stores, 0 in Dagster"
    instance.report_run_failed(run)
    assert looked(platform, instance)[0] == "0 in the stores, 1 in Dagster"
    assert instance.get_dynamic_partitions(INSTANCES) == [kept] and runs_of(instance, id) == []


def test_partition_that_is_missing_from_the_record_is_kept(platform: Platform, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions(INSTANCES, [local_instance(platform.records, "another").id])
    platform.records.documents.delete("jobLogInstances", {})
    assert looked(platform, instance)[0] == "0 in the stores, 0 in Dagster"
    assert len(instance.get_dynamic_partitions(INSTANCES)) == 1


def test_all_is_looked_at_some_at_a_time(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MOST_LOOKED_AT", 2)
    ledger, metadata = Ledger(platform.records, platform.objects), REAL[0].with_name("0.json").read_bytes()
    names = [f"server {number}" for number in range(5)]
    ids = [local_instance(platform.records, name).id for name in names]
    instance.add_dynamic_partitions(INSTANCES, ids)
    reports = [ledger.receive(id, "0", REAL[0], metadata) for id in ids]
    for name in names[1:]:
        gone(platform, name)
    for report in reports[1:]:
        platform.records.job_log_reports.add(report)  # whoever did was killed before looking again
    cursor: str | None = None
    for _ in range(3):
        _, cursor = looked(platform, instance, cursor)
    assert instance.get_dynamic_partitions(INSTANCES) == ids[:1]
    assert [each.instance_id for each in platform.records.job_log_reports.find({})] == ids[:1]
