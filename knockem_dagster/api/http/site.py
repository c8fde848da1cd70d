"""What the requests of one server share: the platform, and one connection to its queue."""

from __future__ import annotations

import asyncio

from fastapi import Request

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.opening import open_queue
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import Records


class Site:
    """The stores, opened when first asked for."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._queue: Queue | None = None
        self._opening = asyncio.Lock()

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
