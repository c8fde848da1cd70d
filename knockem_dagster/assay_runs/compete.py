"""The durable `compete`: look up first, ask only what is missing, record every try, first result wins.

An assay run is one assay's `compete` over an attempt source. It holds at most `max_active`
attempts at a time and a bounded number of questions, so an assay may ask a million at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from knockem_dagster.assay_runs.ledger import Held, Ledger, Question
from knockem_dagster.containers.attempts import Attempt, AttemptOutcome
from knockem_dagster.jobs.sources import AttemptSource
from knockem_dagster.knockout.competitions import Answer, Competition, Untestable

LOOKUP_BATCH = 500
"""Questions looked up and recorded in one go."""
LOSSES_ALLOWED = 5
"""Attempts of one competition that may be lost with their container before it is given up."""
INTERRUPTIONS_ALLOWED = 5
"""Attempts that may be lost with their run before a competition is tried alone, to see whether it kills its run."""


@dataclass(slots=True)
class Progress:
    """What an assay run has done: competitions asked, answered (of these recalled from the record), given up.

    `held` is what the record had of the assay before, and `new` competitions were not in it.
    """

    asked: int = 0
    answered: int = 0
    recalled: int = 0
    untestable: int = 0
    attempts: int = 0
    new: int = 0
    held: Held = field(default_factory=Held)

    @property
    def num_settled(self) -> int:
        """How many of the assay's competitions are answered or given up by now, those of earlier runs included."""
        return self.held.answered + self.answered - self.recalled

    @property
    def num_competitions(self) -> int:
        """How many different competitions the assay has asked for by now, in all its runs."""
        return self.held.asked + self.new


class AssayRun:
    """One assay's `compete`. The source must serve this run alone while it lasts.

    Use as an async context manager: whatever breaks the run (a store that refuses to write, say)
    cancels the assay inside and leaves the context as an ExceptionGroup.
    """

    def __init__(self, ledger: Ledger, source: AttemptSource, *, max_active: int, max_fail: int) -> None:
        self._ledger = ledger
        self._source = source
        self._max_active = max_active
        self._max_fail = max_fail
        self.progress = Progress()
        self._asked: deque[tuple[Competition, asyncio.Future[Answer]]] = deque()
        self._ready: deque[Question] = deque()
        self._lost: deque[Question] = deque()
        self._waiting: dict[str, tuple[Question, list[asyncio.Future[Answer]]]] = {}
        self._active = 0
        self._alone = False
        self._stir = asyncio.Event()
        self._room = asyncio.Semaphore(max(2 * LOOKUP_BATCH, 4 * max_active))
        self._record = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> AssayRun:
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._ask()), self._group.create_task(self._hear())]
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            self._record.shutdown()

    async def compete(self, competitions: Sequence[Competition]) -> list[Answer]:
        """Answer competitions, in the order asked."""
        answers: list[Answer | None] = [None] * len(competitions)
        unanswered = len(answers)
        complete = asyncio.Event()

        def place(index: int, settled: asyncio.Future[Answer]) -> None:
            nonlocal unanswered
            if not settled.cancelled():
                answers[index] = settled.result()
            unanswered -= 1
            if not unanswered:
                complete.set()

        loop = asyncio.get_running_loop()
        for index, competition in enumerate(competitions):
            await self._room.acquire()
            future: asyncio.Future[Answer] = loop.create_future()
            future.add_done_callback(partial(place, index))
            self._asked.append((competition, future))
            self._stir.set()
        if answers:
            await complete.wait()
        return [answer for answer in answers if answer is not None]

    async def _ask(self) -> None:
        """Look questions up, record the new ones, and start attempts while there is room for them."""
        loop = asyncio.get_running_loop()
        while True:
            await self._stir.wait()
            self._stir.clear()
            while self._asked:
                batch = [self._asked.popleft() for _ in range(min(LOOKUP_BATCH, len(self._asked)))]
                questions = [self._ledger.question(competition) for competition, _ in batch]
                new: list[Question] = []
                for question, (_, future) in zip(questions, batch, strict=True):
                    if question.id in self._waiting:
                        self._waiting[question.id][1].append(future)
                    else:
                        self._waiting[question.id] = (question, [future])
                        new.append(question)
                self.progress.asked += len(batch)
                opened = await loop.run_in_executor(self._record, self._ledger.open, new)
                self.progress.new += opened.num_new
                for question in new:
                    counts = opened.answers.get(question.id)
                    if counts is not None:
                        self.progress.recalled += 1
                        self._settle(question, counts)
                    elif question.under_way is not None:
                        self._active += 1
                        await self._source.adopt([question.under_way])
                    else:
                        self._queue(question)
                await self._start()
            await self._start()

    async def _start(self) -> None:
        starting = self._next_questions()
        if not starting:
            return
        number = len(starting)
        attempts: list[Attempt] = [question.next_attempt(self._ledger.assay) for question in starting]
        numbers = {attempt.id: question.tries for attempt, question in zip(attempts, starting, strict=True)}
        self._active += number
        self.progress.attempts += number
        await asyncio.get_running_loop().run_in_executor(
            self._record, partial(self._ledger.begin, attempts, numbers, alone=self._alone)
        )
        await self._source.put(attempts)

    def _next_questions(self) -> list[Question]:
        """Take the questions to start now; those lost before, last and one at a time.

        What a container loses with the one competition that killed it must not be lost with it again and again.
        """
        if self._alone and self._active:
            return []
        self._alone = not self._ready and not self._active and bool(self._lost)
        if self._alone:
            return [self._lost.popleft()]
        room = max(0, self._max_active - self._active)
        return [self._ready.popleft() for _ in range(min(room, len(self._ready)))]

    async def _hear(self) -> None:
        """Record outcomes as they come, settle their questions or try them again."""
        loop = asyncio.get_running_loop()
        while True:
            outcomes = await self._source.outcomes()
            standing = await loop.run_in_executor(self._record, self._ledger.end, outcomes)
            self._active -= len(outcomes)
            for ended in outcomes:
                self._judge(ended, standing.get(ended.attempt.competition_id))
            self._stir.set()

    def _judge(self, ended: AttemptOutcome, standing: Answer | None) -> None:
        entry = self._waiting.get(ended.attempt.competition_id)
        if entry is None:
            return
        question = entry[0]
        if standing is not None:
            self._settle(question, standing)
        else:
            question.note(ended.outcome, ended.tail)
            self._queue(question)

    def _queue(self, question: Question) -> None:
        """Queue a question for its next try, or give it up."""
        if question.failures >= self._max_fail:
            self._settle(question, Untestable(f"{question.failures} attempts failed; the last {question.last}"))
        elif question.losses >= LOSSES_ALLOWED:
            self._settle(question, Untestable(f"{question.losses} attempts were lost; the last {question.last}"))
        else:
            is_suspect = question.losses or question.interruptions >= INTERRUPTIONS_ALLOWED
            (self._lost if is_suspect else self._ready).append(question)

    def _settle(self, question: Question, answer: Answer) -> None:
        if isinstance(answer, Untestable):
            self.progress.untestable += 1
        self.progress.answered += 1
        for future in self._waiting.pop(question.id)[1]:
            self._room.release()
            if not future.done():
                future.set_result(answer)
