"""Errands: what a process without a container engine asks of the workers, over the queue's server.

An errand is no job: nothing of it is recorded, whoever asks waits for the answer, and asks again where the worker that
took it dies. Only workers that offer its runtime take it; where none is named it is offered to all, and a worker that
cannot do it says so: then it is offered to those that offer something else. What errands there are is not said here:
see assay_runs/errands.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from knockem_dagster import errors
from knockem_dagster.containers.runtime import RuntimeName
from knockem_dagster.errors import ContainerError, Fault, InvalidInput, KnockemError, NotOffered, QueueAway, WorkersAway
from knockem_dagster.jobs.compute_node import DRAIN_SECONDS
from knockem_dagster.jobs.connection import ended_before
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.platform import Platform
from knockem_dagster.records.record import new_id
from knockem_dagster.settings import RUNTIMES

LOOK_SECONDS = 3.0
"""How often those who wait, on both sides, look whether all is well."""
PATIENCE_SECONDS = 60.0
"""How long an errand may wait for a worker to take it."""
KEPT_SECONDS = 60
"""How long what is asked and answered is kept after those who asked were last heard of."""
MOST_TRIES = 3
"""Workers that may die with an errand before it is given up."""
AT_A_TIME = 2
"""Errands that one worker runs at a time, beside its jobs."""

Handler = Callable[[Platform, bytes], Awaitable[bytes]]
"""Runs one kind of errand: its content in, the answer out."""


async def ask_workers(
    platform: Platform,
    kind: str,
    content: bytes,
    *,
    runtime: Literal["auto", RuntimeName],
    patience_seconds: float | None = None,
) -> bytes:
    """Have an errand run by any worker that offers the runtime, or one that can do it (`auto`); return the answer.

    `patience_seconds`: how long it may wait for a worker; None: PATIENCE_SECONDS. Raises what the worker raised (a
    KnockemError), NotOffered where no runtime is for it, WorkersAway where no worker takes the errand, and QueueAway.
    """
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    left: Sequence[str] = RUNTIMES if runtime == "auto" else (runtime,)
    died, why = 0, ""
    async with queue_of(platform) as queue:
        errand = _Errand(queue, new_id())
        try:
            while left and died < MOST_TRIES:
                said = await errand.put(kind, content, left, patience_seconds=patience, why=why)
                if said is None:
                    died += 1
                elif "offered" in said:
                    left, why = [each for each in left if each not in said["offered"]], said["message"]
                else:
                    return _read_answer(said)
        finally:
            with contextlib.suppress(QueueAway):
                await errand.forget()
    if not left:
        raise NotOffered(why)
    raise WorkersAway(
        f"{MOST_TRIES} workers ended while they looked at this: see what they say in their logs, and try again."
    )


async def run_errands(
    platform: Platform,
    handlers: Mapping[str, Handler],
    *,
    runtimes: Collection[str],
    over: asyncio.Event,
    say: Say,
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Run the errands of these runtimes as they come, until it is over: then those in work have `drain_seconds`.

    They may use no other runtime. While the queue is away, wait. What goes wrong with one ends no other.
    """
    worker = _ErrandRunner(platform.offering(runtimes), handlers, sorted(runtimes), say)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(worker.run(over)) for _ in range(AT_A_TIME)]
        await over.wait()
        await asyncio.wait(running, timeout=drain_seconds)
        for task in running:
            task.cancel()


