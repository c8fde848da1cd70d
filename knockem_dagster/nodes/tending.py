"""One look at all nodes by the settings: for the sensor, and for people who want to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from redis.asyncio.lock import Lock

from knockem_dagster.errors import KnockemError, QueueAway, StoreError
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.nodes.acquiring import NodeKeeper
from knockem_dagster.nodes.demand import Demand
from knockem_dagster.nodes.node_records import forget_nodes_but, has_live_nodes
from knockem_dagster.nodes.opening import OpenedPools, open_pools
from knockem_dagster.nodes.pool_states import PoolOfNodes, PoolState
from knockem_dagster.platform import Platform

LOCK_SECONDS = 60.0
"""Who dies in a look holds others up for no longer; who lives renews the lock."""


class SeenToElsewhere(KnockemError):
    """Somebody else sees to the nodes at this moment."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A pool, how it does by the record, and what would be asked for now."""

    each: PoolOfNodes
    state: PoolState
    demand: Demand
    url: str


async def tend_nodes(platform: Platform) -> Sequence[PoolState] | None:
    """See to the nodes of all pools once; None where there are no pools.

    Raises InvalidInput with every fault of the file of node pools, SeenToElsewhere while somebody else does this,
    QueueAway while the queue does not answer.
    """
    found = open_pools(platform)
    if found is None and not await asyncio.to_thread(has_live_nodes, platform.records):
        return None
    async with queue_of(platform) as queue, alone(queue):
        if found is None:
            await asyncio.to_thread(forget_nodes_but, platform.records, ())
            return None
        states = await keeper_of(platform, found).tend(queue)
    return [*states, *states_of_refused(found)]


def keeper_of(platform: Platform, found: OpenedPools) -> NodeKeeper:
    """Return who looks after these pools."""
    return NodeKeeper(platform.records, found.pools, url=found.url, workflow_limits=found.workflow_limits)


@asynccontextmanager
async def alone(queue: Queue) -> AsyncGenerator[None]:
    """Let nobody else see to the nodes for as long as the block lasts.

    Raises SeenToElsewhere while somebody else does, QueueAway where the queue does not answer, or was away for so long
    that somebody else may have begun: then the block is cancelled.
    """
    lock = queue.server.lock(f"{queue.prefix}:nodes", timeout=LOCK_SECONDS, blocking=False)
    if not await queue.guarded(lock.acquire()):
        raise SeenToElsewhere("somebody else sees to the nodes at this moment")
    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(_renew(queue, lock))
            yield
            renewing.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    finally:
        with suppress(QueueAway, StoreError):  # it lapses by itself, or is somebody else's already
            await queue.guarded(lock.release())


async def _renew(queue: Queue, lock: Lock) -> None:
    while True:
        await asyncio.sleep(LOCK_SECONDS / 4)
        try:
            await queue.guarded(lock.reacquire())
        except QueueAway:
            continue  # it may answer again before the lock lapses
        except StoreError as error:
            raise QueueAway(
                "The queue was away for so long that somebody else may see to the nodes; the next look goes on."
            ) from error


async def preview_nodes(platform: Platform) -> tuple[Sequence[Preview], Sequence[PoolState]] | None:
    """Return what `tend_nodes` would ask for, and which pools cannot be used; None where there are no pools.

    Nothing is asked for.
    """
    found = open_pools(platform)
    if found is None:
        return None
    keeper = keeper_of(platform, found)
    async with queue_of(platform) as queue:
        states = await keeper.last_seen_states(queue)
        demands = await keeper.demands(queue, states)
    looked_at = zip(found.pools, states, demands, strict=True)
    return [Preview(each, state, demand, found.url) for each, state, demand in looked_at], states_of_refused(found)


async def states_of(platform: Platform, found: OpenedPools) -> list[PoolState]:
    """Return how all pools do: by the record, and by what the last look said where a queue remembers it."""
    keeper = keeper_of(platform, found)
    try:
        async with queue_of(platform) as queue:
            states = await keeper.last_seen_states(queue)
    except QueueAway:
        states = keeper.states()
    return states + states_of_refused(found)


def states_of_refused(opened: OpenedPools) -> list[PoolState]:
    """Return how those pools do that cannot be used: they have nothing but a hindrance."""
    return [PoolState(each.name, each.scheduler, hindrance=each.reason) for each in opened.refused]
