"""A run of a submission: what one assay leaves behind is not another's, and the lease decides who may end it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.errors import AssayError, ContainerError, NotFound, SubmissionBusy
from knockem_dagster.knockout.competitions import Compete, Competition, Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType, assay_id
from knockem_dagster.records.submissions import State
from knockem_dagster.stores.documents import Patch
from tests.services.organisms import NUM_SITES, write_organism
from tests.services.platforms import platform_of, study, submitted


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_organism(tmp_path / "organisms" / "tiny")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    return tmp_path / "home"


@pytest.fixture
def id(home: Path) -> str:
    return submitted(home, study())


@pytest.fixture
def platform(home: Path, id: str) -> Iterator[Platform]:
    opened = platform_of(home)
    yield opened
    opened.close()


def questions(number: int) -> list[Competition]:
    nothing = KnockoutSet.none(NUM_SITES)
    return [Competition(nothing, nothing.with_site(n % NUM_SITES), "screen", n // NUM_SITES) for n in range(number)]


def test_attempts_of_a_broken_assay_are_not_heard_by_the_next(platform: Platform, id: str) -> None:
    async def breaks(compete: Compete) -> None:
        asking = asyncio.create_task(compete(questions(40)))
        await compete(questions(1))
        asking.cancel()
        raise AssayError("no answer is possible")

    async def asks_one(compete: Compete) -> int:
        return sum(isinstance(answer, Counts) for answer in await compete(questions(1)))

    with SubmissionRun(platform, id, name="test") as run:
        with pytest.raises(AssayError, match="no answer is possible"):
            run.perform(AssayType.SCREEN_CRITICAL, breaks)
        assert run.perform(AssayType.NULLDIST, asks_one) == 1
        assert (run.progress.asked, run.progress.answered, run.progress.attempts) == (1, 1, 1)
    where = {"submissionId": id, "assayId": assay_id(id, AssayType.NULLDIST)}
    assert platform.records.documents.count("competitionResults", where) == 1


def test_nothing_more_is_asked_once_the_submission_has_failed(platform: Platform, id: str) -> None:
    async def ask(compete: Compete) -> object:
        return await compete(questions(1))

    with SubmissionRun(platform, id, name="test") as run:
        run.fail("the screen was untestable")
        with pytest.raises(SubmissionBusy, match="untestable"):
            run.perform(AssayType.NULLDIST, ask)
    failed = platform.records.submissions.get(id)
    assert (failed.state, failed.reason) == (State.FAILED, "the screen was untestable")
    assert failed.counters.submission_num_active_assays == 0


def test_run_that_lost_its_lease_neither_fails_nor_completes_what_another_works_on(platform: Platform, id: str) -> None:
    submissions = platform.records.submissions
    with SubmissionRun(platform, id, name="old") as old:
        submissions.patch(id, Patch(set={"lease": {"owner": "another run", "until": 4e9}}))
        with pytest.raises(SubmissionBusy, match="another run"):
            old.complete()
        old.fail("the old one's trouble")
        assert submissions.get(id).state is State.RUNNING
    assert submissions.get(id).lease.owner == "another run"


def test_second_run_says_who_is_at_work(platform: Platform, id: str) -> None:
    with SubmissionRun(platform, id, name="first"), pytest.raises(SubmissionBusy, match="first"):
        SubmissionRun(platform, id, name="second").__enter__()


def test_submission_without_its_genome_takes_no_lease(platform: Platform, id: str) -> None:
    platform.records.documents.delete("genomes", {"submissionId": id})
    with pytest.raises(NotFound):
        SubmissionRun(platform, id, name="test").__enter__()
    assert platform.records.submissions.get(id).state is State.ACCEPTED


def test_organism_that_changed_since_it_was_accepted_is_refused(platform: Platform, id: str, tmp_path: Path) -> None:
    with SubmissionRun(platform, id, name="test") as run:
        run.call(run.check_image())
        with (tmp_path / "organisms" / "tiny" / "knockem_compete_two").open("a") as script:
            script.write("# changed\n")
        with pytest.raises(ContainerError, match="has changed"):
            run.call(run.check_image())
