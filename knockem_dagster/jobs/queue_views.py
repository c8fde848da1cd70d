"""Looking at the queue: its workers and its owners, as people and upkeep see them. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from knockem_dagster.jobs.queue import Queue, ready_key

SETTLING_SECONDS = 3.0
"""Longer than a worker waits before it looks again whether a server is back."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker: what it said of itself, seconds until its lease lapses, jobs done and failed."""

    description: Mapping[str, Any]
    lease_seconds: float
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class OwnerView:
    """An owner in the queue: its fields (settings and counters), ready jobs by class, and the numbers of the others.

    `retrying`: jobs that failed or were lost before; `unrecorded`: outcomes not in the record yet; `oldest`: the job
    that is ready for longest.
    """

    fields: Mapping[str, str]
    ready: Mapping[str, int]
    active: int
    retrying: int
    unrecorded: int
    oldest: bytes | None
    pending_assays: Sequence[str]
    active_assays: Sequence[str]


class QueueViews:
    """Views of a queue. Methods raise QueueAway while the server does not answer."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def workers(self) -> dict[str, Worker]:
        """Return what the registered workers said of themselves, and how they do."""
        said, leases, tally = await self._queue.guarded(
            self._pipeline()
            .hgetall(f"{self._queue.prefix}:workers")
            .zrange(f"{self._queue.prefix}:leases", 0, -1, withscores=True)
            .hgetall(f"{self._queue.prefix}:tally")
            .execute()
        )
        seconds, microseconds = await self._queue.guarded(self._queue.server.time())
        lapse = {name: (abs(until) - seconds * 1000 - microseconds / 1000) / 1000 for name, until in leases}
        return {
            name.decode(): Worker(
                description=orjson.loads(text),
                lease_seconds=lapse[name],
                done=int(tally.get(name + b":done", 0)),
                failed=int(tally.get(name + b":failed", 0)),
            )
            for name, text in said.items()
            if name in lapse
        }

    async def held_by(self, worker: str) -> dict[bytes, str]:
        """Return the jobs that a worker holds, with their owner."""
        held = await self._queue.guarded(self._queue.server.hgetall(f"{self._queue.prefix}:held:{worker}"))
        return {job: owner.decode() for job, owner in held.items()}

    async def ending(self, owner: str) -> set[str]:
        """Return the workers that have still to end jobs of an owner that was canceled."""
        workers = await self._queue.guarded(self._queue.server.zrange(f"{self._queue.prefix}:leases", 0, -1))
        pipeline = self._pipeline()
        for name in workers:
            pipeline.hvals(f"{self._queue.prefix}:canceled:{name.decode()}")
        canceled = await self._queue.guarded(pipeline.execute())
        return {name.decode() for name, owners in zip(workers, canceled, strict=True) if owner.encode() in owners}

    async def owners(self) -> dict[str, OwnerView]:
        """Return the owners with anything in the queue, and how far each is. Reads no list of jobs."""
        names = sorted(await self._queue.owner_names())
        return {name: await self._owner(name) for name in names}

    async def one_owner(self, owner: str) -> dict[str, OwnerView]:
        """Return the view of one owner; empty when it has nothing in the queue."""
        key = f"{self._queue.prefix}:activeSubmissions"
        is_there = await self._queue.guarded(self._queue.server.sismember(key, owner))
        return {owner: await self._owner(owner)} if is_there else {}

    async def _owner(self, owner: str) -> OwnerView:
        base = self._queue.base(owner)
        fields, classes, active, tries, unrecorded, pending, assays = await self._queue.guarded(
            self._pipeline()
            .hgetall(base)
            .smembers(f"{base}:classes")
            .hlen(f"{base}:activeCompetitionAttempts")
            .hlen(f"{base}:tries")
            .xlen(f"{base}:outcomes")
            .smembers(f"{base}:pendingAssays")
            .smembers(f"{base}:activeAssays")
            .execute()
        )
        ready: dict[str, int] = {}
        oldest: bytes | None = None
        for name in sorted(name.decode() for name in classes):
            key = ready_key(base, name)
            ready[name] = await self._queue.guarded(self._queue.server.llen(key))
            oldest = oldest or await self._queue.guarded(self._queue.server.lindex(key, 0))
        return OwnerView(
            fields={name.decode(): value.decode() for name, value in fields.items()},
            ready=ready,
            active=active,
            retrying=tries,
            unrecorded=unrecorded,
            oldest=oldest,
            pending_assays=tuple(sorted(assay.decode() for assay in pending)),
            active_assays=tuple(sorted(assay.decode() for assay in assays)),
        )

    async def some_jobs(self, owner: str, *, most: int) -> tuple[list[bytes], dict[bytes, str]]:
        """Return the first of an owner's ready jobs, and some of those in work with their worker."""
        base = self._queue.base(owner)
        ready: list[bytes] = []
        for name in await self._queue.guarded(self._queue.server.smembers(f"{base}:classes")):
            if len(ready) < most:
                key = ready_key(base, name.decode())
                ready += await self._queue.guarded(self._queue.server.lrange(key, 0, most - len(ready) - 1))
        _, held = await self._queue.guarded(
            self._queue.server.hscan(f"{base}:activeCompetitionAttempts", 0, count=most)
        )
        return ready, {job: value.partition(b"\t")[0].decode() for job, value in list(held.items())[:most]}

    async def unsettled_seconds(self, *, lease_seconds: float) -> float:
        """Return for how long it must be waited after a start of the server, until every living worker found it again.

        Until then it may not know what they hold, and they may not know what it has lost.
        """
        uptime = (await self._queue.guarded(self._queue.server.info("server")))["uptime_in_seconds"]
        return max(0.0, lease_seconds + SETTLING_SECONDS - uptime)

    def _pipeline(self) -> Any:
        """Return a pipeline; the client's types do not know that its commands can be chained."""
        return self._queue.server.pipeline(transaction=False)
