"""What the jobs of a workflow wait for, read and make: the other nodes and the edges of the seed's job database.

An edge is a document {_from, _to} of "collection/id", so that the graph can be walked either way.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from knockem_dagster.records.record import Record, derived_id
from knockem_dagster.stores.documents import Collection, Index

_OF_WORKFLOW = Index(("workflowId", "_id"))
_WALKED = (_OF_WORKFLOW, Index(("_from",)), Index(("_to",)))


class FileRecord(Record):
    """A file that jobs read or write."""

    collection: ClassVar[Collection] = Collection("files", (_OF_WORKFLOW,))

    workflow_id: str
    name: str
    path: str


class ResourceRequirementsRecord(Record):
    """What jobs need while they run."""

    collection: ClassVar[Collection] = Collection("resourceRequirements", (_OF_WORKFLOW,))

    workflow_id: str
    name: str
    num_cpus: int
    memory_mib: int = Field(alias="memoryMiB", description="MiB")
    num_gpus: int = 0
    num_nodes: int = 1
    seconds: float = Field(description="at most")


class SchedulerConfigurationRecord(Record):
    """How nodes are asked of a scheduler."""

    collection: ClassVar[Collection] = Collection("schedulerConfigurations", (_OF_WORKFLOW,))

    workflow_id: str
    name: str
    scheduler: str = Field(description="slurm")
    options: dict[str, str | int | bool] = Field(default_factory=dict[str, "str | int | bool"])
    num_nodes: int = Field(default=0, description="that the workflow's actions schedule, at a time")


class UserDataRecord(Record):
    """JSON that jobs read or write."""

    collection: ClassVar[Collection] = Collection("userData", (_OF_WORKFLOW,))

    workflow_id: str
    name: str
    is_ephemeral: bool = False
    data: Any = None
    changed: str | None = Field(default=None, description="when it was last given other data; none: never")


class WorkerActionRecord(Record):
    """Commands that each worker runs before its first job of a workflow, or when it leaves."""

    collection: ClassVar[Collection] = Collection("workerActions", (_OF_WORKFLOW,))

    workflow_id: str
    number: int = Field(description="its place among the workflow's actions")
    name: str
    trigger: Literal["on_worker_start", "on_worker_complete"]
    command: tuple[str, ...] = Field(description="the program and its arguments")
    environment: dict[str, str] = Field(default_factory=dict[str, str], description="beside PATH, HOME and LANG")
    folder: str | None = Field(default=None, description="where it runs; default: where the worker was started")


class EdgeRecord(Record):
    """From one node to another, both as "collection/id"."""

    workflow_id: str
    origin: str = Field(alias="_from")
    target: str = Field(alias="_to")


class BlocksEdge(EdgeRecord):
    """A job blocks another job: the other waits for it."""

    collection: ClassVar[Collection] = Collection("blocks", _WALKED)


class NeedsEdge(EdgeRecord):
    """A job needs a file, or user data."""

    collection: ClassVar[Collection] = Collection("needs", _WALKED)


class ProducesEdge(EdgeRecord):
    """A job produces a file."""

    collection: ClassVar[Collection] = Collection("produces", _WALKED)


class RequiresEdge(EdgeRecord):
    """A job has a set of resource requirements."""

    collection: ClassVar[Collection] = Collection("requires", _WALKED)


class ScheduledByEdge(EdgeRecord):
    """A job is scheduled by a specific scheduler."""

    collection: ClassVar[Collection] = Collection("scheduled_by", _WALKED)


class StoresEdge(EdgeRecord):
    """A job stores user data."""

    collection: ClassVar[Collection] = Collection("stores", _WALKED)


def place_of(model: type[Record], id: str) -> str:
    """Return how an edge names a node."""
    return f"{model.collection.name}/{id}"


def id_at(place: str) -> str:
    """Return the id of the node that an edge names."""
    return place.partition("/")[2]


def edge_id(kind: type[EdgeRecord], origin: str, target: str) -> str:
    """Return the id of an edge: the same nodes have one edge of a kind."""
    return derived_id(kind.collection.name, origin, target)
