"""The node-hours of pools, kept as sums, so that nobody adds up all nodes there ever were.

A node counts once, whoever is killed when: its hours stand under its id in the account of its pool before the record
says that it is over, and go from there into the sum, by one change of one document, only after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from knockem_dagster.records.catalog import Records
from knockem_dagster.records.nodes import OVER, NodeHoursRecord, ScheduledNodeRecord
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch

OF_WORKFLOWS = "of workflows"
"""The account of all nodes of workflows' pools together. No pool can have this name."""
MOST_APART = 50
"""Nodes that stand in an account one by one, about."""


def count_node(records: Records, node: ScheduledNodeRecord, hours: float) -> None:
    """Note what a node has used that is to be over. Once more for the same node is the same."""
    for name in (node.pool,) if node.workflow_id is None else (node.pool, OF_WORKFLOWS):
        account = _account(records, name)
        if len(account.ended) >= MOST_APART:
            _add_up(records, account)
        records.node_hours.patch(name, Patch(set={f"ended.{node.id}": hours}))


def node_hours(records: Records, name: str, live: Sequence[ScheduledNodeRecord]) -> float:
    """Return the hours used by the nodes of an account that are over, and promised to those that live.

    Read `live` before: what ends in between is not lost then, nor counted twice.
    """
    account = _account(records, name)
    promised = (hours_of(node) for node in live if node.id not in account.ended)
    return account.hours + sum(account.ended.values()) + sum(promised)


def hours_of(node: ScheduledNodeRecord) -> float:
    """Return the hours a node has used, or that are promised to it while it lives."""
    if not node.state.is_over:
        return node.seconds / 3600
    if node.hours is not None:
        return node.hours
    if node.started is None:
        return 0.0
    used = datetime.fromisoformat(node.ended or now()) - datetime.fromisoformat(node.started)
    return min(used.total_seconds(), node.seconds) / 3600


def _account(records: Records, name: str) -> NodeHoursRecord:
    """Return an account. It is opened before any of its nodes is over, but for those of a time before accounts."""
    found = records.node_hours.find_one(name)
    if found is not None:
        return found
    where = {"state": OVER} if name == OF_WORKFLOWS else {"state": OVER, "pool": name}
    over = (node for node in records.scheduled_nodes.find(where) if node.workflow_id or name != OF_WORKFLOWS)
    records.node_hours.add(NodeHoursRecord(id=name, hours=sum(map(hours_of, over))))
    return records.node_hours.get(name)


def _add_up(records: Records, account: NodeHoursRecord) -> None:
    """Put those into the sum that are over in the record, unless somebody else just does."""
    still = records.scheduled_nodes.get_many(sorted(account.ended))
    settled = {id: hours for id, hours in account.ended.items() if id not in still or still[id].state.is_over}
    change = Patch(
        set={"hours": account.hours + sum(settled.values()), "folds": account.folds + 1},
        unset=[f"ended.{id}" for id in settled],
    )
    records.documents.claim(records.node_hours.name, {"_id": account.id, "folds": account.folds}, change)
