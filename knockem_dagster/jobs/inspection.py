"""What people want to know of the queue: who has how much in it, who works, and why nothing is claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field

from knockem_dagster.jobs.attempt_records import attempt_id_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import OwnerView, QueueViews, Worker
from knockem_dagster.jobs.requirements import Capacity, Requirement
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.record import Value


@dataclass(frozen=True, slots=True)
class OwnerState:
    """An owner in the queue. `oldest_wait`: seconds the first ready job has waited; `hindrance`: why none starts."""

    owner: str
    ready: int
    running: int
    retrying: int
    unrecorded: int
    oldest_wait: float | None
    hindrance: str


class WorkerState(Value):
    """A worker: what it offers, what it does, seconds since its last sign of life, what it has done."""

    name: str
    host: str
    cpus: float
    memory_mib: int = Field(alias="memoryMiB")
    gpus: int
    only: str = Field(description="the submission that it works for; empty for whatever is in the queue")
    jobs: int = Field(description="those it holds")
    current: str = Field(description="one of them, in words; empty where it holds none")
    last_beat: float
    done: int
    failed: int


def capacity_of(worker: Worker) -> Capacity:
    """Return what a worker offers in all."""
    said = worker.description
    return Capacity(
        cpus=said["cpus"],
        memory_mib=said["memoryMiB"],
        gpus=said["gpus"],
        seconds_left=said["secondsLeft"],
        runtimes=frozenset(said["runtimes"]),
    )


def unsatisfiable(requirement: Requirement, workers: Mapping[str, Worker], *, owner: str = "") -> str:
    """Tell why no registered worker can ever run jobs that need this; empty if one can, or if there is none."""
    there = [capacity_of(each) for each in workers.values() if each.description["only"] in ("", owner)]
    if not there or any(capacity.fits(requirement) for capacity in there):
        return ""
    lacks = [
        (f"{requirement.cpus:g} CPUs", all(each.cpus < requirement.cpus for each in there)),
        (f"{requirement.memory_mib:,} MiB of memory", all(each.memory_mib < requirement.memory_mib for each in there)),
        (f"{requirement.gpus} GPUs", all(each.gpus < requirement.gpus for each in there)),
        (f"the runtime {requirement.runtime}", all(requirement.runtime not in each.runtimes for each in there)),
        (f"{requirement.seconds:g} s", not any((each.seconds_left or 1e9) >= requirement.seconds for each in there)),
    ]
    missing = [what for what, is_missing in lacks if is_missing] or [f"all that {requirement.name} needs at once"]
    return f"no worker offers {' and '.join(missing)}"


async def who_cannot(queue: Queue, requirement: Requirement) -> str:
    """Tell why no registered worker can ever run jobs that need this; empty if one can, or if there is none."""
    return unsatisfiable(requirement, await QueueViews(queue).workers())


async def owner_states(queue: Queue, records: Records, *, owner: str | None = None) -> list[OwnerState]:
    """Return the owners in the queue, or one, those with most to do first."""
    views = QueueViews(queue)
    owners = await views.owners() if owner is None else await views.one_owner(owner)
    workers, classes = await views.workers(), await queue.classes()
    since = _asked_since(records, [view.oldest for view in owners.values() if view.oldest is not None])
    states = [
        OwnerState(
            owner=owner,
            ready=sum(view.ready.values()),
            running=view.active,
            retrying=view.retrying,
            unrecorded=view.unrecorded,
            oldest_wait=since.get(view.oldest) if view.oldest is not None else None,
            hindrance=_hindrance(owner, view, workers, classes),
        )
        for owner, view in owners.items()
    ]
    return sorted(states, key=lambda state: (-state.ready - state.running, state.owner))


async def worker_states(queue: Queue, records: Records) -> list[WorkerState]:
    """Return the workers, by name."""
    views = QueueViews(queue)
    states: list[WorkerState] = []
    for name, worker in sorted((await views.workers()).items()):
        held = await views.held_by(name)
        said = worker.description
        first = next(iter(held), None)
        states.append(
            WorkerState(
                name=name,
                host=said["host"],
                cpus=said["cpus"],
                memoryMiB=said["memoryMiB"],
                gpus=said["gpus"],
                only=said["only"],
                jobs=len(held),
                current="" if first is None else _in_words(records, first, held[first]),
                last_beat=max(0.0, said["leaseSeconds"] - worker.lease_seconds),
                done=worker.done,
                failed=worker.failed,
            )
        )
    return states


def _hindrance(owner: str, view: OwnerView, workers: Mapping[str, Worker], classes: Mapping[str, Requirement]) -> str:
    """Return why none of an owner's ready jobs is claimed now; empty if there is none or nothing is wrong."""
    waiting = [name for name, number in view.ready.items() if number]
    if not waiting:
        return ""
    if not any(each.description["only"] in ("", owner) for each in workers.values()):
        return "no worker is there: `./knockem worker` starts one"
    if view.active >= int(view.fields.get("maxActive", 1)):
        return f"maxActive: {view.active} run, as many as its owner allows"
    reasons = {unsatisfiable(classes[name], workers, owner=owner) for name in waiting if name in classes}
    if "" not in reasons:
        return "; ".join(sorted(reasons))
    return "" if view.active else "every worker that could is busy"


def _asked_since(records: Records, jobs: Sequence[bytes]) -> dict[bytes, float]:
    """Return for how many seconds jobs have been in the record."""
    ids = {attempt_id_of(job): job for job in jobs}
    found = {**records.attempts.get_many(list(ids)), **records.jobs.get_many(list(ids))}
    moment = datetime.now(UTC)
    return {ids[id]: (moment - datetime.fromisoformat(record.datetime)).total_seconds() for id, record in found.items()}


def _in_words(records: Records, job: bytes, owner: str) -> str:
    """Return what a job is, for people."""
    id = attempt_id_of(job)
    attempt = records.attempts.find_one(id)
    if attempt is not None:
        competition = records.competitions.find_one(attempt.competition_id)
        purpose = "" if competition is None else f" {competition.purpose}"
        return f"{owner[:8]}{purpose}, try {attempt.number}"
    command = records.jobs.find_one(id)
    return f"{owner[:8]} {id}" if command is None else f"{owner[:8]} {command.name}"
