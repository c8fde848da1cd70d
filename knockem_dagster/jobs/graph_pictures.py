"""The graph of a workflow as a picture, with the states its jobs are in at this moment."""

from __future__ import annotations

import asyncio

from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.graph_views import MOST_JOBS, MOST_NODES, GraphView, states_of, view_graph
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.workflow_views import job_states
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import WorkflowRecord
from knockem_dagster.reports.graph_figure import FigureNode, graph_svg


async def draw_graph(
    records: Records, queue: Queue | None, workflow: WorkflowRecord, view: GraphView | None = None
) -> str:
    """Return the picture as SVG; `view`: the graph, where it is known already.

    Raises KnockemError for a graph that is too large, or of too many unlike jobs, to be drawn.
    """
    if view is None:
        view = await asyncio.to_thread(view_graph, records, workflow.id)
    if view is None:
        raise KnockemError(f"The workflow has more than {MOST_JOBS:,} jobs: too many to draw what waits for what.")
    if len(view.nodes) > MOST_NODES:
        raise KnockemError(
            f"The jobs have more than {MOST_NODES} names that differ in more than digits: too many to draw."
        )
    states = states_of(view, await job_states(records, queue, workflow))
    nodes = [FigureNode(node.name, node.level, each) for node, each in zip(view.nodes, states, strict=True)]
    return graph_svg(nodes, view.edges, title=f"{workflow.name}: which job waits for which")
