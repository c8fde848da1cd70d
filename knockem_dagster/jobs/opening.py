"""Opening the queue that the settings name, with keys of this environment only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.platform import Platform
from knockem_dagster.stores.queue_connection import open_async_queue

PREFIX = "knockem"
LOOK_SECONDS = 0.2
_NO_QUEUE = (
    "There is no queue: start `./knockem up` in another terminal, or name a Redis or Valkey server in "
    "KNOCKEM_QUEUE_URL."
)


def require_queue(platform: Platform) -> None:
    """Raise QueueAway, with what to do, where there is no queue."""
    if not platform.has_queue:
        raise QueueAway(_NO_QUEUE)


async def open_queue(platform: Platform) -> Queue:
    """Connect to the queue. Raises StoreError for a server that cannot hold it, QueueAway while it does not answer."""
    settings = platform.settings
    return Queue(await open_async_queue(settings), prefix=settings.name_in_environment(PREFIX, "-"))


@asynccontextmanager
async def queue_of(platform: Platform) -> AsyncGenerator[Queue]:
    """Give the queue, and close the connection."""
    queue = await open_queue(platform)
    try:
        yield queue
    finally:
        await queue.close()


async def take_out(platform: Platform, owner: str) -> int:
    """Take an owner's jobs out of the queue, where there is one; return how many there were."""
    if not platform.has_queue:
        return 0
    async with queue_of(platform) as queue:
        return await queue.cancel(owner, forget=True)


async def wipe_history(platform: Platform) -> None:
    """Let the embedded server rewrite its file, which tells all that was ever in the queue, from what is in it now."""
    async with queue_of(platform) as queue:
        while await _is_rewriting(queue):  # from what was in it before, perhaps
            await asyncio.sleep(LOOK_SECONDS)
        await queue.guarded(queue.server.execute_command("BGREWRITEAOF"))


async def _is_rewriting(queue: Queue) -> bool:
    said = await queue.guarded(queue.server.info("persistence"))
    return bool(said["aof_rewrite_in_progress"] or said["aof_rewrite_scheduled"])
