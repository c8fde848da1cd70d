"""From the settings to the pools there are, each with its scheduler: those of the file, then those of workflows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from knockem_dagster.errors import InvalidInput, KnockemError
from knockem_dagster.nodes.docker_compose import DockerCompose
from knockem_dagster.nodes.node_pools import (
    AwsBatchPool,
    ComposePool,
    KubernetesPool,
    NodePool,
    NodePools,
    SlurmPool,
    WorkflowLimits,
    read_node_pools,
)
from knockem_dagster.nodes.pool_states import PoolOfNodes
from knockem_dagster.nodes.schedulers import Scheduler
from knockem_dagster.nodes.slurm import Slurm
from knockem_dagster.nodes.workflow_pools import Refused, pools_of_workflows
from knockem_dagster.platform import Platform
from knockem_dagster.settings import Settings

LAUNCHER = Path(__file__).parents[2] / "knockem"
FILE_NAME = "nodes.yaml"


def node_pools_file(settings: Settings) -> Path:
    """Return where the file of node pools is, or would be."""
    return settings.nodes or settings.folder / FILE_NAME


def pools_of_settings(settings: Settings) -> tuple[NodePools, tuple[NodePool, ...]] | None:
    """Return what the file of node pools says; None where there is none, and none was named. Raises InvalidInput."""
    return read_node_pools(node_pools_file(settings), is_named=settings.nodes is not None)


def has_workflow_limits(settings: Settings) -> bool:
    """Tell whether schedulers of workflow files are used: of none while the file of node pools has faults."""
    try:
        found = pools_of_settings(settings)
    except InvalidInput:
        return False
    return found is not None and found[0].workflows is not None


@dataclass(frozen=True, slots=True)
class OpenedPools:
    """The pools there are, where their nodes reach the HTTP API, what cannot be used, and the limits of workflows'."""

    url: str
    pools: Sequence[PoolOfNodes]
    refused: Sequence[Refused]
    workflow_limits: WorkflowLimits | None = None


def open_pools(platform: Platform) -> OpenedPools | None:
    """Return the pools there are; None where the user has written none. Raises InvalidInput with every fault."""
    found = pools_of_settings(platform.settings)
    if found is None:
        return None
    whole, pools = found
    opened: list[PoolOfNodes] = []
    refused: list[Refused] = []
    for pool in pools:
        try:
            opened.append(PoolOfNodes(pool, scheduler_of(pool)))
        except KnockemError as error:
            refused.append(Refused(pool.name, pool.scheduler, str(error)))
    for workflow, pool in () if whole.workflows is None else pools_of_workflows(platform.records, whole.workflows):
        if isinstance(pool, Refused):
            refused.append(pool)
        else:
            opened.append(PoolOfNodes(pool, scheduler_of(pool), workflow=workflow))
    return OpenedPools(whole.url, opened, refused, whole.workflows)


def scheduler_of(pool: NodePool) -> Scheduler:
    """Return the scheduler of a pool. Raises KnockemError where the package it needs is not installed."""
    match pool:
        case SlurmPool():
            return Slurm(pool, launcher=LAUNCHER)
        case KubernetesPool():
            from knockem_dagster.nodes.kubernetes import Kubernetes  # here, because its client takes a second

            return Kubernetes(pool)
        case AwsBatchPool():
            from knockem_dagster.nodes.aws_batch import AwsBatch  # here, because its client takes half a second

            return AwsBatch(pool)
        case ComposePool():
            return DockerCompose(pool)
        case _:
            raise NotImplementedError(pool.scheduler)
