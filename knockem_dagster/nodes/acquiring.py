"""Acquiring nodes while more work is ready than there are slots, and letting them go; safe to be killed anywhere.

A node is in the record before its scheduler hears of it, by a name that the record knows: whoever looks next finds it
there, or knows that it never came. Workers end by themselves when idle, so that nodes end also when nobody looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile

from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.errors import Conflict, KnockemError
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.nodes.demand import Demand, Offer, ReadyWork, demand_of
from knockem_dagster.nodes.node_pools import NodePool
from knockem_dagster.nodes.node_records import end_node, forget_nodes_but, hours_of, hours_since, note_sight, worker_of
from knockem_dagster.nodes.schedulers import (
    NodeOrder,
    NodeRefused,
    Scheduler,
    SchedulerAway,
    node_name,
)
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.nodes import LIVE, NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import new_id, now
from knockem_dagster.stores.documents import Patch

MOST_FAILURES = 3
"""Nodes of a pool that may fail one after the other before they could work; then no more is asked for."""
MOST_ASKED = 50
"""Nodes asked for in one look, of one pool."""
NOBODY = "nodes@localhost"
"""The user whose tokens nodes have that work for everybody."""


@dataclass(frozen=True, slots=True)
class PoolOfNodes:
    """A pool with its scheduler; `workflow`: the only one that its nodes work for."""

    pool: NodePool
    scheduler: Scheduler
    workflow: str | None = None


@dataclass(slots=True)
class PoolState:
    """How a pool does. `starting`: there, but not working yet; `hours`: used, and promised to nodes that live.

    `hindrance`: why no more is asked for.
    """

    name: str
    scheduler: str
    pending: int = 0
    starting: int = 0
    running: int = 0
    hours: float = 0.0
    max_nodes: int = 0
    max_node_hours: float = 0.0
    wanted: int = 0
    asked: int = 0
    released: int = 0
    hindrance: str = ""
    live: list[ScheduledNodeRecord] = field(default_factory=list[ScheduledNodeRecord])


class NodeKeeper:
    """Looks after the nodes of some pools, in the order in which they are to be filled."""

    def __init__(self, records: Records, pools: Sequence[PoolOfNodes], *, url: str) -> None:
        self._records = records
        self._pools = pools
        self._url = url

    async def tend(self, queue: Queue) -> list[PoolState]:
        """Look at all nodes once; ask for more where work is ready, and let go what nothing is ready for."""
        await asyncio.to_thread(forget_nodes_but, self._records, {each.pool.name for each in self._pools})
        states = [await asyncio.to_thread(self._look, each) for each in self._pools]
        demands = await self.demands(queue, states)
        for each, state, demand in zip(self._pools, states, demands, strict=True):
            await asyncio.to_thread(self._act, each, state, demand)
        return states

    async def demands(self, queue: Queue, states: Sequence[PoolState]) -> list[Demand]:
        """Return how many nodes of each pool the ready work would fill."""
        ready = await _ready_work(queue)
        users = await asyncio.to_thread(self._users, {work.owner for work in ready})
        offers = [_offer(each, state, users) for each, state in zip(self._pools, states, strict=True)]
        return demand_of(ready, offers)

    def states(self) -> list[PoolState]:
        """Return how the pools do, by the record alone."""
        return [self._state(each) for each in self._pools]

    def _look(self, each: PoolOfNodes) -> PoolState:
        live = list(self._records.scheduled_nodes.find({"pool": each.pool.name, "state": LIVE}))
        away = ""
        try:
            sights = each.scheduler.look({node_name(node.id): node.external_id for node in live}) if live else {}
        except SchedulerAway as error:
            away = str(error)
        else:
            for node in live:
                note_sight(self._records, node, sights.get(node_name(node.id)))
        state = self._state(each)
        state.hindrance = away or state.hindrance
        return state

    def _state(self, each: PoolOfNodes) -> PoolState:
        pool = each.pool
        nodes = list(self._records.scheduled_nodes.find({"pool": pool.name}, sort=[("datetime", -1)]))
        live = [node for node in nodes if not node.state.is_over]
        there = [node for node in live if node.state is NodeState.RUNNING]
        latest = [node for node in nodes if node.configuration == pool.digest and not node.is_dismissed]
        # Those that have not come so far say nothing; one that worked says that the configuration does.
        tried = (node for node in latest if node.state.is_over or worker_of(self._records, node))
        failures = list(takewhile(lambda node: node.state is NodeState.FAILED, tried))
        state = PoolState(
            pool.name,
            pool.scheduler,
            pending=len(live) - len(there),
            starting=sum(worker_of(self._records, node) is None for node in there),
            running=len(there),
            hours=sum(map(hours_of, nodes)),
            max_nodes=pool.max_nodes,
            max_node_hours=pool.max_node_hours,
            live=live,
        )
        if len(failures) >= MOST_FAILURES:
            state.hindrance = (
                f"{len(failures)} nodes failed before they could work; the last: {failures[0].reason}. "
                f"`./knockem nodes retry {pool.name}` tries again, as does a change of the pool."
            )
        return state

    def _act(self, each: PoolOfNodes, state: PoolState, demand: Demand) -> None:
        state.wanted = demand.more
        superfluous = state.pending + state.starting - demand.used
        self._let_go(each, state, max(0, superfluous))
        for _ in range(0 if state.hindrance else min(demand.more, MOST_ASKED)):
            try:
                self._ask(each)
            except KnockemError as error:
                state.hindrance = str(error)
                return
            state.asked += 1

    def _let_go(self, each: PoolOfNodes, state: PoolState, superfluous: int) -> None:
        """Let nodes go that wait in their scheduler while nothing was ready for them for long."""
        waiting = [node for node in state.live if node.state is NodeState.PENDING]
        for node in waiting[superfluous:]:
            if node.unneeded_since is not None:
                self._records.scheduled_nodes.patch(node.id, Patch(unset=("unneededSince",)))
        for node in waiting[:superfluous]:
            if node.unneeded_since is None:
                self._records.scheduled_nodes.patch(node.id, Patch(set={"unneededSince": now()}))
        gone = [
            node
            for node in waiting[:superfluous]
            if node.unneeded_since and hours_since(node.unneeded_since) * 3600 >= each.pool.idle_seconds
        ]
        for node in gone:  # what becomes of it is seen by the next look
            self._records.scheduled_nodes.patch(node.id, Patch(set={"isLetGo": True}))
        with suppress(SchedulerAway):
            each.scheduler.release([node.external_id for node in gone if node.external_id])
            state.released = len(gone)

    def _ask(self, each: PoolOfNodes) -> None:
        pool = each.pool
        user = self._user_for(each)
        token, secret = issue_token(
            self._records, user, Scope.WORKER, label=f"a node of {pool.name}", for_all=user == NOBODY
        )
        node = ScheduledNodeRecord(
            id=new_id(),
            pool=pool.name,
            scheduler=pool.scheduler,
            configuration=pool.digest,
            workflow_id=each.workflow,
            token_id=token.id,
            seconds=pool.walltime,
        )
        self._records.scheduled_nodes.add(node)
        try:
            external = each.scheduler.ask(order_of(pool, node.id, url=self._url, token=secret))
        except NodeRefused as error:
            end_node(self._records, node, NodeState.FAILED, str(error))
            raise
        said = Patch(set={"externalId": external, "state": NodeState.PENDING.value})
        still = {"_id": node.id, "state": NodeState.ASKED.value}
        if self._records.documents.claim(self._records.scheduled_nodes.name, still, said) is None:
            each.scheduler.release([external])  # it took so long that somebody has given it up

    def _user_for(self, each: PoolOfNodes) -> str:
        user = each.pool.user or NOBODY
        with suppress(Conflict):
            add_user(self._records, user)
        return user

    def _users(self, owners: set[str]) -> Mapping[str, str]:
        asked = sorted(owners)
        found = {**self._records.workflows.get_many(asked), **self._records.submissions.get_many(asked)}
        return {owner: record.user_email for owner, record in found.items()}


def order_of(pool: NodePool, node: str, *, url: str, token: str) -> NodeOrder:
    """Return what is asked of a scheduler for a node."""
    environment = {**(pool.environment or {}), "KNOCKEM_URL": url, "KNOCKEM_TOKEN": token}
    return NodeOrder(node_name(node), environment)


def permitted_nodes(state: PoolState, pool: NodePool) -> int:
    """Return how many nodes more may be asked for within the pool's limits."""
    hours = (pool.max_node_hours - state.hours) / (pool.walltime / 3600)
    return max(0, min(pool.max_nodes - state.pending - state.running, int(hours + 1e-9)))


async def _ready_work(queue: Queue) -> list[ReadyWork]:
    """Return what could start at once, as far as its owners permit."""
    classes = await queue.classes()
    ready: list[ReadyWork] = []
    for owner, view in (await QueueViews(queue).owners()).items():
        room = int(view.fields.get("maxActive", 1)) - view.active
        for name, number in view.ready.items():
            if name in classes and min(room, number) > 0:
                ready.append(ReadyWork(owner, classes[name], min(room, number)))
                room -= ready[-1].number
    return ready


def _offer(each: PoolOfNodes, state: PoolState, users: Mapping[str, str]) -> Offer:
    pool = each.pool
    theirs = {owner for owner, user in users.items() if pool.user in (None, user)}
    return Offer(
        capacity=pool.capacity,
        owners=frozenset(theirs if each.workflow is None else theirs & {each.workflow}),
        on_their_way=state.pending + state.starting,
        permitted=permitted_nodes(state, pool),
    )