@dataclass(frozen=True, slots=True)
class _Errand:
    """Where an errand is in the queue's server."""

    queue: Queue
    id: str

    @property
    def asked(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:asked"

    @property
    def alive(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:alive"

    @property
    def answered(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:answer"

    async def put(
        self, kind: str, content: bytes, runtimes: Sequence[str], *, patience_seconds: float, why: str
    ) -> Mapping[str, Any] | None:
        """Offer the errand and wait for what is said to it; None where the worker that took it has died.

        `why` others could not do it. Raises WorkersAway.
        """
        queue, server = self.queue, self.queue.server
        await queue.guarded(server.set(self.asked, kind.encode() + b"\n" + content, ex=KEPT_SECONDS))
        for runtime in runtimes:
            await queue.guarded(server.rpush(_waiting(queue, runtime), self.id))
        deadline, looks_in_vain = time.monotonic() + patience_seconds, 0
        while looks_in_vain < 2:  # one may fall between a worker's taking it and its first sign of life
            found = await queue.guarded(server.blpop([self.answered], timeout=LOOK_SECONDS))
            if found is not None:
                return orjson.loads(found[1])
            await queue.guarded(server.expire(self.asked, KEPT_SECONDS))
            if await queue.guarded(server.exists(self.alive, self.answered)):
                looks_in_vain = 0
            elif not await self._waits(runtimes):
                looks_in_vain += 1
            elif time.monotonic() > deadline:
                offering = "" if len(runtimes) == len(RUNTIMES) else f" that offers {' or '.join(runtimes)}"
                others = f" Another said: {why}" if why else ""
                raise WorkersAway(
                    f"No worker{offering} had time for this within {patience_seconds:g} s: `./knockem workers` "
                    f"shows who is there, `./knockem worker` starts one.{others}"
                )
        return None

    async def forget(self) -> None:
        """Take back what nobody waits for any more; a worker that runs it ends it."""
        await self._withdraw()
        await self.queue.guarded(self.queue.server.delete(self.asked, self.answered))

    async def read(self) -> tuple[str, bytes] | None:
        """Return the kind and the content; None where nobody waits for it any more."""
        found = await self.queue.guarded(self.queue.server.get(self.asked))
        kind, _, content = (found or b"").partition(b"\n")
        return (kind.decode(), content) if found else None

    async def take(self, seconds: float) -> bool:
        """Give the first sign of life, for so long; False where another worker has: it waits in several lists."""
        is_first = await self.queue.guarded(self.queue.server.set(self.alive, 1, px=round(seconds * 1000), nx=True))
        if is_first:
            await self._withdraw()
        return bool(is_first)

    async def keep_alive(self, seconds: float) -> None:
        """Give signs of life, each for so long, until nobody waits for the errand any more."""
        while await self.queue.guarded(self.queue.server.exists(self.asked)):
            await self.queue.guarded(self.queue.server.set(self.alive, 1, px=round(seconds * 1000)))
            await asyncio.sleep(min(LOOK_SECONDS, seconds / 4))

    async def answer(self, answer: Mapping[str, object]) -> None:
        """Hand in the answer; then it may be taken again."""
        server = self.queue.server
        await self.queue.guarded(server.delete(self.alive))
        await self.queue.guarded(server.rpush(self.answered, orjson.dumps(answer)))
        await self.queue.guarded(server.expire(self.answered, KEPT_SECONDS))

    async def _waits(self, runtimes: Sequence[str]) -> bool:
        server = self.queue.server
        places = [await self.queue.guarded(server.lpos(_waiting(self.queue, each), self.id)) for each in runtimes]
        return any(place is not None for place in places)

    async def _withdraw(self) -> None:
        for runtime in RUNTIMES:
            await self.queue.guarded(self.queue.server.lrem(_waiting(self.queue, runtime), 0, self.id))


def _waiting(queue: Queue, runtime: str) -> str:
    """Return the list in which the ids of errands wait for those who offer the runtime."""
    return f"{queue.prefix}:errands:{runtime}"


@dataclass(frozen=True, slots=True)
class _ErrandRunner:
    """The side of a worker."""

    platform: Platform
    handlers: Mapping[str, Handler]
    runtimes: Sequence[str]
    say: Say

    async def run(self, over: asyncio.Event) -> None:
        """Run errands, one after the other, until it is over."""
        while not over.is_set():
            [fault] = await asyncio.gather(self._run_while_well(over), return_exceptions=True)
            if fault is not None:
                if not isinstance(fault, QueueAway):
                    said = fault if isinstance(fault, KnockemError) else f"{type(fault).__name__}: {fault}"
                    self.say(f"Errands wait for {LOOK_SECONDS:g} s: {said}")
                await asyncio.sleep(LOOK_SECONDS)

    async def _run_while_well(self, over: asyncio.Event) -> None:
        async with queue_of(self.platform) as queue:
            while (errand := await self._next(queue, over)) is not None:
                await self._run_one(errand)

    async def _next(self, queue: Queue, over: asyncio.Event) -> _Errand | None:
        """Take the next errand; None once it is over."""
        lists = [_waiting(queue, each) for each in self.runtimes]
        while not over.is_set():
            taking = asyncio.ensure_future(queue.guarded(queue.server.blpop(lists, timeout=LOOK_SECONDS)))
            if await ended_before(taking, over) and (found := taking.result()) is not None:
                return _Errand(queue, found[1].decode())
        return None

    async def _run_one(self, errand: _Errand) -> None:
        asked = await errand.read()
        lease_seconds = self.platform.settings.lease_seconds
        if asked is None or not await errand.take(lease_seconds):
            return
        kind, content = asked
        life = asyncio.ensure_future(errand.keep_alive(lease_seconds))
        running = asyncio.ensure_future(self._outcome(kind, content))
        try:
            await asyncio.wait([life, running], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await life  # once it cannot give signs of life, somebody else is asked
                self.say(f"An errand ({kind}) is ended: nobody waits for it any more.")
                return
        finally:
            for task in (life, running):
                task.cancel()
            [_, outcome] = await asyncio.gather(life, running, return_exceptions=True)
        if isinstance(outcome, BaseException):
            self.say(f"An errand ({kind}) ended with {type(outcome).__name__}: {outcome}")
        await errand.answer(self._told(outcome))

    async def _outcome(self, kind: str, content: bytes) -> bytes:
        if kind not in self.handlers:
            raise ContainerError(f"This worker knows no errand {kind!r}: it is of another version than who asks.")
        return await self.handlers[kind](self.platform, content)

    def _told(self, outcome: bytes | BaseException) -> Mapping[str, object]:
        """Return what is said to who asks."""
        if isinstance(outcome, NotOffered):
            return {"offered": self.runtimes, "message": str(outcome)}
        return _fault(outcome) if isinstance(outcome, BaseException) else {"answer": outcome.decode()}


def _fault(error: BaseException) -> dict[str, object]:
    """Describe an error: by the nearest of our own kinds, since those who ask know no others."""
    kind = next((each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__), None)
    if isinstance(error, InvalidInput):
        faults = [(fault.field, fault.value, fault.allowed) for fault in error.faults]
        return {"error": kind, "message": error.what, "faults": faults}
    return {"error": kind, "message": str(error) if kind else f"a worker met an unexpected {type(error).__name__}"}


def _read_answer(said: Mapping[str, Any]) -> bytes:
    """Return an answer, or raise the error that it describes."""
    if "answer" in said:
        return said["answer"].encode()
    if said["error"] == InvalidInput.__name__:
        raise InvalidInput(said["message"], [Fault(*fault) for fault in said["faults"]])
    kind: type[KnockemError] = getattr(errors, said["error"] or ContainerError.__name__)
    raise kind(said["message"])
