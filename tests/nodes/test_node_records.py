"""What is recorded of a node that is over: by what its worker said, which may be anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.nodes.node_records import latest_failures, note_sight
from knockem_dagster.nodes.schedulers import MOST_REASON, NodeSight
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import ComputeNodeRecord, EventRecord
from knockem_dagster.records.nodes import NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import new_id
from tests.services.job_play import record_in
from tests.services.pools import slurm_pool

OVER = NodeSight("1", NodeState.ENDED, "COMPLETED")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with record_in(tmp_path / "home") as platform:
        yield platform.records


def ended(records: Records, *said: tuple[str, dict[str, Any]]) -> ScheduledNodeRecord:
    """Return a node that is over, whose worker said this: kinds of events, and what they hold."""
    token = new_id()
    node = ScheduledNodeRecord(
        id=new_id(), pool="p", scheduler="slurm", configuration="c", token_id=token, seconds=60, external_id="1"
    )
    worker = ComputeNodeRecord(
        id=f"{worker_prefix(token)}here", host="here", cpus=1, memory_mib=64, gpus=0, runtimes=()
    )
    assert records.scheduled_nodes.add(node)
    assert records.compute_nodes.add(worker)
    for kind, data in said:
        records.events.add(EventRecord(id=new_id(), subject=worker.id, source=worker.id, kind=kind, data=data))
    note_sight(records, node, OVER)
    return records.scheduled_nodes.get(node.id)


@pytest.mark.parametrize("inability", [{}, [], None, 7, True, "", "\n"])
def test_an_inability_that_is_no_text_is_none(records: Records, inability: object) -> None:
    node = ended(records, ("workerEnded", {"inability": inability}))
    assert (node.state, node.reason) == (NodeState.ENDED, "COMPLETED")
    assert list(records.scheduled_nodes.find({})) == [node], "it can be read"


def test_only_the_end_of_a_worker_tells_its_inability(records: Records) -> None:
    assert ended(records, ("workerStarted", {"inability": "no image"})).state is NodeState.ENDED


def test_an_inability_is_one_line_as_all_reasons_are(records: Records) -> None:
    node = ended(records, ("workerEnded", {}), ("workerEnded", {"inability": "no\nimage " + "x" * 1000}))
    assert node.state is NodeState.FAILED
    assert node.reason.startswith("no image x")
    assert len(node.reason) == MOST_REASON


def test_a_node_that_could_not_do_the_jobs_of_some_owners_names_them(records: Records) -> None:
    node = ended(records, ("workerEnded", {"inability": "no image", "owners": ["a", "b"]}))
    assert (node.state, node.reason, node.unable_for) == (NodeState.FAILED, "no image", ("a", "b"))


@pytest.mark.parametrize("owners", ["a", {"a": 1}, [7], ["a" * 1000]])
def test_owners_that_are_none_say_nothing(records: Records, owners: object) -> None:
    node = ended(records, ("workerEnded", {"inability": "no image", "owners": owners}))
    assert (node.state, node.unable_for) == (NodeState.ENDED, ())


def test_only_nodes_that_came_say_something_of_a_pool(records: Records) -> None:
    pool = slurm_pool()

    def over(minute: int, state: NodeState, **fields: Any) -> ScheduledNodeRecord:
        node = ScheduledNodeRecord(
            id=new_id(),
            datetime=f"2026-01-01T00:{minute:02}:00+00:00",
            pool=pool.name,
            scheduler="slurm",
            configuration=pool.digest,
            token_id=new_id(),
            seconds=60,
            state=state,
            reason=f"{minute}",
            **fields,
        )
        assert records.scheduled_nodes.add(node)
        return node

    def standing() -> list[str]:
        return [node.reason for node in latest_failures(records, pool, most=3)]

    over(1, NodeState.FAILED)
    for minute in range(2, 20):
        over(minute, NodeState.ENDED, is_let_go=True)
        over(minute, NodeState.PENDING)
        over(minute, NodeState.FAILED, unable_for=["a"])
    over(20, NodeState.FAILED)
    assert standing() == ["20", "1"], "nodes let go, that wait, or that could not do one owner's jobs say nothing"
    came = over(21, NodeState.ENDED)
    worker = ComputeNodeRecord(id=f"{worker_prefix(came.token_id)}x", host="x", cpus=1, memoryMiB=1)
    assert records.compute_nodes.add(worker)
    assert standing() == []
