"""A worker's connection to the queue: it waits while the server is away, tells people so once, and knows its lease."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from knockem_dagster.errors import LeaseLapsed, QueueAway
from knockem_dagster.jobs.queue import Claim, Entry, Report, Verdict, Wanted
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.jobs.worker_sources import Say, WorkerQueue

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

T = TypeVar("T")


async def ended_before(call: asyncio.Future[Any], over: asyncio.Event) -> bool:
    """Wait for a call, no longer than until `over` is set, when it is cancelled; tell whether it came to an end."""
    end = asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait([call, end], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (call, end):
            task.cancel()
        await asyncio.gather(call, end, return_exceptions=True)
    return not call.cancelled()


class Connection:
    """The calls of one worker, made again until the server answers. `say` hears when it goes and when it is back.

    Once `is_patient` is False they raise QueueAway instead.
    """

    def __init__(self, queue: WorkerQueue, worker: str, *, say: Say) -> None:
        self.queue = queue
        self.worker = worker
        self.is_patient = True
        self._say = say
        self._away_since: float | None = None
        self._leased_until = -math.inf
        self._renewed = asyncio.Event()
        self.verdicts: Counter[Verdict] = Counter()
        """What was said of the jobs that were handed in and were still held."""

    @property
    def is_away(self) -> bool:
        """Whether the server did not answer the latest call."""
        return self._away_since is not None

    @property
    def has_lease(self) -> bool:
        """Whether the lease was renewed so lately that nobody can have taken what is held."""
        return time.monotonic() < self._leased_until

    async def hold_lease(self) -> None:
        """Return at once while there is a lease, else (this process was paused, or is late) when it is renewed.

        While the server is away nothing is taken from anybody: then there is nothing to wait for.
        """
        while not self.has_lease and not self.is_away:
            self._renewed.clear()
            await self._renewed.wait()

    async def claim(self, waiter: str, wanted: Wanted, *, wait: bool) -> Claim | None:
        """Take jobs. Raises LeaseLapsed."""
        return await self._patiently(lambda: self.queue.claim(self.worker, waiter, wanted, wait=wait))

    async def finish(self, reports: Sequence[Report]) -> list[bytes | None]:
        """Hand in jobs. A call whose answer was lost is made again: then its jobs are not held any more."""
        return self._counted(reports, await self._patiently(lambda: self.queue.finish(self.worker, reports)))

    async def hand_back(self, reports: Sequence[Report]) -> None:
        """Hand in jobs untouched. While the server is away that is for the next beat, which tells what is held."""
        with contextlib.suppress(QueueAway):
            self._counted(reports, await self.queue.finish(self.worker, reports))

    def _counted(self, reports: Sequence[Report], entries: list[bytes | None]) -> list[bytes | None]:
        self.verdicts.update(
            report.verdict for report, entry in zip(reports, entries, strict=True) if entry is not None
        )
        return entries

    async def outcome(self, owner: str, id: bytes) -> Entry | None:
        """Return one outcome that is not acknowledged yet."""
        return await self._patiently(lambda: self.queue.outcome(owner, id))

    async def beat(
        self,
        lease_seconds: float,
        description: bytes = b"",
        *,
        ended: Collection[bytes] = (),
        held: Callable[[], Collection[bytes]] | None = None,
    ) -> list[bytes]:
        """Renew the lease, telling what is held, and what was `ended` as told; return jobs that must be ended.

        Raises LeaseLapsed.
        """

        async def renew() -> list[bytes]:
            asked = time.monotonic()
            known = None if held is None else held()
            canceled = await self.queue.beat(
                self.worker, lease_seconds=lease_seconds, description=description, ended=ended, held=known
            )
            self._leased_until = asked + lease_seconds
            return canceled

        try:
            return await self._patiently(renew)
        except LeaseLapsed:
            self._leased_until = -math.inf
            raise
        finally:
            self._renewed.set()

    async def classes(self) -> dict[str, Requirement]:
        """Return the resource classes there are."""
        return await self._patiently(self.queue.classes)

    async def wait_for_work(self, waiter: str, seconds: float, over: asyncio.Event) -> None:
        """Wait for a wake-up call, at most so long, and no longer than until `over` is set."""
        call = asyncio.ensure_future(self._patiently(lambda: self.queue.wait_for_work(waiter, seconds)))
        await ended_before(call, over)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = await call()
            except QueueAway:
                if not self.is_patient:
                    raise
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    self._renewed.set()
                    self._say("The queue does not answer; work goes on, and what it brings is handed in when it does.")
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
            else:
                if self._away_since is not None:
                    away, self._away_since = time.monotonic() - self._away_since, None
                    self._say(f"The queue answers again, after {away:.0f} s.")
                return answer
