"""What is asked of a scheduler, whichever it is: a node, what became of it, and to let it go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from knockem_dagster.errors import KnockemError
from knockem_dagster.records.nodes import NodeState

NAME = "knockem-"
"""What the names of our nodes begin with."""
ANSWER_SECONDS = 20
"""How long a scheduler has for an answer: a look at all of them has a minute."""
BROKEN_OFF = "asking for it did not come to an end"
"""The reason of a node of which its scheduler knows nothing, or only the beginning."""
MOST_REASON = 400
"""Characters of a reason."""


class SchedulerAway(KnockemError):
    """The scheduler does not answer: nothing is known of its nodes, and none can be asked for."""


class NodeRefused(KnockemError):
    """The scheduler does not take the request, and says why."""


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """A node to ask for. `environment` holds the worker's token: it belongs in no command line and no log."""

    name: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodeSight:
    """What a scheduler says of a node: pending, running or ended; `reason`: why it waits or how it ended.

    `is_forgotten`: it is over, and nothing is known any more of how it was.
    """

    external_id: str
    state: NodeState
    reason: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    is_forgotten: bool = False


class Scheduler(Protocol):
    """Where nodes come from. Every method raises SchedulerAway."""

    def ask(self, order: NodeOrder) -> str:
        """Ask for a node; return what the scheduler calls it. Raises NodeRefused."""
        ...

    def look(self, nodes: Mapping[str, str | None]) -> Mapping[str, NodeSight]:
        """Return what is known of nodes, given by name with what the scheduler calls them, if that is known."""
        ...

    def release(self, external_ids: Collection[str]) -> None:
        """Let nodes go: those that wait do not come, those that are there drain. Nothing happens to others."""
        ...

    def preview(self, order: NodeOrder) -> str:
        """Return how a node would be asked for, for people to read."""
        ...


def node_name(id: str) -> str:
    """Return the name of a node for its scheduler."""
    return f"{NAME}{id}"


def reason_of(*parts: str | None) -> str:
    """Return a reason in one line: what there is of its parts, the general before the particular."""
    return " ".join(": ".join(part for part in parts if part).split())[:MOST_REASON]
