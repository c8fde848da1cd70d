"""One look at all nodes by the settings: for the sensor, and for people who want to know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.alone import alone
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.nodes.acquiring import NodeKeeper
from knockem_dagster.nodes.demand import Demand
from knockem_dagster.nodes.node_records import forget_nodes_but, has_live_nodes
from knockem_dagster.nodes.opening import OpenedPools, open_pools
from knockem_dagster.nodes.pool_states import PoolOfNodes, PoolState
from knockem_dagster.platform import Platform


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
    async with queue_of(platform) as queue, alone(queue, "nodes"):
        if found is None:
            await asyncio.to_thread(forget_nodes_but, platform.records, ())
            return None
        states = await keeper_of(platform, found).tend(queue)
    return [*states, *states_of_refused(found)]


def keeper_of(platform: Platform, found: OpenedPools) -> NodeKeeper:
    """Return who looks after these pools."""
    return NodeKeeper(platform.records, found.pools, url=found.url, workflow_limits=found.workflow_limits)


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
