"""A look at all nodes: limits that pools have together, what takes too long, and who looks at a time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from knockem_dagster.accounts.tokens import MOST_DAYS
from knockem_dagster.jobs.alone import SeenToElsewhere
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import OwnerSettings, Queue
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.nodes.acquiring import MOST_FAILURES, NodeKeeper, token_days
from knockem_dagster.nodes.node_pools import WorkflowLimits
from knockem_dagster.nodes.node_records import dismiss_failures, note_sight
from knockem_dagster.nodes.opening import open_pools
from knockem_dagster.nodes.pool_states import PoolOfNodes, PoolState
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, NodeSight, SchedulerAway
from knockem_dagster.nodes.tending import preview_nodes, states_of_refused, tend_nodes
from knockem_dagster.platform import Platform
from knockem_dagster.records.nodes import NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import new_id
from sensors.nodes import watch_nodes
from tests.services.job_play import new_workflow
from tests.services.platforms import tick
from tests.services.pools import slurm_pool
from tests.services.queue_play import play
from tests.services.queues import QueueServer, running_queue

ONE = Requirement(cpus=1, memory_mib=10, seconds=60, runtime="command")
LARGE = Requirement(cpus=16, memory_mib=10, seconds=60, runtime="command")
POOL = {"name": "p", "cpus": 1, "memory": "1g", "walltime": "10", "max_nodes": 4, "max_node_hours": 1}


@dataclass
class Waiting:
    """A scheduler in which all nodes wait."""

    asked: list[str] = field(default_factory=list[str])
    is_away: bool = False

    def ask(self, order: NodeOrder) -> str:
        self.asked.append(order.name)
        return order.name

    def look(self, nodes: Mapping[str, str | None]) -> Mapping[str, NodeSight]:
        if self.is_away:
            raise SchedulerAway("away")
        return {name: NodeSight(name, NodeState.PENDING) for name in nodes}

    def release(self, external_ids: Collection[str]) -> None:
        assert not external_ids, "nothing is to be let go"

    def preview(self, order: NodeOrder) -> str:
        raise NotImplementedError


class Refusing(Waiting):
    """A scheduler that takes no request."""

    def ask(self, order: NodeOrder) -> str:
        raise NodeRefused("no such partition")


@pytest.fixture
def queue_server(tmp_path: Path) -> Iterator[QueueServer]:
    with running_queue(tmp_path / "home") as server:
        yield server


@pytest.fixture
def platform(queue_server: QueueServer) -> Iterator[Platform]:
    platform = Platform(queue_server.settings)
    yield platform
    platform.close()


def with_work(platform: Platform, server: QueueServer, *works: tuple[Requirement, int], most: int = 1000) -> str:
    """Make jobs of a new workflow ready; return its id."""
    workflow = new_workflow()
    platform.records.workflows.add(workflow)

    async def put(queue: Queue) -> None:
        for requirement, number in works:
            ready = [new_id().replace("-", "")[:16].encode() for _ in range(number)]
            await queue.enqueue(workflow.id, ready, requirement=requirement, settings=OwnerSettings(max_active=most))

    play(server, put)
    return workflow.id


def test_jobs_that_fit_no_node_keep_no_others_from_having_one(platform: Platform, queue_server: QueueServer) -> None:
    with_work(platform, queue_server, (LARGE, 2), (ONE, 10), most=2)
    scheduler = Waiting()
    keeper = NodeKeeper(platform.records, [PoolOfNodes(slurm_pool(), scheduler)], url="http://here")
    [state] = play(queue_server, keeper.tend)
    assert (state.wanted, len(scheduler.asked)) == (2, 2)


@pytest.mark.parametrize(("limits", "expected"), [((5, 1000), [4, 1, 0]), ((100, 1), [4, 2, 0])])
def test_all_workflows_together_are_within_their_limits(
    platform: Platform, queue_server: QueueServer, limits: tuple[int, float], expected: list[int]
) -> None:
    workflows = [with_work(platform, queue_server, (ONE, 10)) for _ in range(3)]
    pools = [PoolOfNodes(slurm_pool(name=f"{n}.s"), Waiting(), each) for n, each in enumerate(workflows)]
    most, hours = limits
    workflow_limits = WorkflowLimits(max_nodes=most, max_node_hours=hours, cpus=1, memory=1024)
    keeper = NodeKeeper(platform.records, pools, url="http://here", workflow_limits=workflow_limits)
    assert [state.asked for state in play(queue_server, keeper.tend)] == expected
    assert [state.asked for state in play(queue_server, keeper.tend)] == [0, 0, 0]
    for node in list(platform.records.scheduled_nodes.find({"pool": "0.s"})):
        note_sight(platform.records, node, NodeSight("1", NodeState.ENDED, "CANCELLED"))
    later = [PoolOfNodes(slurm_pool(name="later"), Waiting(), workflows[2])]
    keeper = NodeKeeper(platform.records, later, url="http://here", workflow_limits=workflow_limits)
    [state] = play(queue_server, keeper.tend)
    assert state.asked == 4, "what has ended without having been there is given back"


def test_what_takes_too_long_is_gone_on_with_by_the_next_look(platform: Platform, queue_server: QueueServer) -> None:
    with_work(platform, queue_server, (ONE, 10))
    schedulers = [Waiting(), Waiting()]
    names = ("first", "second")
    pools = [PoolOfNodes(slurm_pool(name=name), each) for name, each in zip(names, schedulers, strict=True)]
    keeper = NodeKeeper(platform.records, pools, url="http://here", asking_seconds=0)

    def look() -> list[PoolState]:
        return play(queue_server, keeper.tend)

    states = look()
    assert [len(each.asked) for each in schedulers] == [1, 0]
    assert "next look" in states[1].hindrance and not states[0].hindrance
    look()
    assert [len(each.asked) for each in schedulers] == [1, 1]
    look()
    assert [len(each.asked) for each in schedulers] == [2, 1]
    at_ease = NodeKeeper(platform.records, pools, url="http://here")
    assert [state.hindrance for state in play(queue_server, at_ease.tend)] == ["", ""]
    assert [len(each.asked) for each in schedulers] == [4, 4]


def test_work_of_a_pool_that_may_ask_for_nothing_is_for_the_pools_behind_it(
    platform: Platform, queue_server: QueueServer
) -> None:
    with_work(platform, queue_server, (ONE, 4))
    first, second = (
        PoolOfNodes(slurm_pool(name="first"), Refusing()),
        PoolOfNodes(slurm_pool(name="second"), Waiting()),
    )
    keeper = NodeKeeper(platform.records, [first, second], url="http://here")
    for _ in range(MOST_FAILURES):
        assert [state.asked for state in play(queue_server, keeper.tend)] == [0, 0]
    blocked, other = play(queue_server, keeper.tend)
    assert "3 nodes failed" in blocked.hindrance
    assert (blocked.wanted, other.asked) == (0, 4)


def test_who_has_jobs_that_nodes_cannot_do_is_left_out_and_nobody_else(
    platform: Platform, queue_server: QueueServer
) -> None:
    owner, other = (with_work(platform, queue_server, (ONE, number)) for number in (2, 3))
    pool = slurm_pool()
    usual = {"pool": "p", "scheduler": "slurm", "configuration": pool.digest, "token_id": new_id(), "seconds": 600}
    for _ in range(MOST_FAILURES):
        fields = {**usual, "id": new_id(), "state": "failed", "reason": "no image", "unableFor": [owner, "gone"]}
        platform.records.scheduled_nodes.add(ScheduledNodeRecord.model_validate(fields))
    keeper = NodeKeeper(platform.records, [PoolOfNodes(pool, Waiting())], url="http://here")
    [state] = play(queue_server, keeper.tend)
    assert (state.hindrance, state.asked) == ("", 3)
    assert list(state.left_out) == [owner], "who is not going any more is of no interest"
    assert "no image" in state.left_out[owner] and "nodes retry p" in state.left_out[owner]
    assert other not in state.left_out
    assert dismiss_failures(platform.records, "p") == MOST_FAILURES
    [state] = play(queue_server, keeper.tend)
    assert (state.left_out, state.asked) == ({}, 1), "four nodes at a time are permitted"


def test_nodes_of_a_pool_whose_scheduler_is_away_still_have_work_put_on_them(
    platform: Platform, queue_server: QueueServer
) -> None:
    with_work(platform, queue_server, (ONE, 5))
    scheduler = Waiting()
    first = PoolOfNodes(slurm_pool(name="first", max_nodes=2), scheduler)
    play(queue_server, NodeKeeper(platform.records, [first], url="http://here").tend)
    scheduler.is_away = True
    pools = [PoolOfNodes(slurm_pool(name="first"), scheduler), PoolOfNodes(slurm_pool(name="second"), Waiting())]
    away, other = play(queue_server, NodeKeeper(platform.records, pools, url="http://here").tend)
    assert (away.hindrance, away.asked, away.pending) == ("away", 0, 2)
    last_seen = play(queue_server, NodeKeeper(platform.records, pools, url="http://here").last_seen_states)
    assert [state.hindrance for state in last_seen] == ["away", ""], "people see it without asking the scheduler"
    assert other.asked == 3, "two of five jobs are for the nodes on their way"


def test_that_somebody_else_looks_is_told_from_that_there_are_no_pools(
    platform: Platform, queue_server: QueueServer
) -> None:
    home = platform.settings.home
    with dg.DagsterInstance.ephemeral() as instance:

        def sensed() -> str:
            skipped = tick(watch_nodes, home, instance)
            assert isinstance(skipped, dg.SkipReason)
            return str(skipped.skip_message)

        assert asyncio.run(tend_nodes(platform)) is None
        assert sensed() == "there are no node pools"
        nodes = platform.settings.folder / "nodes.yaml"
        nodes.write_text(json.dumps({"url": "http://here", "pools": []}))
        assert asyncio.run(tend_nodes(platform)) == []
        assert "names none" in sensed()

        async def meanwhile() -> None:
            async with queue_of(platform) as queue, queue.server.lock(f"{queue.prefix}:nodes", timeout=60):
                with pytest.raises(SeenToElsewhere):
                    await tend_nodes(platform)
                assert "somebody else" in await asyncio.to_thread(sensed)

        asyncio.run(meanwhile())


def test_a_pool_that_cannot_be_used_is_of_its_scheduler(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    monkeypatch.delitem(sys.modules, "knockem_dagster.nodes.kubernetes", raising=False)
    pool = {**POOL, "scheduler": "kubernetes", "image": "i"}
    (platform.settings.folder / "nodes.yaml").write_text(json.dumps({"url": "http://here", "pools": [pool]}))
    found = open_pools(platform)
    assert found is not None
    [state] = states_of_refused(found)
    assert (state.name, state.scheduler) == ("p", "kubernetes")
    assert "kubernetes" in state.hindrance
    previewed = asyncio.run(preview_nodes(platform))
    assert previewed == ([], [state]), "what cannot be used is told, too"


def test_a_token_outlives_the_node_that_waits_and_works() -> None:
    assert token_days(slurm_pool()) == 90
    assert token_days(slurm_pool(walltime="300-0")) == 330
    assert token_days(slurm_pool(walltime="366-0")) < MOST_DAYS
