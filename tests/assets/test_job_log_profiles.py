"""Profiles of tools by Spark as an asset: a process of its own tells Dagster what it did, and they are kept."""

from __future__ import annotations

import io
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from assets.job_log_profiles import PROFILES_FILE, job_log_tool_profiles
from knockem_dagster.definitions import SPARK_ASSETS
from knockem_dagster.joblogs import tool_profiles
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.tool_profiles import spark_is_installed
from knockem_dagster.joblogs.wanted import keys_of
from knockem_dagster.platform import Platform
from resources.names import INSTANCES
from resources.platform import PlatformResource
from tests.services.job_play import record_in
from tests.services.joblogs import REAL
from tests.services.profiles import assert_equal, needs_spark, rows_of


def materialized(platform: Platform, instance: str, *, raises: bool = True) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as opened:
        opened.add_dynamic_partitions(INSTANCES, [instance])
        return dg.materialize(
            [job_log_tool_profiles],
            partition_key=instance,
            instance=opened,
            resources={
                "platform": PlatformResource(home=str(platform.settings.home)),
                "processes": dg.PipesSubprocessClient(),
            },
            raise_on_error=raises,
        )


def send(platform: Platform) -> str:
    archive = max(REAL, key=lambda each: each.stat().st_size)
    id = local_instance(platform.records, archive.parents[1].name).id
    Ledger(platform.records, platform.objects).receive(id, "0", archive, archive.with_name("0.json").read_bytes())
    Marts(platform.records, platform.objects).refresh(id)
    return id


@needs_spark
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*expected_writer_count")
def test_spark_tells_dagster_what_it_did_and_the_profiles_are_those_of_the_mart(tmp_path: Path) -> None:
    with record_in(tmp_path / "home") as platform:
        id = send(platform)
        ended = materialized(platform, id)
        assert ended.success
        [event] = ended.asset_materializations_for_node("job_log_tool_profiles")
        assert event.metadata["jobs"].value == 1940
        marts = Marts(platform.records, platform.objects)
        kept = [key for key in keys_of(platform.objects, id) if key.endswith(PROFILES_FILE)]
        assert len(kept) == 1, "it is removed with the instance"
        found = pq.read_table(io.BytesIO(marts.kept(id, PROFILES_FILE))).to_pylist()
        assert event.metadata["tools"].value == len(found)
        with marts.opened([id]) as opened:
            assert_equal(rows_of(opened, "tools"), found)


def test_without_spark_it_is_not_there_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bool(SPARK_ASSETS) == spark_is_installed()
    monkeypatch.setattr(tool_profiles, "spark_is_installed", lambda: False)
    with record_in(tmp_path / "home") as platform:
        ended = materialized(platform, "i", raises=False)
    [failure] = [event for event in ended.all_events if event.event_type is dg.DagsterEventType.STEP_FAILURE]
    assert "pip install 'knockem_dagster[spark]'" in str(failure.event_specific_data)
