"""Errands: what a process without a container engine asks of the workers, over the queue's server.

An errand is no job: nothing of it is recorded, whoever asks waits for the answer, and asks again where the worker that
took it dies. What errands there are is not said here: see assay_runs/errands.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson

from knockem_dagster import errors
from knockem_dagster.errors import ContainerError, Fault, InvalidInput, KnockemError, QueueAway, StoreError
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.platform import Platform
from knockem_dagster.records.record import new_id

ALIVE_SECONDS = 10.0
"""A worker that gives no sign of life for so long has died with its errand."""
LOOK_SECONDS = 3.0
"""How often those who wait, on both sides, look whether all is well."""
PATIENCE_SECONDS = 60.0
"""How long an errand may wait for a worker to take it."""
KEPT_SECONDS = 60
"""How long an answer is kept for who asked."""
MOST_TRIES = 3
"""Workers that may die with an errand before it is given up."""
AT_A_TIME = 2
"""Errands that one worker runs at a time, beside its jobs."""

Handler = Callable[[Platform, bytes], Awaitable[bytes]]
"""Runs one kind of errand: its content in, the answer out."""


async def ask_workers(platform: Platform, kind: str, content: bytes) -> bytes:
    """Have an errand run by any worker, and return the answer.

    Raises what the worker raised (a KnockemError), ContainerError where no worker takes the errand, and QueueAway.
    """
    async with queue_of(platform) as queue:
        errand = _Errand(queue, new_id())
        message = orjson.dumps({"id": errand.id, "kind": kind, "content": content.decode()})
        try:
            for _ in range(MOST_TRIES):
                answer = await errand.put(message)
                if answer is not None:
                    return _read_answer(answer)
        finally:
            with contextlib.suppress(QueueAway):
                await errand.forget(message)
    raise ContainerError(
        f"{MOST_TRIES} workers ended while they looked at this: see what they say in their logs, and try again."
    )


async def run_errands(platform: Platform, handlers: Mapping[str, Handler], *, over: asyncio.Event, say: Say) -> None:
    """Run errands as they come, until it is over: then those in work are finished. While the queue is away, wait."""

    async def run() -> None:
        while not over.is_set():
            try:
                async with queue_of(platform) as queue:
                    while (message := await _next_message(queue, over)) is not None:
                        await _run_one(platform, queue, handlers, message, say)
            except QueueAway:
                await asyncio.sleep(LOOK_SECONDS)
            except StoreError as error:  # a server that is full, or was replaced by one that cannot hold the queue
                say(f"Errands wait: {error}")
                await asyncio.sleep(LOOK_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(run())


@dataclass(frozen=True, slots=True)
class _Errand:
    """Where an errand is in the queue's server."""

    queue: Queue
    id: str

    @property
    def waiting(self) -> str:
        return f"{self.queue.prefix}:errands"

    @property
    def alive(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:alive"

    @property
    def answered(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:answer"

    async def put(self, message: bytes) -> bytes | None:
        """Offer the errand and wait for its answer; None where the worker that took it has died."""
        queue, server = self.queue, self.queue.server
        await queue.guarded(server.rpush(self.waiting, message))
        deadline, looks_in_vain = time.monotonic() + PATIENCE_SECONDS, 0
        while looks_in_vain < 2:  # one may fall between a worker's taking it and its first sign of life
            found = await queue.guarded(server.blpop([self.answered], timeout=LOOK_SECONDS))
            if found is not None:
                return found[1]
            if await queue.guarded(server.lpos(self.waiting, message.decode())) is not None:
                if time.monotonic() > deadline:
                    raise ContainerError(
                        f"No worker had time for this within {PATIENCE_SECONDS:g} s: `./knockem workers` shows who is "
                        "there, `./knockem worker` starts one."
                    )
            else:
                is_there = await queue.guarded(server.exists(self.alive, self.answered))
                looks_in_vain = 0 if is_there else looks_in_vain + 1
        return None

    async def forget(self, message: bytes) -> None:
        """Take back what nobody waits for any more."""
        server = self.queue.server
        await self.queue.guarded(server.lrem(self.waiting, 0, message.decode()))
        await self.queue.guarded(server.delete(self.answered))

    async def keep_alive(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            await self.queue.guarded(self.queue.server.set(self.alive, 1, px=round(ALIVE_SECONDS * 1000)))
            await asyncio.sleep(ALIVE_SECONDS / 4)

    async def answer(self, answer: bytes) -> None:
        """Hand in the answer."""
        server = self.queue.server
        await self.queue.guarded(server.rpush(self.answered, answer))
        await self.queue.guarded(server.expire(self.answered, KEPT_SECONDS))


async def _next_message(queue: Queue, over: asyncio.Event) -> bytes | None:
    """Take the next errand; None once it is over."""
    ending = asyncio.ensure_future(over.wait())
    try:
        while not over.is_set():
            looked = queue.server.blpop([f"{queue.prefix}:errands"], timeout=LOOK_SECONDS)
            taking = asyncio.ensure_future(queue.guarded(looked))
            await asyncio.wait([taking, ending], return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
            elif (found := taking.result()) is not None:
                return found[1]
        return None
    finally:
        ending.cancel()


async def _run_one(platform: Platform, queue: Queue, handlers: Mapping[str, Handler], taken: bytes, say: Say) -> None:
    message = orjson.loads(taken)
    errand = _Errand(queue, message["id"])
    life = asyncio.create_task(errand.keep_alive())
    running = asyncio.ensure_future(_run(platform, handlers, message["kind"], message["content"].encode()))
    try:
        # Once it cannot give signs of life, somebody else is asked.
        await asyncio.wait([life, running], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await life
        fault = running.exception()
        if fault is not None:
            say(f"An errand ({message['kind']}) ended with {type(fault).__name__}: {fault}")
        await errand.answer(orjson.dumps(_fault(fault) if fault else {"answer": running.result().decode()}))
    finally:
        for task in (life, running):
            task.cancel()
        await asyncio.gather(life, running, return_exceptions=True)


async def _run(platform: Platform, handlers: Mapping[str, Handler], kind: str, content: bytes) -> bytes:
    if kind not in handlers:
        raise ContainerError(f"This worker knows no errand {kind!r}: it is of another version than who asks.")
    return await handlers[kind](platform, content)


def _fault(error: BaseException) -> dict[str, object]:
    """Describe an error: by the nearest of our own kinds, since those who ask know no others."""
    kind = next((each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__), None)
    if isinstance(error, InvalidInput):
        faults = [(fault.field, fault.value, fault.allowed) for fault in error.faults]
        return {"error": kind, "message": error.what, "faults": faults}
    return {"error": kind, "message": str(error) if kind else f"a worker met an unexpected {type(error).__name__}"}


def _read_answer(message: bytes) -> bytes:
    """Return an answer, or raise the error that it describes."""
    said = orjson.loads(message)
    if "answer" in said:
        return said["answer"].encode()
    if said["error"] == InvalidInput.__name__:
        raise InvalidInput(said["message"], [Fault(*fault) for fault in said["faults"]])
    kind: type[KnockemError] = getattr(errors, said["error"] or ContainerError.__name__)
    raise kind(said["message"])
