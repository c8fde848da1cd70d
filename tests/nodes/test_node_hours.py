"""Node-hours: each node counts once, whoever is killed when, and nobody adds up all nodes there ever were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.nodes.node_hours import MOST_APART, OF_WORKFLOWS, count_node, node_hours
from knockem_dagster.nodes.node_records import dismiss_failures, end_node, latest_failures, note_sight
from knockem_dagster.nodes.schedulers import NodeSight
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.nodes import LIVE, NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import new_id
from knockem_dagster.stores.documents import Patch
from tests.services.job_play import record_in
from tests.services.pools import slurm_pool

HOUR = 3600.0
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with record_in(tmp_path / "home") as platform:
        yield platform.records


def a_node(records: Records, pool: str = "p", **fields: Any) -> ScheduledNodeRecord:
    usual = {"scheduler": "slurm", "configuration": "c", "token_id": new_id(), "seconds": 10 * HOUR}
    node = ScheduledNodeRecord.model_validate({"id": new_id(), "pool": pool, **usual, **fields})
    assert records.scheduled_nodes.add(node)
    return node


def saw(hours: float) -> NodeSight:
    return NodeSight("1", NodeState.ENDED, "COMPLETED", BEGAN, BEGAN + timedelta(hours=hours))


def hours(records: Records, name: str = "p") -> float:
    found = records.scheduled_nodes.find({"state": LIVE})
    return node_hours(records, name, [node for node in found if name in (node.pool, OF_WORKFLOWS)])


def test_hours_are_promised_and_what_was_not_used_is_given_back(records: Records) -> None:
    first, _ = a_node(records), a_node(records)
    assert hours(records) == 20
    note_sight(records, first, saw(3))
    assert hours(records) == 13
    assert records.scheduled_nodes.get(first.id).hours == 3


def test_a_node_whose_end_is_recorded_twice_counts_once(records: Records) -> None:
    node, other = a_node(records), a_node(records)
    count_node(records, node, 2.0)  # and killed, before the record says that it is over
    assert hours(records) == 12
    note_sight(records, other, saw(1))
    for _ in range(MOST_APART + 1):
        note_sight(records, a_node(records), saw(1))
    note_sight(records, node, saw(2))
    assert hours(records) == pytest.approx(1 + MOST_APART + 1 + 2)


def test_the_sum_is_kept_and_what_stands_apart_stays_little(records: Records) -> None:
    for _ in range(3 * MOST_APART):
        note_sight(records, a_node(records), saw(1))
    account = records.node_hours.get("p")
    assert len(account.ended) <= MOST_APART and account.folds >= 2
    assert hours(records) == 3 * MOST_APART
    records.documents.delete(records.scheduled_nodes.name, {"pool": "p"})
    assert hours(records) == 3 * MOST_APART, "nodes that are over are not read again"


def test_nodes_of_a_time_before_accounts_are_counted(records: Records) -> None:
    times = {"started": BEGAN.isoformat(), "ended": (BEGAN + timedelta(hours=4)).isoformat()}
    for name, workflow in (("p", None), ("w.1", "w"), ("w.2", "w")):
        a_node(records, name, state=NodeState.ENDED, workflow_id=workflow, **times)
    note_sight(records, a_node(records), saw(1))
    assert (hours(records), hours(records, "w.1"), hours(records, OF_WORKFLOWS)) == (5, 4, 8)


def test_all_nodes_of_workflows_are_counted_together_also_when_they_are_over(records: Records) -> None:
    for number in range(3):
        note_sight(records, a_node(records, f"{number}.s", workflow_id=f"{number}"), saw(2))
    a_node(records, "3.s", workflow_id="3")
    assert hours(records, OF_WORKFLOWS) == 6 + 10


@pytest.mark.parametrize(
    ("fields", "sight", "expected"),
    [
        ({"external_id": "1"}, None, 10),
        ({"external_id": "1"}, NodeSight("1", NodeState.ENDED, "forgotten", is_forgotten=True), 10),
        ({"external_id": "1"}, NodeSight("1", NodeState.ENDED, "CANCELLED"), 0),
        ({"external_id": "1", "is_let_go": True}, None, 0),
        ({}, None, 0),
    ],
)
def test_what_its_scheduler_has_forgotten_may_have_been_there_for_all_its_time(
    records: Records, fields: dict[str, Any], sight: NodeSight | None, expected: float
) -> None:
    note_sight(records, a_node(records, **fields), sight)
    assert hours(records) == expected


def test_failures_stand_until_a_node_works_the_pool_changes_or_they_are_dismissed(records: Records) -> None:
    pool = slurm_pool(name="p")

    def failed(number: int, **fields: Any) -> ScheduledNodeRecord:
        moment = (BEGAN + timedelta(minutes=number)).isoformat()
        node = a_node(records, **{"configuration": pool.digest, "datetime": moment, **fields})
        end_node(records, node, NodeState.FAILED, f"{number}")
        return node

    def standing() -> list[str]:
        return [node.reason for node in latest_failures(records, pool, most=3)]

    failed(0)
    assert standing() == ["0"]
    records.scheduled_nodes.patch(failed(1).id, Patch(set={"state": "ended"}))
    for number in range(2, 7):
        failed(number)
    assert standing() == ["6", "5", "4"]
    assert dismiss_failures(records, "p") == 6
    assert standing() == []
    failed(7)
    assert standing() == ["7"]
    assert dismiss_failures(records, "p") == 1, "those that were dismissed before are not counted again"
    failed(8)
    failed(9, configuration="another")
    assert standing() == []
