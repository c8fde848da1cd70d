"""A slot of a worker: it claims attempts, runs them in a container, and keeps a serving container warm.

A slot talks to one serving container, feeding it ahead so that short competitions leave it no
idle moment, or runs one-shot commands, one after the other, where the image does not serve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.serving import Serving
from knockem_dagster.errors import ContainerError
from knockem_dagster.jobs.sources import AttemptDesk

FED_AHEAD_SECONDS = 0.05
"""How much work a serving container holds beyond the competition it is at."""
BARREN_CONTAINERS = 5
"""Serving containers that end in a row without one answer before the worker gives up on the image."""


@dataclass(slots=True)
class Pace:
    """How many attempts a serving container should hold, learned from how fast it answers."""

    most: int
    seconds: float = 0.0
    _last: float = 0.0

    @property
    def window(self) -> int:
        """The number of attempts to keep in the container."""
        if self.seconds <= 0.0:
            return 1
        return max(1, min(self.most, 1 + int(FED_AHEAD_SECONDS / self.seconds)))

    def began(self) -> None:
        """Note that the container goes from idle to working."""
        self._last = time.monotonic()

    def answered(self, number: int) -> None:
        """Note that this many answers came since the last note."""
        moment = time.monotonic()
        each = (moment - self._last) / number
        self.seconds = each if self.seconds <= 0.0 else 0.8 * self.seconds + 0.2 * each
        self._last = moment


class Slot:
    """One serving container at a time, or one-shot commands one after the other."""

    def __init__(self, desk: AttemptDesk, organism: Organism, most: int) -> None:
        self._desk = desk
        self._organism = organism
        self._most = most
        self._claim: asyncio.Task[Sequence[Attempt]] | None = None

    async def run(self) -> None:
        """Work until the desk has no more. Raises ContainerError when the image cannot be used at all."""
        # Twice, because a container may be killed even while it is greeted, and one-shot commands are so much slower.
        serving = await self._organism.serve() or await self._organism.serve()
        if serving is None:
            await self._run_one_shots()
            return
        try:
            await self._keep_serving(serving)
        finally:
            if self._claim is not None:
                self._claim.cancel()
                await asyncio.gather(self._claim, return_exceptions=True)

    async def _run_one_shots(self) -> None:
        while attempts := await self._desk.claim(1):
            for attempt in attempts:
                await self._desk.finish([await self._organism.compete(attempt)])

    async def _keep_serving(self, serving: Serving | None) -> None:
        """Serve until the desk has no more, in a new container whenever one ends.

        A container may be killed even while it is greeted: that it served once is enough to try again.
        """
        barren, tail = 0, ""
        while True:
            answered = False
            if serving is not None:
                try:
                    is_open, answered = await self._serve(serving)
                finally:
                    await serving.end()
                if not is_open:
                    return
                tail = serving.tail
            barren = 0 if answered else barren + 1
            if barren == BARREN_CONTAINERS:
                raise ContainerError(
                    f"knockem_serve of {self._organism.reference} ended {barren} times in a row without one answer. "
                    f"Last words:\n{tail}"
                )
            serving = await self._organism.serve()

    async def _serve(self, serving: Serving) -> tuple[bool, bool]:
        """Feed a serving container until it ends or there is no more: (is there more, was anything answered)."""
        pace = Pace(self._most)
        answered = False
        there_is_more = True
        answers: asyncio.Task[Sequence[AttemptOutcome]] | None = None
        try:
            while there_is_more or serving.outstanding:
                room = pace.window - serving.outstanding
                if there_is_more and self._claim is None and room > 0:
                    self._claim = asyncio.create_task(self._take(room))
                if answers is None and serving.outstanding:
                    answers = asyncio.create_task(self._hear(serving))
                await asyncio.wait(
                    [task for task in (self._claim, answers) if task is not None], return_when=asyncio.FIRST_COMPLETED
                )
                if answers is not None and answers.done():
                    outcomes = answers.result()
                    answers = None
                    answered = answered or any(ended.outcome is not Outcome.LOST for ended in outcomes)
                    pace.answered(max(1, len(outcomes)))
                    await self._desk.finish(outcomes)
                    if serving.is_over:
                        return there_is_more, answered
                if self._claim is not None and self._claim.done():
                    attempts, self._claim = self._claim.result(), None
                    if not attempts:  # what was asked is answered before it ends
                        there_is_more = False
                        continue
                    if not serving.outstanding:
                        pace.began()
                    await serving.ask(attempts)
            return False, answered
        finally:
            if answers is not None:
                answers.cancel()

    async def _take(self, most: int) -> Sequence[Attempt]:
        return await self._desk.claim(most)

    async def _hear(self, serving: Serving) -> Sequence[AttemptOutcome]:
        return await serving.answers()
