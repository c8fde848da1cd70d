"""For how many others each job of a graph waits: counted in the queue, each job that is over once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knockem_dagster.jobs.queue import Queue

COUNTING_SECONDS = 120
"""After so long, who began to count is taken for dead. A graph of 100,000 jobs takes ten seconds or so."""
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


class GraphCounts:
    """The counts of one workflow. Methods raise QueueAway while the server does not answer."""

    def __init__(self, queue: Queue, workflow: str) -> None:
        self._queue = queue
        self._workflow = workflow

    async def begin(self) -> bool:
        """Forget all counts, to count anew; False, changing nothing, while anything is ready, in work or unrecorded.

        Until `end`, or for COUNTING_SECONDS, nobody else may begin.
        """
        return bool(await self._queue.call("expect", self._workflow, COUNTING_SECONDS, 1))

    async def keep_others_out(self) -> bool:
        """Let nobody else begin, as `begin` does, but forget nothing; False if somebody has begun."""
        return bool(await self._queue.call("expect", self._workflow, COUNTING_SECONDS, 0))

    async def expect(self, blocked: Sequence[Blocked]) -> None:
        """Note for how many others each of these jobs waits."""
        arguments = [part for each in blocked for part in (each.job, each.blockers, int(each.spoiled))]
        await self._queue.call("expect", self._workflow, 0, 0, *arguments)

    async def end(self) -> None:
        """Let others begin to count."""
        await self._queue.guarded(self._queue.server.delete(f"{self._queue.base(self._workflow)}:counting"))

    async def release(self, ended: Sequence[Ended]) -> list[Released]:
        """Tell of jobs that are over; return those that wait for nothing any more. Telling it again changes nothing."""
        released: list[Released] = []
        arguments: list[Any] = []
        for number, each in enumerate(ended, start=1):
            arguments += [each.job, int(each.completed), len(each.dependents), *each.dependents]
            if len(arguments) >= MOST_RELEASED or number == len(ended):
                answer = await self._queue.call("release", self._workflow, *arguments)
                released += [Released(job, bool(told)) for job, told in zip(answer[::2], answer[1::2], strict=True)]
                arguments.clear()
        return released
