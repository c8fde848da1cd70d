"""Nodes that were asked of a scheduler, until they are over and after."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from knockem_dagster.records.record import Record
from knockem_dagster.stores.documents import Collection, Index


class NodeState(StrEnum):
    """How far a node is: about to be asked for, waiting in its scheduler, there, over, or over before it could work."""

    ASKED = "asked"
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Tell whether the node is not there, and will not come."""
        return self in (NodeState.ENDED, NodeState.FAILED)


LIVE = {"$in": [state.value for state in NodeState if not state.is_over]}
"""The states of nodes that are there or may come."""
OVER = {"$in": [state.value for state in NodeState if state.is_over]}


class ScheduledNodeRecord(Record):
    """A node that was asked of a scheduler for one worker. The worker's compute node is named after its token."""

    collection: ClassVar[Collection] = Collection(
        "scheduledComputeNodes", (Index(("state",)), Index(("pool", "state")), Index(("pool", "datetime")))
    )

    pool: str
    scheduler: str
    configuration: str = Field(description="digest of the pool's configuration, by which it was asked for")
    workflow_id: str | None = Field(default=None, description="the only one that it works for")
    token_id: str = Field(description="the token of its worker")
    seconds: float = Field(description="for which it was asked, at most")
    external_id: str | None = Field(default=None, description="what the scheduler calls it")
    state: NodeState = NodeState.ASKED
    reason: str = Field(default="", description="the scheduler's: why it waits, or how it ended")
    started: str | None = Field(default=None, description="when it was first there, ISO 8601, UTC")
    ended: str | None = Field(default=None, description="when it was over, ISO 8601, UTC")
    hours: float | None = Field(default=None, description="used, once it is over")
    unneeded_since: str | None = Field(default=None, description="since when nothing is ready for it, while it waits")
    is_let_go: bool = Field(default=False, description="it was told not to come")
    unable_for: tuple[str, ...] = Field(default=(), description="owners whose jobs its worker could not do")
    is_dismissed: bool = Field(default=False, description="a failure that somebody has seen to")


class NodeHoursRecord(Record):
    """What the nodes of a pool have used that are over. The id is the pool's name."""

    collection: ClassVar[Collection] = Collection("nodeHours")

    hours: float = Field(description="of all that do not stand in `ended`")
    ended: dict[str, float] = Field(default_factory=dict[str, float], description="hours of the latest, by id")
    folds: int = Field(default=0, description="how often what stood in `ended` was added to `hours`")
