"""Acquiring nodes while more work is ready than there are slots, and letting them go; safe to be killed anywhere.

A node is in the record before its scheduler hears of it, by a name that the record knows: whoever looks next finds it
there, or knows that it never came. Workers end by themselves when idle, so that nodes end also when nobody looks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson

from knockem_dagster.accounts.tokens import DEFAULT_DAYS, MOST_DAYS, issue_token
from knockem_dagster.accounts.users import added_user
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.nodes.demand import Allowance, Demand, Offer, ReadyWork, demand_of
from knockem_dagster.nodes.node_hours import OF_WORKFLOWS, node_hours
from knockem_dagster.nodes.node_pools import NodePool, WorkflowLimits
from knockem_dagster.nodes.node_records import (
    FORGOTTEN_HOURS,
    end_node,
    failures_by_owner,
    forget_nodes_but,
    hours_since,
    latest_failures,
    note_sight,
    worker_of,
)
from knockem_dagster.nodes.pool_states import PoolOfNodes, PoolState
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, SchedulerAway, node_name
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.nodes import LIVE, NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import new_id, now
from knockem_dagster.stores.documents import Patch

MOST_FAILURES = 3
"""Nodes of a pool that may fail one after the other before they could work; then no more is asked for.

As many may be unable to do the jobs of one owner; then no more is asked for these."""
MOST_ASKED = 50
"""Nodes asked for in one look, of one pool."""
ASKING_SECONDS = 30.0
"""No scheduler is asked anything more in one look after that: Dagster's sensors have a minute."""
SAID_SECONDS = 120
"""What a look said of the pools is remembered for so long; the sensor looks every ten seconds."""
NOBODY = "nodes@localhost"
"""The user whose tokens nodes have that work for everybody."""


@dataclass(slots=True)
class _Turn:
    """Until when one look may ask schedulers; `stopped_at`: the pool with which the next begins."""

    ends: float
    stopped_at: str = ""

    def in_time(self, pools: Sequence[PoolOfNodes]) -> Iterator[PoolOfNodes]:
        """Yield pools until it is late; the first in any case."""
        for number, each in enumerate(pools):
            if number and self.is_late(each):
                return
            yield each

    def is_late(self, each: PoolOfNodes) -> bool:
        """Tell whether a pool must wait for the next look."""
        is_late = time.monotonic() >= self.ends
        if is_late and not self.stopped_at:
            self.stopped_at = each.pool.name
        return is_late


