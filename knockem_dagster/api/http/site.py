"""What the requests of one server share: the platform, and one connection to its queue."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from fastapi import Request

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.graph_views import GraphView, view_graph
from knockem_dagster.jobs.opening import open_queue
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import Records

GRAPHS_KEPT = 32


class Site:
    """The stores, opened when first asked for."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._queue: Queue | None = None
        self._opening = asyncio.Lock()
        self._graphs: OrderedDict[str, GraphView] = OrderedDict()

    @property
    def records(self) -> Records:
        """The record."""
        return self.platform.records

    async def queue(self) -> Queue:
        """Return the queue. Raises QueueAway where there is none, or while it does not answer."""
        async with self._opening:
            if self._queue is None:
                if not self.platform.has_queue:
                    raise QueueAway(
                        "There is no queue: `./knockem up` starts one, or KNOCKEM_QUEUE_URL names a server."
                    )
                self._queue = await open_queue(self.platform)
            return self._queue

    async def queue_if_any(self) -> Queue | None:
        """Return the queue, or None where there is none."""
        try:
            return await self.queue()
        except QueueAway:
            return None

    async def graph_of(self, workflow: str) -> GraphView | None:
        """Return the graph of a workflow; those seen last are kept, since they never change."""
        if workflow not in self._graphs:
            view = await asyncio.to_thread(view_graph, self.records, workflow)
            if view is None:
                return None
            self._graphs[workflow] = view
            if len(self._graphs) > GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(workflow)
        return self._graphs[workflow]

    async def close(self) -> None:
        """Release the stores."""
        if self._queue is not None:
            await self._queue.close()
        self.platform.close()


def site_of(request: Request) -> Site:
    """Return what the requests of this server share."""
    site = request.app.state.site
    assert isinstance(site, Site)
    return site
