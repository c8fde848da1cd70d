"""A compute node: a worker that pulls from the queue what fits its resources, until it is told to stop.

It states its CPUs, memory, GPUs and time left; a slot is started for a job that fits what is free, and goes on with
jobs of the same class as long as there are any. What a slot does with jobs is its lane's business (lanes.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from knockem_dagster.containers.owners import current_owner
from knockem_dagster.errors import ContainerError, LeaseLapsed, QueueAway
from knockem_dagster.jobs.connection import Connection
from knockem_dagster.jobs.desk import WAIT_SECONDS, Desk
from knockem_dagster.jobs.queue import Claim, Report, Verdict, Wanted
from knockem_dagster.jobs.requirements import Capacity, Requirement
from knockem_dagster.jobs.worker_sources import Say, WorkerQueue
from knockem_dagster.records.record import now

KEPT_WARM_SECONDS = 5.0
LEAVING_SECONDS = 1.0
"""How long before the end of its time a worker ends what still runs, and hands it back."""
DRAIN_SECONDS = 20.0
"""How long a worker that is told to stop lets jobs go on before it hands them back: schedulers kill after about 30."""
LAST_SECONDS = 5.0
"""How long at least a worker that is told to stop lets what it does last go on, whatever its jobs took before."""
TOO_LATE = "the time left was too short for any job that waits"


class Lane(Protocol):
    """Runs the jobs of one desk. `most` is how many it may hold at a time."""

    keeps_warm: bool
    """Whether it has something that is worth keeping for a while when the owner has no more jobs."""

    async def run(self, desk: Desk, *, most: int) -> None:
        """Work until the desk has no more. Raises ContainerError when this machine cannot do the owner's jobs."""
        ...


@dataclass(slots=True)
class _Slot:
    desk: Desk
    task: asyncio.Task[None] | None = None


