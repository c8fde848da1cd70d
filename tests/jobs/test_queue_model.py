"""Whatever is done to the queue, in whatever order: nothing is lost, nothing doubled, no cap exceeded.

The scripts run in a real server beside a model of them that is simple enough to be believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from knockem_dagster.errors import LeaseLapsed
from knockem_dagster.jobs.queue import Claim, OwnerSettings, Queue, Report, Verdict, Wanted
from knockem_dagster.stores.queue_connection import open_async_queue
from tests.services.queue_play import LARGE, LONG_SECONDS, SMALL, jobs, tally
from tests.services.queues import QueueServer

OWNERS = ("o", "p")
WORKERS = ("w", "v", "u")
CLASSES = {requirement.name: requirement for requirement in (SMALL, LARGE)}

owners = st.sampled_from(OWNERS)
workers = st.sampled_from(WORKERS)
classes = st.sampled_from(sorted(CLASSES))


@dataclass
class Owner:
    """What the model knows of an owner: where its jobs are, and how often each was tried in vain."""

    allowed: OwnerSettings = field(default_factory=lambda: OwnerSettings(max_active=1))
    ready: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in CLASSES})
    held: dict[bytes, tuple[str, bytes, str]] = field(default_factory=dict[bytes, tuple[str, bytes, str]])
    completed: list[bytes] = field(default_factory=list[bytes])
    given_up: list[bytes] = field(default_factory=list[bytes])
    tries: dict[tuple[bytes, Verdict], int] = field(default_factory=dict[tuple[bytes, Verdict], int])
    enqueued: int = 0

    def end(self, job: bytes, verdict: Verdict) -> None:
        """Take a job from its holder and put it where it belongs."""
        _, _, class_name = self.held.pop(job)
        if verdict is Verdict.SUCCEEDED:
            self.completed.append(job)
        elif verdict is Verdict.RETURNED:
            self.ready[class_name].insert(0, job)
        else:
            had = self.tries[job, verdict] = self.tries.get((job, verdict), 0) + 1
            if had >= (self.allowed.max_fail if verdict is Verdict.FAILED else self.allowed.max_lost):
                self.given_up.append(job)
            elif verdict is Verdict.FAILED:
                self.ready[class_name].append(job)
            else:
                self.ready[class_name].insert(0, job)


class QueueBesideModel(RuleBasedStateMachine):
    server: ClassVar[QueueServer]
    client: ClassVar[redis.Redis]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.loop = asyncio.new_event_loop()
        self.queue = Queue(self.loop.run_until_complete(open_async_queue(self.server.settings)))
        self.model = {name: Owner() for name in OWNERS}
        self.living = set[str]()
        self.canceled = dict[str, set[bytes]]()
        self.claims: list[tuple[str, Claim]] = []
        self.numbers = iter(range(1_000_000))

    def teardown(self) -> None:
        self.do(self.queue.close())
        self.loop.close()

    def do(self, call: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(call)

    def taken_from(self, worker: str, verdict: Verdict) -> None:
        """All that a worker holds comes back, in the order in which it was claimed."""
        for owner in self.model.values():
            for job in [job for job, (by, _, _) in owner.held.items() if by == worker][::-1]:
                owner.end(job, verdict)

    @initialize(max_active=st.integers(1, 5), max_fail=st.integers(1, 3), max_lost=st.integers(1, 3))
    def allow(self, max_active: int, max_fail: int, max_lost: int) -> None:
        for name, owner in self.model.items():
            owner.allowed = OwnerSettings(max_active=max_active, max_fail=max_fail, max_lost=max_lost)
            self.do(self.queue.enqueue(name, settings=owner.allowed))

    @rule(name=owners, class_name=classes, number=st.integers(1, 8), first=st.booleans())
    def enqueue(self, name: str, class_name: str, number: int, first: bool) -> None:
        new = jobs(next(self.numbers) for _ in range(number))
        owner = self.model[name]
        self.do(self.queue.enqueue(name, new, requirement=CLASSES[class_name], settings=owner.allowed, first=first))
        owner.enqueued += number
        owner.ready[class_name] = new + owner.ready[class_name] if first else owner.ready[class_name] + new

    @rule(worker=workers, data=st.data())
    def beat(self, worker: str, data: st.DataObject) -> None:
        canceled = self.canceled.setdefault(worker, set())
        ended = data.draw(st.sets(st.sampled_from(sorted(canceled)))) if canceled else set[bytes]()
        told = self.do(self.queue.beat(worker, lease_seconds=LONG_SECONDS, description=b"{}", ended=ended))
        canceled -= ended
        assert set(told) == canceled
        self.living.add(worker)

    @rule(
        worker=workers, wanted=st.sets(classes, min_size=1), most=st.integers(1, 4), only=st.sampled_from(("", *OWNERS))
    )
    def claim(self, worker: str, wanted: set[str], most: int, only: str) -> None:
        asked = Wanted(sorted(wanted), most, only=only)
        if worker not in self.living:
            with pytest.raises(LeaseLapsed):
                self.do(self.queue.claim(worker, f"{worker}/1", asked))
            return
        claim: Claim | None = self.do(self.queue.claim(worker, f"{worker}/1", asked, wait=True))
        able = {
            name
            for name, owner in self.model.items()
            if only in ("", name)
            and len(owner.held) < owner.allowed.max_active
            and any(owner.ready[class_name] for class_name in wanted)
        }
        if claim is None:
            assert not able, "there was something to claim"
            return
        assert claim.owner in able and claim.class_name in wanted and 1 <= len(claim.jobs) <= most
        owner = self.model[claim.owner]
        ready = owner.ready[claim.class_name]
        assert list(claim.jobs) == ready[: len(claim.jobs)]
        del ready[: len(claim.jobs)]
        owner.held.update(dict.fromkeys(claim.jobs, (worker, claim.token, claim.class_name)))
        for told in self.canceled.values():
            told.difference_update(claim.jobs)
        self.claims.append((worker, claim))

    @rule(data=st.data(), verdict=st.sampled_from(Verdict), by_holder=st.booleans())
    def finish(self, data: st.DataObject, verdict: Verdict, by_holder: bool) -> None:
        """Hand in some of a claim ever made: it may be over, or somebody else's."""
        if not self.claims:
            return
        holder, claim = data.draw(st.sampled_from(self.claims))
        worker = holder if by_holder else data.draw(workers)
        chosen = data.draw(st.lists(st.sampled_from(claim.jobs), unique=True, min_size=1))
        answers = self.do(
            self.queue.finish(worker, [Report(claim.owner, job, claim.token, verdict, 1.0) for job in chosen])
        )
        owner = self.model[claim.owner]
        accepted = [job for job in chosen if job in owner.held and owner.held[job][:2] == (worker, claim.token)]
        assert [answer is not None for answer in answers] == [job in accepted for job in chosen]
        for job in accepted[::-1] if verdict is Verdict.RETURNED else accepted:
            owner.end(job, verdict)

    @rule(worker=workers, lapsed=st.booleans())
    def reap(self, worker: str, lapsed: bool) -> None:
        answer = self.do(self.queue.reap([worker], now=lapsed))
        if not lapsed or worker not in self.living:
            assert answer == [-1]
            return
        held = sum(by == worker for owner in self.model.values() for by, _, _ in owner.held.values())
        assert answer == [held]
        self.taken_from(worker, Verdict.LOST)
        self.living.discard(worker)
        self.canceled.pop(worker, None)

    @rule(worker=workers)
    def leave(self, worker: str) -> None:
        self.do(self.queue.leave(worker))
        self.taken_from(worker, Verdict.RETURNED)
        self.living.discard(worker)
        self.canceled.pop(worker, None)

    @rule(name=owners)
    def cancel(self, name: str) -> None:
        owner = self.model[name]
        ready = sum(map(len, owner.ready.values()))
        assert self.do(self.queue.cancel(name, forget=True)) == ready + len(owner.held)
        for job, (worker, _, _) in owner.held.items():
            self.canceled.setdefault(worker, set()).add(job)
        self.model[name] = Owner(allowed=owner.allowed)
        self.do(self.queue.enqueue(name, settings=owner.allowed))

    @invariant()
    def nothing_is_lost_doubled_or_beyond_a_cap(self) -> None:
        for name, owner in self.model.items():
            counted = tally(self.client, name)
            assert counted.pending == counted.in_lists == sum(map(len, owner.ready.values()))
            assert counted.active == counted.in_hands == len(owner.held) <= owner.allowed.max_active
            assert counted.completed == len(owner.completed)
            entries = self.do(self.queue.outcomes(name))
            final = [entry.job for entry in entries if entry.final]
            assert sorted(final) == sorted(owner.completed + owner.given_up)
            assert len(final) == len(set(final)), "a job ended twice"
            assert counted.pending + counted.active + len(final) == owner.enqueued
            assert (self.client.zscore("knockem:ready", name) is not None) == (counted.pending > 0)

    @invariant()
    def what_workers_hold_is_what_owners_miss(self) -> None:
        for worker in WORKERS:
            held: dict[bytes, bytes] = self.client.hgetall(f"knockem:held:{worker}")
            assert held == {
                job: name.encode()
                for name, owner in self.model.items()
                for job, (by, _, _) in owner.held.items()
                if by == worker
            }


def test_the_queue_does_what_its_model_does(queue_server: QueueServer) -> None:
    QueueBesideModel.server, QueueBesideModel.client = queue_server, queue_server.client()
    run_state_machine_as_test(QueueBesideModel, settings=settings(max_examples=60, stateful_step_count=40))