class NodeKeeper:
    """Looks after the nodes of some pools, in the order in which they are to be filled."""

    def __init__(
        self,
        records: Records,
        pools: Sequence[PoolOfNodes],
        *,
        url: str,
        workflow_limits: WorkflowLimits | None = None,
        asking_seconds: float = ASKING_SECONDS,
    ) -> None:
        """`workflow_limits`: of the pools of all workflows together; `asking_seconds`: of a look."""
        self._records = records
        self._pools = pools
        self._url = url
        self._workflow_limits = workflow_limits
        self._asking_seconds = asking_seconds

    async def tend(self, queue: Queue) -> list[PoolState]:
        """Look at all nodes once; ask for more where work is ready, and let go what nothing is ready for.

        Where schedulers take too long to answer, the next look goes on with those that were not asked.
        """
        await asyncio.to_thread(forget_nodes_but, self._records, {each.pool.name for each in self._pools})
        turn = _Turn(time.monotonic() + self._asking_seconds)
        pools = await self._from_where_the_last_stopped(queue)
        looked = {each.pool.name: await asyncio.to_thread(self._look, each) for each in turn.in_time(pools)}
        late = [each for each in self._pools if each.pool.name not in looked]
        for each in late:
            looked[each.pool.name] = await asyncio.to_thread(self._state, each)
        states = [looked[each.pool.name] for each in self._pools]
        demands = {
            each.pool.name: demand for each, demand in zip(self._pools, await self.demands(queue, states), strict=True)
        }
        for each in late:  # only now: until the next look their work is given to no other pool
            state = looked[each.pool.name]
            state.hindrance = state.hindrance or "other schedulers took too long to answer; the next look goes on"
        for each in turn.in_time(pools):
            name = each.pool.name
            await asyncio.to_thread(self._act, each, looked[name], demands[name], turn)
        await queue.guarded(queue.server.set(_first_key(queue), turn.stopped_at))
        said = orjson.dumps({state.name: state.hindrance for state in states if state.hindrance})
        await queue.guarded(queue.server.set(_said_key(queue), said, ex=SAID_SECONDS))
        return states

    async def _from_where_the_last_stopped(self, queue: Queue) -> Sequence[PoolOfNodes]:
        first = (await queue.guarded(queue.server.get(_first_key(queue))) or b"").decode()
        at = next((n for n, each in enumerate(self._pools) if each.pool.name == first), 0)
        return [*self._pools[at:], *self._pools[:at]]

    async def demands(self, queue: Queue, states: Sequence[PoolState]) -> list[Demand]:
        """Return how many nodes of each pool the ready work would fill."""
        ready, rooms = await _ready_work(queue)
        users = await asyncio.to_thread(self._users, {work.owner for work in ready})
        offers = [_offer(each, state, users) for each, state in zip(self._pools, states, strict=True)]
        return demand_of(ready, rooms, offers, shared=await asyncio.to_thread(self._left_for_workflows))

    def states(self) -> list[PoolState]:
        """Return how the pools do, by the record alone."""
        return [self._state(each) for each in self._pools]

    async def last_seen_states(self, queue: Queue) -> list[PoolState]:
        """Return how the pools do by the record, with what kept the last look from asking for more."""
        states = await asyncio.to_thread(self.states)
        said = orjson.loads(await queue.guarded(queue.server.get(_said_key(queue))) or b"{}")
        for state in states:
            state.hindrance = state.hindrance or said.get(state.name, "")
        return states

    def _left_for_workflows(self) -> Allowance | None:
        limits = self._workflow_limits
        if limits is None:
            return None
        live = [node for node in self._records.scheduled_nodes.find({"state": LIVE}) if node.workflow_id is not None]
        hours = node_hours(self._records, OF_WORKFLOWS, live)
        return Allowance(limits.max_nodes - len(live), limits.max_node_hours - hours)

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
        found = self._records.scheduled_nodes.find({"pool": pool.name, "state": LIVE})
        live = sorted(found, key=lambda node: node.datetime, reverse=True)
        there = [node for node in live if node.state is NodeState.RUNNING]
        failures = latest_failures(self._records, pool, most=MOST_FAILURES)
        state = PoolState(
            pool.name,
            pool.scheduler,
            live,
            starting=sum(worker_of(self._records, node) is None for node in there),
            hours=node_hours(self._records, pool.name, live),
            max_nodes=pool.max_nodes,
            max_node_hours=pool.max_node_hours,
            left_out=self._left_out(pool),
        )
        if len(failures) >= MOST_FAILURES:
            state.hindrance = (
                f"{len(failures)} nodes failed before they could work; the last: {failures[0].reason}. {_again(pool)}"
            )
        return state

    def _left_out(self, pool: NodePool) -> Mapping[str, str]:
        """Return the owners that are going and whose jobs so many nodes could not do, and why."""
        found = failures_by_owner(self._records, pool)
        blocked = {owner: failed for owner, failed in found.items() if len(failed) >= MOST_FAILURES}
        going = self._going(blocked)
        return {
            owner: f"{len(failed)} nodes could not do its jobs; the last: {failed[0].reason}. {_again(pool)}"
            for owner, failed in blocked.items()
            if owner in going
        }

    def _act(self, each: PoolOfNodes, state: PoolState, demand: Demand, turn: _Turn) -> None:
        state.wanted = demand.more
        superfluous = state.pending + state.starting - demand.used
        self._let_go(each, state, max(0, superfluous))
        for number in range(0 if state.hindrance else min(demand.more, MOST_ASKED)):
            if number and turn.is_late(each):
                return
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
            self._records,
            user,
            Scope.WORKER,
            days=token_days(pool),
            label=f"a node of {pool.name}",
            for_all=user == NOBODY,
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
        return added_user(self._records, each.pool.user or NOBODY).user_email

    def _going(self, owners: Collection[str]) -> set[str]:
        workflows = self._records.workflows.get_many(sorted(owners)).values()
        submissions = self._records.submissions.get_many(sorted(owners)).values()
        return {each.id for each in workflows if not each.is_over} | {
            each.id for each in submissions if not each.state.is_final
        }

    def _users(self, owners: Collection[str]) -> Mapping[str, str]:
        asked = sorted(owners)
        found = {**self._records.workflows.get_many(asked), **self._records.submissions.get_many(asked)}
        return {owner: record.user_email for owner, record in found.items()}


def order_of(pool: NodePool, node: str, *, url: str, token: str) -> NodeOrder:
    """Return what is asked of a scheduler for a node."""
    environment = {**(pool.environment or {}), "KNOCKEM_URL": url, "KNOCKEM_TOKEN": token}
    return NodeOrder(node_name(node), environment)


def token_days(pool: NodePool) -> int:
    """Return for how many days the token of a node is in force: also where it waits for long before its walltime."""
    return max(DEFAULT_DAYS, min(MOST_DAYS, math.ceil((FORGOTTEN_HOURS + pool.walltime / 3600) / 24)))


def _first_key(queue: Queue) -> str:
    return f"{queue.prefix}:nodes:first"


def _said_key(queue: Queue) -> str:
    return f"{queue.prefix}:nodes:said"


def _again(pool: NodePool) -> str:
    return f"`./knockem nodes retry {pool.name}` tries again, as does a change of the pool."


async def _ready_work(queue: Queue) -> tuple[list[ReadyWork], dict[str, int]]:
    """Return what is ready, and how many jobs more each of its owners permits at a time."""
    classes = await queue.classes()
    ready: list[ReadyWork] = []
    rooms: dict[str, int] = {}
    for owner, view in (await QueueViews(queue).owners()).items():
        rooms[owner] = int(view.fields.get("maxActive", 1)) - view.active
        if rooms[owner] > 0:
            ready += [ReadyWork(owner, classes[name], n) for name, n in view.ready.items() if n and name in classes]
    return ready, rooms


def _offer(each: PoolOfNodes, state: PoolState, users: Mapping[str, str]) -> Offer:
    pool = each.pool
    theirs = {owner for owner, user in users.items() if pool.user in (None, user)} - state.left_out.keys()
    nodes = 0 if state.hindrance else pool.max_nodes - len(state.live)
    return Offer(
        capacity=pool.capacity,
        owners=frozenset(theirs if each.workflow is None else theirs & {each.workflow}),
        on_their_way=state.pending + state.starting,
        own=Allowance(nodes, pool.max_node_hours - state.hours),
        hours=pool.walltime / 3600,
        shares=each.workflow is not None,
    )
