"""Nodes: more are acquired while more work is ready than there are slots, and what is over is noted."""

import asyncio

import dagster as dg

from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.alone import SeenToElsewhere
from knockem_dagster.nodes.tending import tend_nodes
from resources.platform import PlatformResource


@dg.sensor(
    name="nodes",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Acquires nodes of the user's schedulers while more work is ready than there are slots.",
)
def watch_nodes(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
    """See to the nodes once, and say what was found."""
    opened = platform.open()
    if not opened.has_queue:
        return dg.SkipReason("there is no queue: each run works alone")
    try:
        states = asyncio.run(tend_nodes(opened))
    except SeenToElsewhere as error:
        return dg.SkipReason(str(error))
    except KnockemError as error:
        context.log.warning(str(error))
        return dg.SkipReason(str(error))
    if states is None:
        return dg.SkipReason("there are no node pools")
    if not states:
        return dg.SkipReason("the file of node pools names none, and no workflow that brings any is going")
    for state in states:
        for obstacle in state.obstacles:
            context.log.warning(f"{state.name}: {obstacle}")
    return dg.SkipReason(
        "; ".join(
            f"{state.name}: {state.running} nodes there, {state.pending} wait, {state.asked} asked for, "
            f"{state.released} let go" + (f" ({state.hindrance})" if state.hindrance else "")
            for state in states
        )
    )
