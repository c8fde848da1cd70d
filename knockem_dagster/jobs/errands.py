"""Errands: what a process without a container engine asks of the workers, over the queue's server.

An errand is no job: nothing of it is recorded, whoever asks waits for the answer, and asks again where the worker that
took it dies. Only workers that offer its runtime take it. What errands there are is not said here: see
assay_runs/errands.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from knockem_dagster import errors
from knockem_dagster.containers.runtime import RuntimeName
from knockem_dagster.errors import ContainerError, Fault, InvalidInput, KnockemError, QueueAway, StoreError, WorkersAway
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.platform import Platform
from knockem_dagster.records.record import new_id

LOOK_SECONDS = 3.0
"""How often those who wait, on both sides, look whether all is well."""
PATIENCE_SECONDS = 60.0
"""How long an errand may wait for a worker to take it."""
KEPT_SECONDS = 600
"""How long what is asked and answered is kept, should those who asked not take it back."""
MOST_TRIES = 3
"""Workers that may die with an errand before it is given up."""
AT_A_TIME = 2
"""Errands that one worker runs at a time, beside its jobs."""

Handler = Callable[[Platform, bytes], Awaitable[bytes]]
"""Runs one kind of errand: its content in, the answer out."""


async def ask_workers(platform: Platform, kind: str, content: bytes, *, runtime: Literal["auto", RuntimeName]) -> bytes:
    """Have an errand run by any worker that offers a runtime, and return the answer.

    Raises what the worker raised (a KnockemError), WorkersAway where no worker takes the errand, and QueueAway.
    """
    async with queue_of(platform) as queue:
        errand = _Errand(queue, new_id())
        try:
            for _ in range(MOST_TRIES):
                answer = await errand.put(kind, content, runtime)
                if answer is not None:
                    return _read_answer(answer)
        finally:
            with contextlib.suppress(QueueAway):
                await errand.forget(runtime)
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
) -> None:
    """Run the errands of these runtimes as they come, until it is over: then those in work are finished.

    They may use no other runtime. While the queue is away, wait.
    """
    offered = platform.offering(runtimes)

    async def run() -> None:
        while not over.is_set():
            try:
                async with queue_of(platform) as queue:
                    lists = [_waiting(queue, each) for each in ("auto", *sorted(runtimes))]
                    while (errand := await _next_errand(queue, lists, over)) is not None:
                        await _run_one(offered, errand, handlers, say)
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
    def asked(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:asked"

    @property
    def alive(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:alive"

    @property
    def answered(self) -> str:
        return f"{self.queue.prefix}:errand:{self.id}:answer"

    async def put(self, kind: str, content: bytes, runtime: str) -> bytes | None:
        """Offer the errand and wait for its answer; None where the worker that took it has died."""
        queue, server, waiting = self.queue, self.queue.server, _waiting(self.queue, runtime)
        await queue.guarded(server.set(self.asked, kind.encode() + b"\n" + content, ex=KEPT_SECONDS))
        await queue.guarded(server.rpush(waiting, self.id))
        deadline, looks_in_vain = time.monotonic() + PATIENCE_SECONDS, 0
        while looks_in_vain < 2:  # one may fall between a worker's taking it and its first sign of life
            found = await queue.guarded(server.blpop([self.answered], timeout=LOOK_SECONDS))
            if found is not None:
                return found[1]
            if await queue.guarded(server.lpos(waiting, self.id)) is not None:
                if time.monotonic() > deadline:
                    offering = "" if runtime == "auto" else f" that offers {runtime}"
                    raise WorkersAway(
                        f"No worker{offering} had time for this within {PATIENCE_SECONDS:g} s: `./knockem workers` "
                        "shows who is there, `./knockem worker` starts one."
                    )
            else:
                is_there = await queue.guarded(server.exists(self.alive, self.answered))
                looks_in_vain = 0 if is_there else looks_in_vain + 1
        return None

    async def forget(self, runtime: str) -> None:
        """Take back what nobody waits for any more."""
        server = self.queue.server
        await self.queue.guarded(server.lrem(_waiting(self.queue, runtime), 0, self.id))
        await self.queue.guarded(server.delete(self.asked, self.answered))

    async def read(self) -> tuple[str, bytes] | None:
        """Return the kind and the content; None where nobody waits for it any more."""
        found = await self.queue.guarded(self.queue.server.get(self.asked))
        kind, _, content = (found or b"").partition(b"\n")
        return (kind.decode(), content) if found else None

    async def keep_alive(self, seconds: float) -> None:
        """Give signs of life, each for so long, until cancelled."""
        while True:
            await self.queue.guarded(self.queue.server.set(self.alive, 1, px=round(seconds * 1000)))
            await asyncio.sleep(seconds / 4)

    async def answer(self, answer: bytes) -> None:
        """Hand in the answer."""
        server = self.queue.server
        await self.queue.guarded(server.rpush(self.answered, answer))
        await self.queue.guarded(server.expire(self.answered, KEPT_SECONDS))


def _waiting(queue: Queue, runtime: str) -> str:
    """Return the list in which the ids of errands wait: for those who offer the runtime, or ("auto") for anybody."""
    return f"{queue.prefix}:errands:{runtime}"


async def _next_errand(queue: Queue, lists: Sequence[str], over: asyncio.Event) -> _Errand | None:
    """Take the next errand of these lists; None once it is over."""
    ending = asyncio.ensure_future(over.wait())
    try:
        while not over.is_set():
            taking = asyncio.ensure_future(queue.guarded(queue.server.blpop(lists, timeout=LOOK_SECONDS)))
            await asyncio.wait([taking, ending], return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
            elif (found := taking.result()) is not None:
                return _Errand(queue, found[1].decode())
        return None
    finally:
        ending.cancel()


async def _run_one(platform: Platform, errand: _Errand, handlers: Mapping[str, Handler], say: Say) -> None:
    asked = await errand.read()
    if asked is None:
        return
    kind, content = asked
    life = asyncio.create_task(errand.keep_alive(platform.settings.lease_seconds))
    running = asyncio.ensure_future(_run(platform, handlers, kind, content))
    try:
        # Once it cannot give signs of life, somebody else is asked.
        await asyncio.wait([life, running], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await life
        fault = running.exception()
        if fault is not None:
            say(f"An errand ({kind}) ended with {type(fault).__name__}: {fault}")
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
