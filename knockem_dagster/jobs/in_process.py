"""The attempt source of one run alone: asker and workers share an event loop, and nothing outlives it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome


class InProcessSource:
    """AttemptSource and AttemptDesk in one. `workers` is the number of slots that share the ready attempts."""

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._ready: deque[Attempt] = deque()
        self._finished: list[AttemptOutcome] = []
        self._has_ready = asyncio.Event()
        self._has_finished = asyncio.Event()
        self._closed = False

    async def put(self, attempts: Sequence[Attempt]) -> None:
        """Make attempts ready to be claimed."""
        self._ready.extend(attempts)
        if attempts:
            self._has_ready.set()

    async def adopt(self, attempts: Sequence[Attempt]) -> None:
        """Nothing outlives a run here, so there is nothing to adopt."""
        raise AssertionError(f"{len(attempts)} attempts cannot be under way in a source that has just begun")

    async def claim(self, most: int) -> Sequence[Attempt]:
        """Wait for ready attempts; return this slot's share, at most `most`. Empty when closed."""
        while not self._ready:
            if self._closed:
                return []
            self._has_ready.clear()
            await self._has_ready.wait()
        share = min(most, -(-len(self._ready) // self._workers))
        return [self._ready.popleft() for _ in range(share)]

    async def finish(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """Report finished attempts."""
        self._finished.extend(outcomes)
        if outcomes:
            self._has_finished.set()

    async def outcomes(self) -> Sequence[AttemptOutcome]:
        """Wait for at least one finished attempt; return all that are finished by then."""
        while not self._finished:
            self._has_finished.clear()
            await self._has_finished.wait()
        finished, self._finished = self._finished, []
        return finished

    async def close(self) -> None:
        """Wake every waiting claim with an empty answer."""
        self._closed = True
        self._ready.clear()
        self._has_ready.set()
