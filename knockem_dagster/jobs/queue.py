"""The queue: the order of work, who holds it, and the counters, in a Redis or Valkey server.

What belongs here: calling the scripts (scripts/*.lua, where the rules are) and reading what they keep. What does
not: what a job is. A job is 16 bytes here; its meaning is in the record.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import orjson
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from knockem_dagster.errors import LeaseLapsed, QueueAway, StoreError
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.jobs.scripts import load_scripts
from knockem_dagster.stores.queue_connection import ANSWER_SECONDS

MOST_CLAIMED = 1000
MOST_LOST = 5
"""Workers that may be lost with one job before it is given up."""
LEAD_SECONDS = 5.0
"""Slot time by which a worker's present owner may lead before the worker turns to another: warm containers are kept."""


class Verdict(StrEnum):
    """What a worker says of a job: only FAILED counts towards maxFail; RETURNED is as if it had never been claimed.

    RETRIED failed, and is tried again whatever its owner's maxFail says.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    LOST = "lost"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSettings:
    """How an owner's jobs are handed out: at most so many at a time, so many failures and lost workers allowed.

    An owner that retries by itself (an assay run) allows one of each. `weight` is its share of slot time. Outcomes are
    recorded by whoever asked (an assay run), or by the worker that had the job.
    """

    max_active: int
    max_fail: int = 1
    max_lost: int = MOST_LOST
    weight: float = 1.0
    recorded_by: Literal["asker", "worker"] = "asker"

    def to_json(self) -> bytes:
        """Return the fields that the scripts read."""
        return orjson.dumps(
            {
                "maxActive": self.max_active,
                "maxFail": self.max_fail,
                "maxLost": self.max_lost,
                "weight": self.weight,
                "recordedBy": self.recorded_by,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AssayCounts:
    """Which assays of a submission are pending and active; what is completed, competitions without a job included."""

    pending: Sequence[str]
    active: Sequence[str]
    completed: int
    completed_competitions: int

    def to_json(self) -> bytes:
        """Return the fields that the scripts read."""
        return orjson.dumps(
            {
                "pendingAssays": list(self.pending),
                "activeAssays": list(self.active),
                "completedAssays": self.completed,
                "completedCompetitions": self.completed_competitions,
            }
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """Jobs of one owner and one class that a worker holds by one token."""

    owner: str
    class_name: str
    jobs: tuple[bytes, ...]
    token: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a held job: `seconds` of slot time, and a payload for whoever records it."""

    owner: str
    job: bytes
    token: bytes
    verdict: Verdict
    seconds: float = 0.0
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Entry:
    """An outcome that is not in the record yet. `final`: the queue will not try the job again."""

    id: bytes
    job: bytes
    final: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker asks for, of owners that are not `excluded`, and `permitted` if there is such a list."""

    classes: Sequence[str]
    most: int = 1
    only: str = ""
    preferred: str = ""
    excluded: Sequence[str] = ()
    permitted: Sequence[str] | None = None
    lead_seconds: float = LEAD_SECONDS


class Queue:
    """One connection pool to the queue server. Methods raise QueueAway while the server does not answer."""

    def __init__(self, server: redis.asyncio.Redis, *, prefix: str = "knockem") -> None:
        self.server = server
        self.prefix = prefix
        self._scripts = load_scripts()

    async def enqueue(
        self,
        owner: str,
        jobs: Sequence[bytes] = (),
        *,
        requirement: Requirement | None = None,
        settings: OwnerSettings | None = None,
        assays: AssayCounts | None = None,
        first: bool = False,
        counted: bool = False,
    ) -> None:
        """Make jobs ready, in this order; `first`: before those that are ready already.

        `counted`: they belong to a graph, and only those are made ready that wait for nothing (GraphCounts), each once.
        """
        await self.call(
            "enqueue",
            owner,
            b"" if settings is None else settings.to_json(),
            b"" if assays is None else assays.to_json(),
            "" if requirement is None else requirement.name,
            b"" if requirement is None else requirement.to_json(),
            int(first),
            int(counted),
            b"".join(jobs),
        )

    async def claim(self, worker: str, waiter: str, wanted: Wanted, *, wait: bool = False) -> Claim | None:
        """Take jobs; None when there are none for this worker, who is then woken (`wait_for_work`) if it waits.

        Raises LeaseLapsed when the worker must register again.
        """
        token = secrets.token_hex(8).encode()
        return _claim_of(await self.call("claim", *_claim_arguments(worker, waiter, token, wanted, wait=wait)), token)

    async def finish(self, worker: str, reports: Sequence[Report]) -> list[bytes | None]:
        """End held jobs. For each the id of its outcome's entry, empty for a returned one; None: it is not held."""
        if not reports:
            return []
        return await self.call("finish", *_finish_arguments(worker, reports))

    async def finish_and_claim(
        self, worker: str, waiter: str, reports: Sequence[Report], wanted: Wanted
    ) -> tuple[list[bytes | None], Claim | None]:
        """Do both in one round trip."""
        token = secrets.token_hex(8).encode()
        finished, claimed = await self._call_both(
            ("finish", *_finish_arguments(worker, reports)),
            ("claim", *_claim_arguments(worker, waiter, token, wanted, wait=False)),
        )
        return finished, _claim_of(claimed, token)

    async def wait_for_work(self, waiter: str, seconds: float) -> None:
        """Wait until there may be work for this waiter, at most so long."""
        await self.guarded(self.server.blpop([f"{self.prefix}:wake:{waiter}"], timeout=seconds))

    async def beat(
        self,
        worker: str,
        *,
        lease_seconds: float,
        description: bytes = b"",
        ended: Collection[bytes] = (),
        held: Collection[bytes] | None = None,
    ) -> list[bytes]:
        """Renew a worker's lease, registering it when `description` is given; return jobs that it must end.

        These are told until it says that it has `ended` them. `held`: all that the worker knows to hold. What it does
        not know of for longer than a lease is ready again: the answer to its claim was lost. Raises LeaseLapsed when
        the worker must register again.
        """
        known = () if held is None else (b"".join(held),)
        return await self.call("beat", worker, int(lease_seconds * 1000), description, b"".join(ended), *known)

    async def leave(self, worker: str) -> None:
        """Take a worker off the list; what it still holds is ready again."""
        await self.call("beat", worker, 0, b"", b"")

    async def reap(self, workers: Sequence[str], *, patience_seconds: float = 0.0, now: bool = False) -> list[int]:
        """Take away what workers with a lapsed lease hold; return how many jobs of each, -1 for one that lives.

        `now`: whatever their leases say; for who knows that they have ended.
        """
        patience = -(2**53) if now else int(patience_seconds * 1000)
        return [number for worker in workers for number in await self.call("reap", patience, lost_with(worker), worker)]

    async def end_leases(self, workers: Sequence[str]) -> list[int]:
        """End leases that have lapsed: nothing more is taken from these workers, and nobody else gets their jobs yet.

        For who kills what they run before it reaps them. Returns the same as `reap`.
        """
        return await self.call("reap", 0, b"", *workers) if workers else []

    async def cancel(self, owner: str, *, forget: bool = False) -> int:
        """Take an owner's jobs out of the queue; `forget` its outcomes too that are not recorded. Return how many."""
        return await self.call("cancel", owner, int(forget))

    async def outcomes(self, owner: str, *, after: bytes = b"0", most: int = 1000, wait: float = 0.0) -> list[Entry]:
        """Return outcomes that came after an entry and are not acknowledged; wait so many seconds for the first."""
        key = f"{self.base(owner)}:outcomes"
        # A blocking read for 0 ms would wait for ever.
        block = max(1, int(wait * 1000)) if wait else None
        read: Any = await self.guarded(self.server.xread({key: after}, count=most, block=block))
        # The two versions of the protocol give this answer in two shapes.
        streams = [part for parts in read.values() for part in parts] if isinstance(read, dict) else dict(read).values()
        entries: list[tuple[bytes, dict[bytes, bytes]]] = [entry for stream in streams for entry in stream]
        return [_entry(id, fields) for id, fields in entries]

    async def outcome(self, owner: str, id: bytes) -> Entry | None:
        """Return one outcome that is not acknowledged yet."""
        found = await self.guarded(self.server.xrange(f"{self.base(owner)}:outcomes", min=id, max=id))
        return _entry(*found[0]) if found else None

    async def acknowledge(self, owner: str, entries: Sequence[bytes]) -> None:
        """Drop outcomes that are in the record."""
        if entries:
            await self.guarded(self.server.xdel(f"{self.base(owner)}:outcomes", *entries))

    async def jobs_of(self, owner: str) -> tuple[set[bytes], dict[bytes, str]]:
        """Return an owner's ready jobs, and those in work with their worker. Reads them all."""
        base = self.base(owner)
        classes = await self.guarded(self.server.smembers(f"{base}:classes"))
        ready: set[bytes] = set()
        for name in classes:
            ready.update(await self.guarded(self.server.lrange(ready_key(base, name.decode()), 0, -1)))
        held = await self.guarded(self.server.hgetall(f"{base}:activeCompetitionAttempts"))
        return ready, {job: value.partition(b"\t")[0].decode() for job, value in held.items()}

    async def owner_names(self) -> set[str]:
        """Return the owners with anything in the queue."""
        return {name.decode() for name in await self.guarded(self.server.smembers(f"{self.prefix}:activeSubmissions"))}

    async def retries(self, owner: str, job: bytes) -> int:
        """Return how often a job was tried again because its worker said so."""
        return int(await self.guarded(self.server.hget(f"{self.base(owner)}:tries", b"r" + job)) or 0)

    async def classes(self) -> dict[str, Requirement]:
        """Return the resource classes that the queue has ever had jobs of."""
        found: Mapping[bytes, bytes] = await self.guarded(self.server.hgetall(f"{self.prefix}:classes"))
        return {name.decode(): Requirement.from_json(text) for name, text in found.items()}

    async def lapsed_workers(self) -> list[str]:
        """Return the workers whose lease has lapsed, by the server's clock."""
        seconds, microseconds = await self.guarded(self.server.time())
        moment = seconds * 1000 + microseconds // 1000
        found = await self.guarded(self.server.zrangebyscore(f"{self.prefix}:leases", "-inf", moment))
        return [worker.decode() for worker in found]

    async def close(self) -> None:
        """Close the connections."""
        await self.server.aclose()

    def base(self, owner: str) -> str:
        """Return what the keys of an owner begin with."""
        return f"{self.prefix}:{{{owner}}}"

    async def call(self, name: str, *arguments: Any) -> Any:
        """Run a script, telling the server its text when it does not know it (it was restarted)."""
        script = self._scripts[name]
        call = ("EVALSHA", script.sha, 0, self.prefix, *arguments)
        try:
            return await self.guarded(self.server.execute_command(*call))
        except NoScriptError:
            await self._load()
            return await self.guarded(self.server.execute_command(*call))

    async def _call_both(self, *calls: Sequence[Any]) -> list[Any]:
        """Run several scripts in one round trip. Each runs by itself: the first may succeed and the second fail."""
        answers = await self._pipelined(calls)
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            await self._load()
            again = await self._pipelined([calls[index] for index in unknown])
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise _translated(answer) from answer
        return answers

    async def _pipelined(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        pipeline = self.server.pipeline(transaction=False)
        for name, *arguments in calls:
            pipeline.execute_command("EVALSHA", self._scripts[name].sha, 0, self.prefix, *arguments)
        return await self.guarded(pipeline.execute(raise_on_error=False))

    async def _load(self) -> None:
        for script in self._scripts.values():
            await self.guarded(self.server.script_load(script.text))

    async def guarded(self, answer: Awaitable[Any] | Any) -> Any:
        """Wait for the server's answer to a command. Raises QueueAway, LeaseLapsed, or StoreError."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            raise _translated(error) from error


def lost_with(worker: str) -> bytes:
    """Return what is said of a job whose worker is given up."""
    return orjson.dumps({"outcome": "lost", "tail": "its worker stopped renewing its lease", "worker": worker})


def _translated(error: Exception) -> Exception:
    """Return an error of the client as one of ours."""
    if isinstance(error, ResponseError) and "LAPSED" in str(error):
        return LeaseLapsed("The lease has lapsed: what was held is somebody else's now. Register again.")
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)) or "LOADING" in str(error):
        return QueueAway("The queue does not answer. Is `./knockem up` running, or KNOCKEM_QUEUE_URL's server?")
    return StoreError(f"The queue refused: {error}")


def _entry(id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(id, fields[b"job"], fields[b"final"] == b"1", fields[b"payload"])


def _claim_arguments(worker: str, waiter: str, token: bytes, wanted: Wanted, *, wait: bool) -> list[Any]:
    return [
        worker,
        waiter,
        token,
        min(wanted.most, MOST_CLAIMED),
        wanted.only,
        wanted.preferred,
        wanted.lead_seconds,
        int(wait),
        f",{','.join(wanted.excluded)},",
        "" if wanted.permitted is None else f",{','.join(wanted.permitted)},",
        *wanted.classes,
    ]


def _claim_of(answer: Sequence[bytes], token: bytes) -> Claim | None:
    if not answer:
        return None
    return Claim(answer[0].decode(), answer[1].decode(), tuple(answer[2:]), token)


def _finish_arguments(worker: str, reports: Sequence[Report]) -> list[Any]:
    arguments: list[Any] = [worker]
    for report in reports:
        arguments += (report.owner, report.job, report.token, report.verdict.value, report.seconds, report.payload)
    return arguments


def ready_key(base: str, class_name: str) -> str:
    """Return the key of an owner's ready jobs of one class."""
    return f"{base}:pendingCompetitionAttempts:{class_name}"
