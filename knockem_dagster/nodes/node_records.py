"""What is recorded of nodes: what their scheduler says of them, who worked there, and how they ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import ValidationError

from knockem_dagster.accounts.tokens import revoke_token
from knockem_dagster.errors import NotFound
from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.jobs.work_messages import Inability
from knockem_dagster.nodes.node_hours import count_node, hours_of
from knockem_dagster.nodes.node_pools import NodePool
from knockem_dagster.nodes.schedulers import BROKEN_OFF, NodeSight, reason_of
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import ComputeNodeRecord
from knockem_dagster.records.nodes import LIVE, NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch

FORGOTTEN_HOURS = 30 * 24.0
"""How long a node of a pool that is not there any more may wait in its scheduler."""


def note_sight(records: Records, node: ScheduledNodeRecord, sight: NodeSight | None) -> None:
    """Record what a scheduler says of a node that lives, or that it has never heard of it."""
    if sight is None:
        unknown = "its scheduler does not know it" if node.external_id else BROKEN_OFF
        end_node(records, node, NodeState.ENDED, unknown)
    elif sight.state.is_over:
        said = _inability_of(records, worker_of(records, node))
        if said is not None and said.owners:
            records.scheduled_nodes.patch(node.id, Patch(set={"unableFor": said.owners}))
        end_node(records, node, *_end_of(records, node, sight, said), sight)
    else:
        told = {"externalId": sight.external_id, "state": sight.state.value, "reason": sight.reason}
        if sight.state is NodeState.RUNNING and node.started is None:
            told["started"] = now() if sight.started is None else sight.started.astimezone(UTC).isoformat()
        known = node.to_document()
        if any(known.get(name) != value for name, value in told.items()):
            records.scheduled_nodes.patch(node.id, Patch(set=told))


def _end_of(
    records: Records, node: ScheduledNodeRecord, sight: NodeSight, said: Inability | None
) -> tuple[NodeState, str]:
    """Tell whether a node that is over has failed, and why it is over."""
    if said is not None:
        return NodeState.FAILED, reason_of(said.inability)
    if worker_of(records, node) is not None:
        return NodeState.ENDED, sight.reason
    if node.is_let_go:
        return NodeState.ENDED, "let go: nothing was ready for it"
    return NodeState.FAILED, f"{sight.reason or 'it ended'} without having worked"


def _inability_of(records: Records, worker: ComputeNodeRecord | None) -> Inability | None:
    """Return what a worker says that could do nothing; who has its token may have said anything."""
    told = () if worker is None else records.events.find({"subject": worker.id})
    for event in told:
        if event.kind == "workerEnded":
            with suppress(ValidationError):
                return Inability.model_validate(event.data)
    return None


def end_node(
    records: Records, node: ScheduledNodeRecord, state: NodeState, reason: str, sight: NodeSight | None = None
) -> None:
    """Revoke the token of a node, count its hours, then record its end: killed in between, the next look does it again.

    What has been asked for, and is forgotten by its scheduler, may have been there for all its time.
    """
    with suppress(NotFound):
        revoke_token(records, node.token_id)
    told = {"ended": now(), "state": state.value, "reason": reason}
    worker = worker_of(records, node)
    if worker is not None:  # it knows, where the scheduler has forgotten
        told |= {"started": node.started or worker.datetime, "ended": worker.ended or told["ended"]}
    times = {} if sight is None else {"started": sight.started, "ended": sight.ended}
    told |= {name: time.astimezone(UTC).isoformat() for name, time in times.items() if time is not None}
    over = node.model_copy(update={**told, "state": state})
    is_forgotten = (sight is None or sight.is_forgotten) and node.external_id is not None and not node.is_let_go
    hours = node.seconds / 3600 if is_forgotten and over.started is None else hours_of(over)
    count_node(records, node, hours)
    records.scheduled_nodes.patch(node.id, Patch(set={**told, "hours": hours}))


def dismiss_failures(records: Records, pool: str) -> int:
    """Let a pool's failures so far keep nobody from asking for nodes again; return how many have not been before."""
    failed = records.scheduled_nodes.find({"pool": pool, "state": NodeState.FAILED.value})
    standing = [node for node in failed if not node.is_dismissed]
    for node in standing:
        records.scheduled_nodes.patch(node.id, Patch(set={"isDismissed": True}))
    return len(standing)


def latest_failures(records: Records, pool: NodePool, *, most: int) -> list[ScheduledNodeRecord]:
    """Return the latest nodes of a pool as far as they failed one after the other, `most` of them at most.

    One that worked says that the configuration does. Those say nothing that have not come, or could not do the jobs of
    some owners only.
    """
    failures: list[ScheduledNodeRecord] = []
    for node in records.scheduled_nodes.find({"pool": pool.name}, sort=[("datetime", -1)]):
        if node.configuration != pool.digest or node.is_dismissed or len(failures) == most:
            break
        if node.unable_for:
            continue
        if node.state is NodeState.FAILED:
            failures.append(node)
        elif worker_of(records, node):
            break
    return failures


def failures_by_owner(records: Records, pool: NodePool) -> Mapping[str, Sequence[ScheduledNodeRecord]]:
    """Return the nodes of a pool that could not do the jobs of some owners, by these, the latest first."""
    found: dict[str, list[ScheduledNodeRecord]] = {}
    failed = records.scheduled_nodes.find({"pool": pool.name, "state": NodeState.FAILED.value})
    for node in sorted(failed, key=lambda node: node.datetime, reverse=True):
        if node.configuration == pool.digest and not node.is_dismissed:
            for owner in node.unable_for:
                found.setdefault(owner, []).append(node)
    return found


def forget_nodes_but(records: Records, pools: Collection[str]) -> None:
    """End the nodes of pools that are no longer there, once they must be over: their workers end by themselves."""
    for node in list(records.scheduled_nodes.find({"state": LIVE})):
        since = hours_since(node.started or node.datetime)
        if node.pool not in pools and since > (FORGOTTEN_HOURS if node.started is None else node.seconds / 3600):
            end_node(records, node, NodeState.ENDED, "its pool is not there any more")


def has_live_nodes(records: Records) -> bool:
    """Tell whether any node is not over."""
    return next(records.scheduled_nodes.find({"state": LIVE}, limit=1), None) is not None


def worker_of(records: Records, node: ScheduledNodeRecord) -> ComputeNodeRecord | None:
    """Return the compute node that the worker of a node has registered as, if it has come."""
    return next(iter(records.compute_nodes.beginning_with(worker_prefix(node.token_id), most=1)), None)


def hours_since(time: str) -> float:
    """Return the hours since a time of the record."""
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds() / 3600
