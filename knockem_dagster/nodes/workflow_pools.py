"""Node pools that workflow files bring: their SLURM schedulers, as far as their actions schedule nodes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pydantic import TypeAdapter, ValidationError

from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.specs.workflow_spec import Memory
from knockem_dagster.nodes.node_pools import SlurmPool, WorkflowLimits
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import SchedulerConfigurationRecord
from knockem_dagster.records.jobs import WorkflowRecord

_MEMORY = TypeAdapter[int](Memory)
_SAME = ("account", "partition", "qos", "gres", "tmp")


def pools_of_workflows(records: Records, limits: WorkflowLimits) -> Iterator[tuple[str, SlurmPool]]:
    """Yield the pools of workflows that are going, each with its workflow's id."""
    for workflow in list(records.workflows.find({"state": "running"})):
        if workflow.is_graph:
            for configuration in records.scheduler_configurations.find({"workflowId": workflow.id}):
                if configuration.num_nodes:
                    yield workflow.id, _pool(workflow, configuration, limits)


def _pool(workflow: WorkflowRecord, configuration: SchedulerConfigurationRecord, limits: WorkflowLimits) -> SlurmPool:
    options = configuration.options
    most = 1 if options.get("serialize_allocations") else min(configuration.num_nodes, limits.max_nodes)
    given = {name: options[name] for name in _SAME if name in options}
    content = {
        "name": f"{workflow.id[:8]}.{configuration.id[:8]}",
        "scheduler": "slurm",
        "cpus": limits.cpus,
        "memory": options.get("mem", f"{limits.memory}m"),
        "gpus": _gpus(str(options.get("gres", ""))),
        "walltime": options["walltime"],
        "max_nodes": most,
        "max_node_hours": limits.max_node_hours,
        "idle_seconds": limits.idle_seconds,
        "user": workflow.user_email,
        "extra": shlex.split(str(options.get("extra", ""))),
        "setup": limits.setup,
        "command": limits.command,
        "folder": limits.folder,
        **given,
    }
    try:
        return SlurmPool.model_validate(content)
    except ValidationError as error:
        raise KnockemError(f"The scheduler {configuration.name} of workflow {workflow.id} is none: {error}") from error


def _gpus(gres: str) -> int:
    """Return how many GPUs generic resources name, as in gpu:2 and gpu:a100:2."""
    counts = [part.split(":")[-1] for part in gres.split(",") if part.split(":")[0] == "gpu"]
    return sum(int(count) if count.isdigit() else 1 for count in counts)
