"""A worker's connection to the queue: it waits while the server is away, and tells people so once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.queue import Claim, Entry, Queue, Report, Verdict, Wanted
from knockem_dagster.jobs.requirements import Requirement

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")
Say = Callable[[str], object]


class Connection:
    """The calls of one worker, made again until the server answers. `say` hears when it goes and when it is back."""

    def __init__(self, queue: Queue, worker: str, *, say: Say) -> None:
        self.queue = queue
        self.worker = worker
        self._say = say
        self._away_since: float | None = None
        self.verdicts: Counter[Verdict] = Counter()
        """What was said of the jobs that were handed in and were still held."""

    @property
    def is_away(self) -> bool:
        """Whether the server did not answer the latest call."""
        return self._away_since is not None

    async def claim(self, waiter: str, wanted: Wanted, *, wait: bool) -> Claim | None:
        """Take jobs. Raises LeaseLapsed."""
        return await self._patiently(lambda: self.queue.claim(self.worker, waiter, wanted, wait=wait))

    async def finish(self, reports: Sequence[Report]) -> list[bytes | None]:
        """Hand in jobs. A call whose answer was lost is made again: then its jobs are not held any more."""
        entries = await self._patiently(lambda: self.queue.finish(self.worker, reports))
        self.verdicts.update(
            report.verdict for report, entry in zip(reports, entries, strict=True) if entry is not None
        )
        return entries

    async def outcome(self, owner: str, id: bytes) -> Entry | None:
        """Return one outcome that is not acknowledged yet."""
        return await self._patiently(lambda: self.queue.outcome(owner, id))

    async def beat(self, lease_seconds: float, description: bytes = b"") -> list[bytes]:
        """Renew the lease; return jobs that must be ended. Raises LeaseLapsed."""
        return await self._patiently(
            lambda: self.queue.beat(self.worker, lease_seconds=lease_seconds, description=description)
        )

    async def classes(self) -> dict[str, Requirement]:
        """Return the resource classes there are."""
        return await self._patiently(self.queue.classes)

    async def wait_for_work(self, waiter: str, seconds: float, over: asyncio.Event) -> None:
        """Wait for a wake-up call, at most so long, and no longer than until `over` is set."""
        call = asyncio.ensure_future(self._patiently(lambda: self.queue.wait_for_work(waiter, seconds)))
        end = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait([call, end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (call, end):
                task.cancel()
            await asyncio.gather(call, end, return_exceptions=True)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = await call()
            except QueueAway:
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    self._say("The queue does not answer; work goes on, and what it brings is handed in when it does.")
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
            else:
                if self._away_since is not None:
                    away, self._away_since = time.monotonic() - self._away_since, None
                    self._say(f"The queue answers again, after {away:.0f} s.")
                return answer
