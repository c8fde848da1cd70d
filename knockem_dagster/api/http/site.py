"""What the requests of one server share: the platform, and one connection to its queue."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from fastapi import Request

from knockem_dagster.accounts.quotas import check_quotas, note_stored
from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.graph_views import GraphView, view_graph
from knockem_dagster.jobs.near_source import StoredRecord
from knockem_dagster.jobs.opening import open_queue, require_queue
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import Records

GRAPHS_KEPT = 32
MOST_WAITING = 80
"""Workers' slots that wait for a call at a time: fewer than a pool has connections."""
CROWDED_SECONDS = 1.0


class Site:
    """The stores, opened when first asked for."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.stored = StoredRecord(platform.records)
        """What is told to workers."""
        self.uploading: Counter[str] = Counter()
        """How many reports each instance is sending."""
        self._queue: Queue | None = None
        self._waiting: Queue | None = None
        self._num_waiting = 0
        self._limits: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
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
                require_queue(self.platform)
                self._queue = await open_queue(self.platform)
            return self._queue

    async def answering_queue(self) -> Queue:
        """Return the queue, having asked whether it answers at this moment. Raises QueueAway."""
        queue = await self.queue()
        await queue.guarded(queue.server.ping())
        return queue

    async def queue_if_any(self) -> Queue | None:
        """Return the queue, or None where there is none, or while it does not answer."""
        try:
            return await self.answering_queue()
        except QueueAway:
            return None

    async def wait_for_work(self, waiter: str, seconds: float) -> bool:
        """Wait for a wake-up call, at most so long; tell whether there may have been one.

        Those who wait have connections of their own, so that nobody else waits for one. Who comes when too many wait
        is told after a while to look again.
        """
        if self._num_waiting >= MOST_WAITING:
            await asyncio.sleep(min(seconds, CROWDED_SECONDS))
            return True
        async with self._opening:
            if self._waiting is None:
                self._waiting = await open_queue(self.platform)
        self._num_waiting += 1
        began = time.monotonic()
        try:
            await self._waiting.wait_for_work(waiter, seconds)
        finally:
            self._num_waiting -= 1
        return time.monotonic() - began < seconds

    @asynccontextmanager
    async def taking(self, address: str, *, jobs: int = 0, size: int = 0) -> AsyncGenerator[None]:
        """Let a user have so many jobs and bytes more, while nobody else takes any of theirs.

        Raises NotPermitted where a quota forbids it; the bytes count unless the body raises.
        """
        async with self._limits.setdefault(address, asyncio.Lock()):
            await asyncio.to_thread(check_quotas, self.records, address, jobs=jobs, size=size)
            yield
            if size:
                await asyncio.to_thread(note_stored, self.records, address, size)

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
        for queue in (self._queue, self._waiting):
            if queue is not None:
                await queue.close()
        self.platform.close()


def site_of(request: Request) -> Site:
    """Return what the requests of this server share."""
    site = request.app.state.site
    assert isinstance(site, Site)
    return site
