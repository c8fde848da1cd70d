"""Node pools that workflow files bring: their SLURM schedulers, as far as their actions schedule nodes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from knockem_dagster.accounts.users import is_address
from knockem_dagster.jobs.specs.reading import faults_of
from knockem_dagster.jobs.specs.workflow_spec import mib_of_slurm
from knockem_dagster.nodes.node_pools import SlurmPool, WorkflowLimits
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import SchedulerConfigurationRecord
from knockem_dagster.records.jobs import WorkflowRecord
from knockem_dagster.records.nodes import LIVE

PERMITTED = frozenset(
    f"--{name}"
    for name in (
        *("comment", "constraint", "contiguous", "cpu-freq", "exclude", "exclusive", "hint", "licenses", "mail-type"),
        *("mail-user", "nice", "nodelist", "prefer", "priority", "reservation", "switches", "wckey"),
    )
)
"""Options that a workflow may add. Others could go beyond its limits, or take the platform's secrets along."""
_SAME = ("account", "partition", "qos", "gres", "tmp")


@dataclass(frozen=True, slots=True)
class Refused:
    """A pool that cannot be used, of the user's file or of a workflow, and why."""

    name: str
    scheduler: str
    reason: str


def pools_of_workflows(records: Records, limits: WorkflowLimits) -> Iterator[tuple[str, SlurmPool | Refused]]:
    """Yield the pools of workflows that are going, or have nodes, each with its workflow's id; or why one is none."""
    live = {node.workflow_id for node in records.scheduled_nodes.find({"state": LIVE}) if node.workflow_id}
    going = {workflow.id: workflow for workflow in records.workflows.find({"state": "running"})}
    for workflow in (going | records.workflows.get_many(sorted(live))).values():
        if workflow.is_graph:
            for configuration in records.scheduler_configurations.find({"workflowId": workflow.id}):
                if configuration.num_nodes:
                    yield workflow.id, _pool(workflow, configuration, limits)


def _pool(
    workflow: WorkflowRecord, configuration: SchedulerConfigurationRecord, limits: WorkflowLimits
) -> SlurmPool | Refused:
    options = configuration.options
    most = 1 if options.get("serialize_allocations") else min(configuration.num_nodes, limits.max_nodes)
    name = f"{workflow.id[:8]}.{configuration.id[:8]}"
    given = {option: options[option] for option in _SAME if option in options}
    try:
        memory = mib_of_slurm(str(options.get("mem", 0))) or limits.memory
    except ValueError:  # of a time when workflow files were not asked for it
        return Refused(name, "slurm", f"the scheduler {configuration.name!r} of its workflow cannot be used: mem")
    content: dict[str, Any] = {
        "name": name,
        "scheduler": "slurm",
        "cpus": limits.cpus,
        "memory": f"{memory}m",
        "gpus": _gpus(str(options.get("gres", ""))),
        "walltime": options["walltime"],
        "max_nodes": most,
        "max_node_hours": limits.max_node_hours,
        "idle_seconds": limits.idle_seconds,
        # Who is no user of the HTTP API has workers of everybody's.
        "user": workflow.user_email if is_address(workflow.user_email) else None,
        "extra": _words(str(options.get("extra", ""))),
        "setup": limits.setup,
        "command": limits.command,
        "folder": limits.folder,
        **given,
    }
    for option in content["extra"]:
        if option.partition("=")[0] not in PERMITTED:
            return Refused(name, "slurm", f"of sbatch's options, its workflow may not give {option!r}")
    try:
        return SlurmPool.model_validate(content)
    except ValidationError as error:
        told = "; ".join(f"{fault.field} {fault.value}: {fault.allowed}" for fault in faults_of(error, part=SlurmPool))
        return Refused(name, "slurm", f"the scheduler {configuration.name!r} of its workflow cannot be used: {told}")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation without an end: it is refused as it stands
        return [text]


def _gpus(gres: str) -> int:
    """Return how many GPUs generic resources name, as in gpu:2 and gpu:a100:2."""
    counts = [part.split(":")[-1] for part in gres.split(",") if part.split(":")[0] == "gpu"]
    return sum(int(count) if re.fullmatch(r"[0-9]{1,4}", count) else 1 for count in counts)
