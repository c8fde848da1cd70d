"""What is left to workers: submissions are examined by one, runs have no worker of their own, truths are told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.workplace import Workplace, until
from knockem_dagster.assay_runs.errands import ERRANDS
from knockem_dagster.assay_runs.intake import Accepted, examine, store, time_competitions
from knockem_dagster.assay_runs.reporting import ask_truth
from knockem_dagster.assay_runs.submission_file import SubmissionFile, read_submission_file
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.assay_runs.truth import tell_truth
from knockem_dagster.containers import runtimes
from knockem_dagster.errors import InvalidInput, KnockemError, QueueAway, StoreError, WorkersAway
from knockem_dagster.jobs import errands
from knockem_dagster.jobs.compute_node import DRAIN_SECONDS
from knockem_dagster.jobs.errands import Handler, ask_workers
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.knockout.competitions import Compete, Competition, Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType
from knockem_dagster.settings import RUNTIMES
from tests.services.organisms import GENOME, NUM_SITES, write_organism
from tests.services.platforms import study

TRUTH = '#!/bin/sh\necho \'{"effects": {"3": 0.5}, "sets": [[1, 2]]}\'\n'
WAITS = '#!/bin/sh\ntouch "{folder}/counting.$$"\nwhile [ ! -e "{folder}/go" ]; do sleep 0.05; done\ngrep -c ""\n'


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    """A home with a queue server, and an organism that tells its truth."""
    write_organism(tmp_path / "organisms" / "tiny", {"knockem_describe_truth": TRUTH})
    organisms = {"KNOCKEM_ORGANISMS": str(tmp_path / "organisms")}
    with Workplace(tmp_path / "work", lease_seconds=2.0, **organisms) as opened:
        opened.start_server()
        yield opened


@pytest.fixture
def platform(workplace: Workplace) -> Iterator[Platform]:
    """The platform of somebody who leaves organisms to workers, and could not run any."""
    opened = Platform(workplace.platform.settings.model_copy(update={"leave_to_workers": True, "organisms": ()}))
    yield opened
    opened.close()


def file_of(**changes: object) -> SubmissionFile:
    return read_submission_file(json.dumps(study(**changes)).encode(), folder=None)


def without_times(accepted: Accepted) -> list[dict[str, object]]:
    records = (accepted.submission, accepted.genome, *accepted.assays)
    return [{**each.to_document(), "datetime": ""} for each in records]


def test_a_worker_examines_as_well(workplace: Workplace, platform: Platform) -> None:
    workplace.start_worker("--cpus", "1", KNOCKEM_LEAVE_TO_WORKERS="true")
    accepted = asyncio.run(examine(platform, file_of()))
    assert accepted.submission.num_sites == NUM_SITES
    assert without_times(accepted) == without_times(asyncio.run(examine(workplace.platform, file_of())))
    timing = asyncio.run(time_competitions(platform, accepted))
    assert len(timing.seconds_each) == 3
    with pytest.raises(InvalidInput) as refused:
        asyncio.run(examine(platform, file_of(containerImage="tinny")))
    [fault] = refused.value.faults
    assert (fault.field, fault.value) == ("containerImage", "tinny")
    store(platform, accepted)
    with pytest.raises(InvalidInput, match="there already"):
        asyncio.run(examine(platform, file_of()))


def test_a_run_without_a_worker_of_its_own_has_its_competitions_from_others(
    workplace: Workplace, platform: Platform
) -> None:
    worker = workplace.start_worker("--cpus", "1")
    id = store(platform, asyncio.run(examine(platform, file_of()))).id

    async def assay(compete: Compete) -> int:
        nothing = KnockoutSet.none(NUM_SITES)
        asked = [Competition(nothing, nothing.with_site(site), "screen", 0) for site in range(NUM_SITES)]
        return sum(isinstance(answer, Counts) for answer in await compete(asked))

    with SubmissionRun(platform, id, name="test") as run:
        run.call(run.check_image())
        assert run.perform(AssayType.SCREEN_CRITICAL, assay) == NUM_SITES
        truth = run.call(tell_truth(platform, run.submission, run.genome))
    assert truth is not None
    assert (truth.effects, truth.sets) == ({3: 0.5}, [[1, 2]])
    assert worker.end() == 0
    assert f"Done: {NUM_SITES} done" in worker.said


def test_it_is_said_when_there_is_nobody_to_ask(
    workplace: Workplace, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(WorkersAway, match="knockem worker"):
        asyncio.run(examine(platform, file_of()))
    assert workplace.on_queue(lambda queue: queue.guarded(queue.server.keys(f"{queue.prefix}:errand*"))) == []
    workplace.kill_server()
    with pytest.raises(StoreError):
        asyncio.run(examine(platform, file_of()))


def test_a_truth_that_no_worker_has_time_to_tell_costs_no_report_and_a_queue_that_is_away_interrupts(
    workplace: Workplace, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "PATIENCE_SECONDS", 0.0)
    id = store(workplace.platform, asyncio.run(examine(workplace.platform, file_of()))).id
    with SubmissionRun(platform, id, name="test") as run:
        assert ask_truth(run) is None
        workplace.kill_server()
        with pytest.raises(QueueAway):
            ask_truth(run)


def test_a_run_says_that_it_has_no_queue(tmp_path: Path, workplace: Workplace, platform: Platform) -> None:
    id = store(workplace.platform, asyncio.run(examine(workplace.platform, file_of()))).id
    workplace.kill_server()

    async def assay(_: Compete) -> None: ...

    with (
        SubmissionRun(platform, id, name="test") as run,
        pytest.raises(KnockemError, match="KNOCKEM_QUEUE_URL"),
    ):
        run.perform(AssayType.NULLDIST, assay)


@pytest.mark.slow
def test_when_a_worker_dies_another_is_asked(tmp_path: Path, workplace: Workplace, platform: Platform) -> None:
    write_organism(tmp_path / "organisms" / "slow", {"knockem_count_sites": WAITS.format(folder=tmp_path)})
    workers = [workplace.start_worker("--cpus", "1") for _ in range(2)]
    until(lambda: all(map(workplace.is_registered, workers)), "both workers")

    async def ask() -> Accepted:
        asking = asyncio.create_task(examine(platform, file_of(containerImage="slow", genome=GENOME)))
        counting = await asyncio.to_thread(until, lambda: list(tmp_path.glob("counting.*")), "the first to count")
        pid = int(counting[0].suffix[1:])
        started_by = {process.pid for process in psutil.Process(pid).parents()}
        [first] = [worker for worker in workers if worker.pid in started_by]
        first.kill()
        (tmp_path / "go").touch()
        return await asking

    assert asyncio.run(ask()).submission.num_sites == NUM_SITES


def test_a_worker_that_is_told_to_end_finishes_its_errand_and_takes_no_other(
    tmp_path: Path, workplace: Workplace, platform: Platform
) -> None:
    write_organism(tmp_path / "organisms" / "slow", {"knockem_count_sites": WAITS.format(folder=tmp_path)})
    worker = workplace.start_worker("--cpus", "1")
    until(lambda: workplace.is_registered(worker), "the worker")

    async def ask() -> Accepted:
        asking = asyncio.create_task(examine(platform, file_of(containerImage="slow", genome=GENOME)))
        await asyncio.to_thread(until, lambda: list(tmp_path.glob("counting.*")), "it to count")
        os.kill(worker.pid, signal.SIGTERM)
        await asyncio.to_thread(until, lambda: not workplace.is_registered(worker), "it to leave")
        too_late = asyncio.create_task(examine(platform, file_of()))
        await asyncio.to_thread(until, lambda: errands_waiting(workplace) == 1, "it to be asked")
        (tmp_path / "go").touch()
        accepted = await asking
        assert await asyncio.to_thread(worker.process.wait, 60) == 0, worker.said
        assert await asyncio.to_thread(errands_waiting, workplace) == 1
        workplace.start_worker("--cpus", "1")
        assert (await too_late).submission.num_sites == NUM_SITES
        return accepted

    assert asyncio.run(ask()).submission.num_sites == NUM_SITES


def errands_waiting(workplace: Workplace) -> int:
    """Count those for workers that offer process."""
    return workplace.on_queue(lambda queue: queue.guarded(queue.server.llen(f"{queue.prefix}:errands:process")))


def test_a_worker_runs_no_errand_for_a_runtime_that_it_does_not_offer(
    workplace: Workplace, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workplace.start_worker("--cpus", "1", "--runtimes", "command,process")
    until(lambda: workplace.is_registered(worker), "the worker")
    assert asyncio.run(examine(platform, file_of(containerRuntime="process"))).submission.num_sites == NUM_SITES
    monkeypatch.setattr(errands, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(WorkersAway, match="that offers docker"):
        asyncio.run(examine(platform, file_of(containerRuntime="docker")))


@asynccontextmanager
async def errands_run(
    platform: Platform,
    runtimes: Collection[str],
    *,
    handlers: Mapping[str, Handler] = ERRANDS,
    say: Say = print,
    drain_seconds: float = DRAIN_SECONDS,
) -> AsyncGenerator[None]:
    """Run errands as a worker of these runtimes does."""
    over = asyncio.Event()
    running = errands.run_errands(
        platform, handlers, runtimes=runtimes, over=over, say=say, drain_seconds=drain_seconds
    )
    worker = asyncio.create_task(running)
    try:
        yield
    finally:
        over.set()
        await worker


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "LOOK_SECONDS", 0.1)


def test_an_errand_for_anybody_goes_on_to_a_worker_that_can_do_it(
    workplace: Workplace, platform: Platform, short_looks: None
) -> None:
    said: list[str] = []
    refused = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        refused.set()

    async def ask() -> Accepted:
        async with errands_run(workplace.platform, {"command", "podman"}, say=say):
            asking = asyncio.create_task(examine(platform, file_of(containerRuntime="auto")))
            await refused.wait()
            async with errands_run(workplace.platform, {"command", "process"}):
                return await asking

    assert asyncio.run(ask()).submission.num_sites == NUM_SITES
    [once] = said
    assert "process here: this worker offers podman" in once


def test_who_asks_anybody_is_told_what_those_said_who_are_there(
    workplace: Workplace, platform: Platform, short_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        async with errands_run(workplace.platform, {"podman"}):
            await examine(platform, file_of(containerRuntime="auto"), patience_seconds=0.5)

    with pytest.raises(WorkersAway, match=r"that offers process .* said: Nothing runs as process here"):
        asyncio.run(ask())


def test_an_image_runs_by_what_the_worker_offers_of_what_is_there(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "IS_HERE", dict.fromkeys(RUNTIMES, lambda: True))
    assert workplace.platform.runtime_for("an/image") == "docker"
    assert workplace.platform.offering({"process", "podman"}).runtime_for("an/image") == "podman"
    assert workplace.platform.offering({"podman"}).runtime_for("tiny") == "process"


def test_an_errand_that_nobody_waits_for_is_ended_and_makes_room(
    workplace: Workplace, platform: Platform, short_looks: None
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: Platform, __: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    async def answer(_: Platform, content: bytes) -> bytes:
        return content

    async def ask() -> bytes:
        async with errands_run(workplace.platform, {"process"}, handlers={"hang": hang, "answer": answer}):
            for _ in range(errands.AT_A_TIME):
                begun.clear()
                ended.clear()
                asking = asyncio.create_task(ask_workers(platform, "hang", b"", runtime="process"))
                await begun.wait()
                asking.cancel()
                await ended.wait()
            return await ask_workers(platform, "answer", b"here", runtime="process")

    assert asyncio.run(ask()) == b"here"


def test_what_a_worker_cannot_read_is_said_at_once_and_ends_no_other_errand(
    workplace: Workplace, platform: Platform, short_looks: None
) -> None:
    said: list[str] = []

    async def ask() -> Accepted:
        async with queue_of(platform) as queue:
            for number in range(errands.AT_A_TIME):
                await queue.guarded(queue.server.set(f"{queue.prefix}:errand:{number}:asked", b"\xff\n"))
                await queue.guarded(queue.server.rpush(f"{queue.prefix}:errands:process", f"{number}"))
        async with errands_run(workplace.platform, {"process"}, say=said.append):
            accepted = await examine(platform, file_of())
            assert len(said) == errands.AT_A_TIME and all("UnicodeDecodeError" in line for line in said)
            return accepted

    assert asyncio.run(ask()).submission.num_sites == NUM_SITES


def test_an_errand_that_outlasts_its_worker_is_given_up_and_done_by_another(
    workplace: Workplace, platform: Platform, short_looks: None
) -> None:
    begun = asyncio.Event()

    async def hang(_: Platform, __: bytes) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    async def answer(_: Platform, __: bytes) -> bytes:
        return b"done"

    async def ask() -> bytes:
        async with errands_run(workplace.platform, {"process"}, handlers={"ask": hang}, drain_seconds=0.0):
            asking = asyncio.create_task(ask_workers(platform, "ask", b"", runtime="process"))
            await begun.wait()
        async with errands_run(workplace.platform, {"process"}, handlers={"ask": answer}):
            return await asking

    assert asyncio.run(ask()) == b"done"
