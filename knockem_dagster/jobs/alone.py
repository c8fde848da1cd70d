"""What only one process at a time may do, of all that share a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from redis.asyncio.lock import Lock

from knockem_dagster.errors import KnockemError, QueueAway, StoreError
from knockem_dagster.jobs.queue import Queue

LOCK_SECONDS = 60.0
"""Who dies meanwhile holds others up for no longer; who lives renews the lock."""


class SeenToElsewhere(KnockemError):
    """Somebody else does this at the moment."""


@asynccontextmanager
async def alone(queue: Queue, what: str) -> AsyncGenerator[None]:
    """Let nobody else do what goes by this name for as long as the block lasts.

    Raises SeenToElsewhere while somebody else does, QueueAway where the queue does not answer, or was away for so long
    that somebody else may have begun: then the block is cancelled.
    """
    lock = queue.server.lock(f"{queue.prefix}:{what}", timeout=LOCK_SECONDS, blocking=False)
    if not await queue.guarded(lock.acquire()):
        raise SeenToElsewhere("somebody else sees to this at the moment")
    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(_renew(queue, lock))
            yield
            renewing.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
    finally:
        with suppress(StoreError):  # it lapses by itself, or is somebody else's already
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
                "The queue was away for so long that somebody else may have begun the same; the next look goes on."
            ) from error
