"""From the settings to the pools there are, each with its scheduler: those of the file, then those of workflows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from knockem_dagster.errors import KnockemError
from knockem_dagster.nodes.acquiring import PoolOfNodes
from knockem_dagster.nodes.docker_compose import DockerCompose
from knockem_dagster.nodes.node_pools import (
    AwsBatchPool,
    ComposePool,
    KubernetesPool,
    NodePool,
    SlurmPool,
    read_node_pools,
)
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


@dataclass(frozen=True, slots=True)
class OpenedPools:
    """The pools there are, where their nodes reach the HTTP API, and what cannot be used."""

    url: str
    pools: Sequence[PoolOfNodes]
    refused: Sequence[Refused]


def open_pools(platform: Platform) -> OpenedPools | None:
    """Return the pools there are; None where the user has written none. Raises InvalidInput with every fault."""
    found = read_node_pools(node_pools_file(platform.settings))
    if found is None:
        return None
    whole, pools = found
    opened: list[PoolOfNodes] = []
    refused: list[Refused] = []
    for pool in pools:
        try:
            opened.append(PoolOfNodes(pool, scheduler_of(pool)))
        except KnockemError as error:
            refused.append(Refused(pool.name, str(error)))
    for workflow, pool in () if whole.workflows is None else pools_of_workflows(platform.records, whole.workflows):
        if isinstance(pool, Refused):
            refused.append(pool)
        else:
            opened.append(PoolOfNodes(pool, scheduler_of(pool), workflow=workflow))
    return OpenedPools(whole.url, opened, refused)


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
