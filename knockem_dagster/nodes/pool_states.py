"""Pools at work: each with its scheduler, and how it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from knockem_dagster.nodes.node_pools import NodePool
from knockem_dagster.nodes.schedulers import Scheduler
from knockem_dagster.records.nodes import NodeState, ScheduledNodeRecord


@dataclass(frozen=True, slots=True)
class PoolOfNodes:
    """A pool with its scheduler; `workflow`: the only one that its nodes work for."""

    pool: NodePool
    scheduler: Scheduler
    workflow: str | None = None


@dataclass(slots=True)
class PoolState:
    """How a pool does. `starting`: there, but not working yet; `hours`: used, and promised to nodes that live.

    `live`: its nodes that are not over; `hindrance`: why no more is asked for; `left_out`: owners for whose jobs alone
    no more is asked for, and why.
    """

    name: str
    scheduler: str
    live: Sequence[ScheduledNodeRecord] = ()
    starting: int = 0
    hours: float = 0.0
    max_nodes: int = 0
    max_node_hours: float = 0.0
    wanted: int = 0
    asked: int = 0
    released: int = 0
    hindrance: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def obstacles(self) -> list[str]:
        """Why no more is asked for, and for whom."""
        of_all = [f"no more is asked for: {self.hindrance}"] if self.hindrance else []
        return of_all + [f"no more is asked for {owner}: {why}" for owner, why in self.left_out.items()]

    @property
    def running(self) -> int:
        """How many nodes are there."""
        return sum(node.state is NodeState.RUNNING for node in self.live)

    @property
    def pending(self) -> int:
        """How many nodes wait in their scheduler."""
        return len(self.live) - self.running
