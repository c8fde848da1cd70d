"""Worlds for assays to ask: the reference organism, and wrappers that lose, delay or record competitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.reference_organism import EXACT_UNIT, ReferenceOrganism
from knockem_dagster.knockout.competitions import Answer, Compete, Competition, Counts, Untestable
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import KnockoutSet

DETECTED = Counts(1, 1000, 0)
UNDETECTED = Counts(1, 500, 500)
BENEFICIAL = Counts(1, 0, 1000)


def exact_null() -> NullDistribution:
    """Return the null of exact mode, without asking for it."""
    return NullDistribution.from_scores([0.0, 0.0], bound=1.0, stated_unit=EXACT_UNIT)


def answering(rule: Callable[[KnockoutSet], Answer]) -> Compete:
    """Return a world whose answer depends on the challenger alone."""

    async def compete(competitions: Sequence[Competition]) -> list[Answer]:
        return [rule(competition.challenger) for competition in competitions]

    return compete


class Losing:
    """Passes questions on, except those `loses` picks: they are untestable."""

    def __init__(self, compete: Compete, loses: Callable[[Competition], bool]) -> None:
        self._compete = compete
        self._loses = loses

    async def __call__(self, competitions: Sequence[Competition]) -> list[Answer]:
        answers = await self._compete(competitions)
        return [
            Untestable("the container was killed for memory") if self._loses(competition) else answer
            for competition, answer in zip(competitions, answers, strict=True)
        ]


class Recording:
    """Passes questions on and remembers them; with a `delay`, answers arrive in a shuffled order of tasks."""

    def __init__(self, organism: ReferenceOrganism, delay: Generator | None = None) -> None:
        self.asked: list[Competition] = []
        self._organism = organism
        self._delay = delay

    async def __call__(self, competitions: Sequence[Competition]) -> list[Answer]:
        self.asked.extend(competitions)
        if self._delay is not None:
            for _ in range(int(self._delay.integers(0, 4))):
                await asyncio.sleep(0)
        return await self._organism.compete(competitions)


def sites_of(num_sites: int) -> np.ndarray:
    """Return all sites."""
    return np.arange(num_sites)


def seeded(seed: int = 1) -> Generator:
    """Return a generator."""
    return default_rng(seed)


class Workers:
    """So many workers who take questions from one heap at random and answer each after a random time.

    Answers come in any order; the assay hears of a question when all that it asked with it are answered.
    """

    def __init__(self, organism: ReferenceOrganism, *, number: int, rng: Generator) -> None:
        self.asked: list[Competition] = []
        self._organism = organism
        self._number = number
        self._rng = rng
        self._heap: list[tuple[Competition, asyncio.Future[Answer]]] = []
        self._busy = 0

    async def __call__(self, competitions: Sequence[Competition]) -> list[Answer]:
        self.asked.extend(competitions)
        futures = [asyncio.get_running_loop().create_future() for _ in competitions]
        self._heap.extend(zip(competitions, futures, strict=True))
        workers: list[asyncio.Task[None]] = []
        while self._busy < self._number and len(workers) < len(competitions):
            self._busy += 1
            workers.append(asyncio.create_task(self._work()))
        answers = await asyncio.gather(*futures)
        await asyncio.gather(*workers)
        return answers

    async def _work(self) -> None:
        while self._heap:
            competition, future = self._heap.pop(int(self._rng.integers(len(self._heap))))
            for _ in range(int(self._rng.integers(0, 4))):
                await asyncio.sleep(0)
            future.set_result(self._organism.answer(competition))
        self._busy -= 1


class Crash(Exception):
    """The machine went down."""


class Remembering:
    """Keeps every answer. With `crash_after` so many new ones the machine goes down, in the middle of a batch."""

    def __init__(self, organism: ReferenceOrganism) -> None:
        self.known: dict[Competition, Answer] = {}
        self.crash_after: int | None = None
        self._organism = organism

    async def __call__(self, competitions: Sequence[Competition]) -> list[Answer]:
        for competition in competitions:
            if competition in self.known:
                continue
            if self.crash_after is not None and len(self.known) >= self.crash_after:
                raise Crash
            self.known[competition] = self._organism.answer(competition)
        await asyncio.sleep(0)
        return [self.known[competition] for competition in competitions]
