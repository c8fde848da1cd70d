"""Pools that workflow files bring: what their schedulers' options mean, and which cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.errors import InvalidInput
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.jobs.workflows import Submitter, store_workflow
from knockem_dagster.nodes.node_pools import SlurmPool, WorkflowLimits
from knockem_dagster.nodes.workflow_pools import Refused, pools_of_workflows
from knockem_dagster.platform import Platform
from knockem_dagster.stores.documents import Patch
from tests.services.job_play import record_in

LIMITS = WorkflowLimits.model_validate({"max_nodes": 3, "max_node_hours": 10, "cpus": 4, "memory": "8g"})
ACTION = {"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler": "s"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        yield opened


def pool_of(platform: Platform, folder: Path, options: dict[str, Any]) -> SlurmPool | Refused:
    """Store a workflow that is going, with a scheduler of these options; return what comes of that."""
    spec = {"name": "w", "jobs": [{"name": "a", "command": "true"}], "actions": [ACTION]}
    graph = graph_of(spec_of({**spec, "slurm_schedulers": [{"name": "s", **options}]}))
    submitter = Submitter(user_email="someone@example.org", folder=str(folder), max_active=1)
    workflow = store_workflow(platform.records, graph, submitter)
    platform.records.workflows.patch(workflow.id, Patch(set={"state": "running"}))
    return dict(pools_of_workflows(platform.records, LIMITS))[workflow.id]


@pytest.mark.parametrize(
    ("options", "mib"),
    [({}, 8192), ({"mem": "0"}, 8192), ({"mem": "16000"}, 16000), ({"mem": 500}, 500), ({"mem": "16G"}, 16384)],
)
def test_memory_is_read_as_slurm_reads_it(
    platform: Platform, tmp_path: Path, options: dict[str, Any], mib: int
) -> None:
    pool = pool_of(platform, tmp_path, options)
    assert isinstance(pool, SlurmPool)
    assert pool.memory == mib


@pytest.mark.parametrize("mem", ["much", "-1", "16x", "9999999t"])
def test_memory_that_cannot_be_read_is_a_fault_of_the_workflow_file(
    platform: Platform, tmp_path: Path, mem: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        pool_of(platform, tmp_path, {"mem": mem})
    [fault] = refused.value.faults
    assert fault.field == "slurm_schedulers[0].mem" and "--mem" in fault.allowed


def test_what_was_stored_before_and_cannot_be_read_is_refused(platform: Platform, tmp_path: Path) -> None:
    pool_of(platform, tmp_path, {"mem": "16g"})
    configurations = platform.records.scheduler_configurations
    [workflow] = platform.records.workflows.find({"state": "running"})
    for each in list(configurations.find({"workflowId": workflow.id})):
        configurations.patch(each.id, Patch(set={"options.mem": "much"}))
    [(_, refused)] = pools_of_workflows(platform.records, LIMITS)
    assert isinstance(refused, Refused)
    assert "mem" in refused.reason
