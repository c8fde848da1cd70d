"""A compute node: a worker that pulls from the queue what fits its resources, until it is told to stop.

It states its CPUs, memory, GPUs and time left; a slot is started for a job that fits what is free, and goes on with
jobs of the same class as long as there are any. What a slot does with jobs is its lane's business (lanes.py).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from knockem_dagster.containers.owners import current_owner
from knockem_dagster.errors import ContainerError, LeaseLapsed
from knockem_dagster.jobs.connection import Connection, Say
from knockem_dagster.jobs.desk import WAIT_SECONDS, Desk
from knockem_dagster.jobs.queue import Claim, Queue, Verdict, Wanted
from knockem_dagster.jobs.requirements import Capacity, Requirement
from knockem_dagster.records.record import now

KEPT_WARM_SECONDS = 5.0
DRAIN_SECONDS = 20.0
"""How long a worker that is told to stop lets jobs go on before it hands them back: schedulers kill after about 30."""


class Lane(Protocol):
    """Runs the jobs of one desk. `most` is how many it may hold at a time."""

    async def run(self, desk: Desk, *, most: int) -> None:
        """Work until the desk has no more. Raises ContainerError when this machine cannot do the owner's jobs."""
        ...


@dataclass(slots=True)
class _Slot:
    desk: Desk
    task: asyncio.Task[None] | None = None


def worker_name(prefix: str = "") -> str:
    """Return a name no other worker has: host, process, and something random."""
    return f"{prefix}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class ComputeNode:
    """A worker. `run` it; `stop` drains it.

    `only`: work for this owner only, and let a ContainerError end the run; otherwise other owners' jobs go on.
    """

    def __init__(
        self,
        queue: Queue,
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
    ) -> None:
        self.name = name
        self._lanes = lanes
        self._capacity = replace(capacity, runtimes=capacity.runtimes & lanes.keys())
        self._free = self._capacity
        self._ends = None if capacity.seconds_left is None else time.monotonic() + capacity.seconds_left
        self._connection = Connection(queue, name, say=say)
        self._queue = queue
        self._lease_seconds = lease_seconds
        self._say = say
        self._only = only
        self._keep_warm = keep_warm
        self._most_held = most_held
        self._drain_seconds = drain_seconds
        self.registered = asyncio.Event()
        """Set once the queue knows this worker."""
        self._over = asyncio.Event()
        self._room = asyncio.Event()
        self._slots: dict[int, _Slot] = {}
        self._numbers = itertools.count()
        self._unable: dict[str, str] = {}
        self._classes: dict[str, Requirement] = {}

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

    def stop(self) -> None:
        """Claim nothing more, finish what is in work or hand it back, and end `run`."""
        self._over.set()
        self._room.set()

    async def run(self) -> None:
        """Work until stopped, or until the time left is over."""
        await self._connection.beat(self._lease_seconds, self.description)
        self.registered.set()
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(self._beat())
                await self._dispatch(group)
                await self._drain()
                beating.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        finally:
            await asyncio.shield(self._leave())

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Start a slot for every job that fits what is free."""
        waiter = f"{self.name}/new"
        while not self._over.is_set():
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
                await self._connection.wait_for_work(waiter, WAIT_SECONDS, self._over)
            else:
                self._start(group, claim)

    def _start(self, group: asyncio.TaskGroup, claim: Claim) -> None:
        number = next(self._numbers)
        requirement = self._classes[claim.class_name]
        self._free = self._free.without(requirement)
        slot = self._slots[number] = _Slot(self._desk(claim, number))
        slot.task = group.create_task(self._work(number, slot, requirement))

    def _desk(self, claim: Claim, number: int) -> Desk:
        return Desk(
            self._connection,
            claim,
            waiter=f"{self.name}/{number}",
            only=self._only,
            keep_warm=self._keep_warm,
            over=self._over,
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
                except LeaseLapsed:
                    return
                claim, slot.desk.next = slot.desk.next, None
                await slot.desk.give_back()
                if claim is None:
                    return
                slot.desk = self._desk(claim, number)
        finally:
            await asyncio.shield(slot.desk.give_back())
            del self._slots[number]
            self._free = self._free.with_returned(requirement)
            self._room.set()

    async def _beat(self) -> None:
        """Renew the lease for as long as the worker runs, and end jobs that were canceled."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                canceled = set(await self._connection.beat(self._lease_seconds))
            except LeaseLapsed:
                await self._begin_again()
                continue
            for slot in list(self._slots.values()):
                gone = canceled & slot.desk.held.keys()
                if gone and slot.task is not None:
                    for job in gone:
                        del slot.desk.held[job]
                    slot.task.cancel()

    async def _begin_again(self) -> None:
        """End all work: it is somebody else's by now. Then register anew."""
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
            await asyncio.wait(tasks, timeout=self._drain_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        if not self._connection.is_away:
            await self._queue.leave(self.name)

    def _now_free(self) -> Capacity:
        if self._ends is None:
            return self._free
        return replace(self._free, seconds_left=self._ends - time.monotonic())

    def _is_spent(self) -> bool:
        """Tell whether the time left suffices for no class, while nothing is in work."""
        if self._ends is None or self._slots:
            return False
        left = self._ends - time.monotonic()
        needed = [requirement.seconds for requirement in self._classes.values()]
        return left <= (min(needed) if needed else 0.0)
