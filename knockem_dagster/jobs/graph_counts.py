"""For how many others each job of a graph waits: counted in the queue, each job that is over once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.queue import Queue

COUNTING_SECONDS = 120
"""From one step of counting to the next. To count a page of jobs takes a fraction of a second; to read a large graph
before, or to reset what is restarted, takes longer. Who loses the count leaves the rest to whoever has it by then, or
to upkeep where nobody has."""
MOST_RELEASED = 50_000
"""Jobs told of in one call: a script holds up everybody else."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A job of a graph, and for how many others it waits; `spoiled`: one that it waited for did not complete."""

    job: bytes
    blockers: int
    spoiled: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A job of a graph that is over, and the jobs that waited for it."""

    job: bytes
    completed: bool
    dependents: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Released:
    """A job that waits for nothing any more; `spoiled`: one that it waited for did not complete."""

    job: bytes
    spoiled: bool


class CountingLost(KnockemError):
    """Somebody else counts by now: this one took too long."""

    def __init__(self) -> None:
        super().__init__("Somebody else lets it go on by now.")


class GraphCounts:
    """The counts of one workflow. One at a time may set them, and is given up COUNTING_SECONDS after its last step.

    Methods raise QueueAway while the server does not answer.
    """

    def __init__(self, queue: Queue, workflow: str) -> None:
        self._queue = queue
        self._workflow = workflow
        self._token = secrets.token_hex(8).encode()

    async def begin(self, *, anew: bool = True) -> bool:
        """Let nobody else count until `end`; False if somebody does.

        `anew`: forget all counts, too; False, changing nothing, while anything is ready, in work or unrecorded.
        """
        return bool(await self._step("anew" if anew else "begin"))

    async def expect(self, blocked: Sequence[Blocked]) -> None:
        """Note for how many others each of these jobs waits. Raises CountingLost."""
        arguments = [part for each in blocked for part in (each.job, each.blockers, int(each.spoiled))]
        if not await self._queue.call("expect", self._workflow, self._token, COUNTING_SECONDS, *arguments):
            raise CountingLost

    async def end(self) -> None:
        """Let others begin to count."""
        await self._step("end")

    async def _step(self, step: str) -> int:
        return await self._queue.call("count", self._workflow, self._token, step, COUNTING_SECONDS)

    async def release(self, ended: Sequence[Ended]) -> list[Released]:
        """Tell of jobs that are over; return those dependents that wait for nothing any more, and are not ready yet.

        Telling it again changes nothing, and answers the same until they are ready.
        """
        released: list[Released] = []
        arguments: list[Any] = []
        for number, each in enumerate(ended, start=1):
            arguments += [each.job, int(each.completed), len(each.dependents), *each.dependents]
            if len(arguments) >= MOST_RELEASED or number == len(ended):
                answer = await self._queue.call("release", self._workflow, *arguments)
                released += [Released(job, bool(told)) for job, told in zip(answer[::2], answer[1::2], strict=True)]
                arguments.clear()
        return released
