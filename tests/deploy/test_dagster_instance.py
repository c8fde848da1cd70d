"""Dagster starts from deploy/dagster.yaml as promised, and the served file differs from it in storage only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.conclusions import submission_summary
from sensors.schedules import delete_old_runs

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


def test_nothing_is_reported_to_anybody(instance: dg.DagsterInstance):
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled


def test_users_take_turns(instance: dg.DagsterInstance):
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    (limit,) = queue.tag_concurrency_limits
    assert limit["key"] == "knockem/user"
    assert limit["value"] == {"applyLimitPerUniqueValue": True}
    assert 0 < limit["limit"] < queue.max_concurrent_runs


def test_what_writes_the_same_thing_has_a_pool_of_one_run(instance: dg.DagsterInstance):
    pools = instance.get_concurrency_config().pool_config
    assert pools.default_pool_limit == 1
    assert pools.pool_granularity is not None and pools.pool_granularity.value == "run"
    assert submission_summary.op.pools == {"submission_summary"}
    assert delete_old_runs.pools == {"retention"}


def test_leases_watch_runs_and_dagster_does_not(instance: dg.DagsterInstance):
    assert not instance.run_monitoring_enabled
    assert not instance.run_retries_enabled


def test_everything_is_kept_below_the_dagster_home(instance: dg.DagsterInstance, tmp_path: Path):
    job = dg.define_asset_job("job")

    @dg.asset
    def number() -> None: ...

    definitions = dg.Definitions(assets=[number], jobs=[job])
    assert definitions.resolve_job_def("job").execute_in_process(instance=instance).success
    assert {path.name for path in tmp_path.iterdir()} <= {
        "dagster.yaml",
        "history",
        "schedules",
        "storage",
        ".telemetry",
    }
    assert instance.get_runs_count() == 1


def test_the_served_file_differs_in_storage_only():
    served = yaml.safe_load((DEPLOY / "dagster-served.yaml").read_text())
    assert served.pop("storage")["postgres"]["postgres_db"]["scheme"] == "postgresql+psycopg2"
    assert served.pop("compute_logs")["class"] == "S3ComputeLogManager"
    embedded = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert embedded.pop("compute_logs")["class"] == "NoOpComputeLogManager"
    assert served == embedded


def variables_of(node: object) -> set[str]:
    """Return the names of the variables that a configuration reads."""
    if not isinstance(node, dict):
        return set()
    found = {node["env"]} if "env" in node else set()
    return found.union(*map(variables_of, node.values()))


def test_the_compose_file_gives_dagster_what_its_file_reads():
    read = variables_of(yaml.safe_load((DEPLOY / "dagster-served.yaml").read_text()))
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert read
    for name in ("webserver", "daemon", "code"):
        assert read <= services[name]["environment"].keys()


def test_a_run_in_a_container_is_given_what_its_launcher_was_given():
    launcher = yaml.safe_load((DEPLOY / "dagster-docker.yaml").read_text())
    [daemon, beside] = [
        yaml.safe_load((DEPLOY / name).read_text())["services"]["daemon"]["environment"].keys() - {"DAGSTER_HOME"}
        for name in ("compose.yaml", "compose.run-containers.yaml")
    ]
    assert variables_of(launcher) == beside
    assert set(launcher["run_launcher"]["config"]["env_vars"]) == daemon | beside