def worker_name(prefix: str = "") -> str:
    """Return a name no other worker has: host, process, and something random."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    return f"{prefix}{host}-{os.getpid()}-{secrets.token_hex(3)}"


class ComputeNode:
    """A worker. `run` it; `stop` drains it.

    `only`: work for this owner only, and let a ContainerError end the run; otherwise other owners' jobs go on.
    """

    def __init__(
        self,
        queue: WorkerQueue,
        lanes: Mapping[str, Lane],
        capacity: Capacity,
        *,
        name: str,
        lease_seconds: float,
        say: Say,
        only: str = "",
        keep_warm: float = KEPT_WARM_SECONDS,
        most_held: int = 64,
        drain_seconds: float = DRAIN_SECONDS,
        idle_seconds: float = math.inf,
        do_last: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """`idle_seconds`: it ends after so long without anything to do, or without an answer of the queue.

        `do_last`: done once its jobs are over, before it leaves.
        """
        self.name = name
        self._lanes = lanes
        self._capacity = replace(capacity, runtimes=capacity.runtimes & lanes.keys())
        self._free = self._capacity
        left = math.inf if capacity.seconds_left is None else capacity.seconds_left
        self._ends = time.monotonic() + left - LEAVING_SECONDS
        self._connection = Connection(queue, name, say=say)
        self._queue = queue
        self._lease_seconds = lease_seconds
        self._say = say
        self._only = only
        self._keep_warm = keep_warm
        self._most_held = most_held
        self._drain_seconds = drain_seconds
        self._idle_seconds = idle_seconds
        self._do_last = do_last
        self.registered = asyncio.Event()
        """Set once the queue knows this worker."""
        self.is_ending = asyncio.Event()
        """Set once it claims nothing more."""
        self._told_to_stop = asyncio.Event()
        self._drained_by = math.inf
        self._room = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._slots: dict[int, _Slot] = {}
        self._numbers = itertools.count()
        self._unable: dict[str, str] = {}
        self._came_with = math.inf
        self._classes: dict[str, Requirement] = {}
        self._busy_at = time.monotonic()

    @property
    def description(self) -> bytes:
        """What the worker says of itself, as JSON."""
        capacity = self._capacity
        return orjson.dumps(
            {
                "host": socket.gethostname(),
                "owner": str(current_owner()),
                "cpus": capacity.cpus,
                "memoryMiB": capacity.memory_mib,
                "gpus": capacity.gpus,
                "secondsLeft": capacity.seconds_left,
                "runtimes": sorted(capacity.runtimes),
                "only": self._only,
                "leaseSeconds": self._lease_seconds,
                "started": now(),
            }
        )

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many of its jobs ended how."""
        return self._connection.verdicts

    @property
    def inability(self) -> str:
        """Why it could do nothing of what was there for it; empty where it has done anything, or nothing was there."""
        return "" if self._has_done else "; ".join(dict.fromkeys(self._unable.values()))

    @property
    def unable_for(self) -> tuple[str, ...]:
        """The owners whose jobs it could not do."""
        return tuple(self._unable)

    @property
    def _has_done(self) -> bool:
        return any(number for verdict, number in self.verdicts.items() if verdict is not Verdict.RETURNED)

    def stop(self) -> None:
        """Claim nothing more, finish what is in work or hand it back, and end `run`."""
        self._drained_by = min(self._drained_by, time.monotonic() + self._drain_seconds, self._ends)
        self._told_to_stop.set()
        self._claim_no_more()

    def _claim_no_more(self) -> None:
        self.is_ending.set()
        self._room.set()

    async def run(self) -> None:
        """Work until stopped, or until the time left is over."""
        await self._connection.beat(self._lease_seconds, self.description)
        self.registered.set()
        if self._ends < math.inf:
            asyncio.get_running_loop().call_later(self._ends - time.monotonic(), self.stop)
        try:
            async with asyncio.TaskGroup() as group:
                beat, idle = group.create_task(self._beat()), group.create_task(self._end_when_idle())
                try:
                    with contextlib.suppress(QueueAway):  # only when it is left
                        await self._dispatch(group)
                    await self._drain()
                    await self._look_what_it_came_too_late_for()
                    idle.cancel()
                    await self._finish(group)
                finally:
                    self._connection.is_patient = False
                beat.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        finally:
            await asyncio.shield(self._leave())

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Start a slot for every job that fits what is free."""
        waiter = f"{self.name}/new"
        self._came_with = self._ends - time.monotonic()
        while not self.is_ending.is_set():
            self._room.clear()
            self._classes = await self._connection.classes()
            fitting = [name for name, requirement in self._classes.items() if self._now_free().fits(requirement)]
            if self._is_spent():
                self._say("The time left is too short for any job: ending.")
                return
            if self._slots and not fitting:
                await self._room.wait()
                continue
            wanted = Wanted(fitting, only=self._only, excluded=tuple(self._unable))
            try:
                claim = await self._connection.claim(waiter, wanted, wait=True)
            except LeaseLapsed:
                await self._begin_again()
                continue
            if claim is None:
                await self._connection.wait_for_work(waiter, WAIT_SECONDS, self._room)
            else:
                self._start(group, claim)

    def _start(self, group: asyncio.TaskGroup, claim: Claim) -> None:
        number = next(self._numbers)
        requirement = self._classes[claim.class_name]
        self._free = self._free.without(requirement)
        slot = self._slots[number] = _Slot(self._desk(claim, number))
        slot.task = group.create_task(self._work(number, slot, requirement))

    def _desk(self, claim: Claim, number: int) -> Desk:
        requirement = self._classes[claim.class_name]
        return Desk(
            self._connection,
            claim,
            waiter=f"{self.name}/{number}",
            only=self._only,
            keep_warm=self._keep_warm if self._lanes[requirement.runtime].keeps_warm else 0.0,
            over=self.is_ending,
            latest_start=self._ends - requirement.seconds,
        )

    async def _work(self, number: int, slot: _Slot, requirement: Requirement) -> None:
        """Run jobs of one class, owner after owner, until there are none."""
        lane = self._lanes[requirement.runtime]
        try:
            while True:
                try:
                    await lane.run(slot.desk, most=self._most_held)
                except ContainerError as error:
                    if self._only:
                        raise
                    self._unable[slot.desk.owner] = str(error)
                    self._say(f"This worker cannot work for {slot.desk.owner}: {error}")
                except (LeaseLapsed, QueueAway):  # the latter only when it is left
                    return
                desk, claim = slot.desk, slot.desk.next
                if claim is None:
                    return
                slot.desk, desk.next = self._desk(claim, number), None
                await desk.give_back()
        finally:
            await asyncio.shield(slot.desk.give_back())
            del self._slots[number]
            self._busy_at = time.monotonic()
            self._free = self._free.with_returned(requirement)
            self._room.set()

    async def _beat(self) -> None:
        """Renew the lease for as long as the worker runs; end jobs that were canceled, and tell when that is done."""
        ending: dict[bytes, asyncio.Task[None] | None] = {}
        while True:
            tasks = {task for task in ending.values() if task is not None and not task.done()}
            if tasks:
                await asyncio.wait(tasks, timeout=self._lease_seconds / 3)
            elif not ending:
                await asyncio.sleep(self._lease_seconds / 3)
            ended = {job for job, task in ending.items() if task is None or task.done()}
            try:
                canceled = await self._connection.beat(self._lease_seconds, ended=ended, held=self._held)
            except LeaseLapsed:
                await self._begin_again()
                ending.clear()
                continue
            except QueueAway:  # only when it is left
                return
            ending = {job: ending[job] if job in ending else self._end(job) for job in canceled}

    async def _end_when_idle(self) -> None:
        """Stop once nothing was to do for too long; and give up a queue that was away for as long."""
        self._busy_at = time.monotonic()
        while (left := self._busy_at + self._idle_seconds - time.monotonic()) > 0:
            await asyncio.sleep(min(left, max(self._idle_seconds / 10, 0.05)))
            if self._held() and not self._connection.is_away:
                self._busy_at = time.monotonic()
        what = "nobody has answered" if self._connection.is_away else "there was nothing to do"
        self._say(f"Ending: {what} for {self._idle_seconds:g} s.")
        if self._connection.is_away:
            self._connection.is_patient = False
        self._claim_no_more()

    def _end(self, job: bytes) -> asyncio.Task[None] | None:
        """Begin to end a job; return what is over when it has ended, or None where nothing of it runs."""
        for slot in self._slots.values():
            if slot.task is not None and slot.desk.held.pop(job, None) is not None:
                slot.task.cancel()
                return slot.task
        return None

    def _held(self) -> set[bytes]:
        """Return all jobs that are known to be held."""
        held: set[bytes] = set()
        for slot in self._slots.values():
            held.update(slot.desk.held, () if slot.desk.next is None else slot.desk.next.jobs)
        return held

    async def _begin_again(self) -> None:
        """End all work: it is somebody else's by now. Then register anew."""
        async with self._beginning:
            if self._connection.has_lease:
                return  # two calls were told of the same
            slots = list(self._slots.values())
            for slot in slots:
                slot.desk.held.clear()
                if slot.task is not None:
                    slot.task.cancel()
            await asyncio.gather(*(slot.task for slot in slots if slot.task is not None), return_exceptions=True)
            await self._connection.beat(self._lease_seconds, self.description)

    async def _drain(self) -> None:
        """Let slots finish what they hold, for a while; then hand it back."""
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        if tasks:
            left = max(0.0, self._ends - time.monotonic())
            await asyncio.wait(tasks, timeout=min(self._drain_seconds, left))
        self._connection.is_patient = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, group: asyncio.TaskGroup) -> None:
        """Do what is done last; once told to stop, in what the jobs have left of the time to drain."""
        if self._do_last is None:
            return
        last, told = group.create_task(self._do_last()), group.create_task(self._told_to_stop.wait())
        await asyncio.wait([last, told], return_when=asyncio.FIRST_COMPLETED)
        if not last.done():
            await asyncio.wait([last], timeout=max(LAST_SECONDS, self._drained_by - time.monotonic()))
        for task in (last, told):
            task.cancel()

    async def _look_what_it_came_too_late_for(self) -> None:
        """Where it did nothing, see whether work is ready for which its time was too short already when it came.

        Only a claim tells what is ready for this worker; what it gives is handed back.
        """
        timeless = replace(self._capacity, seconds_left=None)
        late = [name for name, each in self._classes.items() if each.seconds > self._came_with and timeless.fits(each)]
        if self._has_done or not late:
            return
        wanted = Wanted(late, only=self._only, excluded=tuple(self._unable))
        with contextlib.suppress(LeaseLapsed, QueueAway):
            claim = await self._connection.claim(f"{self.name}/late", wanted, wait=False)
            if claim is not None:
                self._unable[claim.owner] = TOO_LATE
                held = [Report(claim.owner, job, claim.token, Verdict.RETURNED) for job in claim.jobs]
                await self._connection.hand_back(held)

    async def _leave(self) -> None:
        with contextlib.suppress(QueueAway):  # then its lease lapses
            await self._queue.leave(self.name)

    def _now_free(self) -> Capacity:
        return replace(self._free, seconds_left=self._ends - time.monotonic())

    def _is_spent(self) -> bool:
        """Tell whether the time left suffices for no class, while nothing is in work."""
        if self._slots:
            return False
        left = self._ends - time.monotonic()
        needed = [requirement.seconds for requirement in self._classes.values()]
        return left <= (min(needed) if needed else 0.0)
