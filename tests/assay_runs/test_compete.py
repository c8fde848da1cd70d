"""The durable `compete`: what is recorded is never asked again, caps hold, and the first result wins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from knockem_dagster.assay_runs.compete import LOSSES_ALLOWED, AssayRun
from knockem_dagster.assay_runs.ledger import Ledger
from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, Outcome
from knockem_dagster.errors import StoreError
from knockem_dagster.jobs.in_process import InProcessSource
from knockem_dagster.knockout.competitions import Answer, Competition, Counts, Untestable
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.assays import AssayRecord, AssayType, assay_id
from knockem_dagster.records.catalog import COLLECTIONS, Records
from knockem_dagster.records.genomes import wild_type, wild_type_id
from knockem_dagster.records.record import now
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.documents import Operation, PutNew
from knockem_dagster.stores.sqlite_documents import SqliteDocuments

SITES = 40
T = TypeVar("T")
Behaviour = Callable[[Attempt, int], AttemptOutcome]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(SqliteDocuments(tmp_path / "documents.sqlite", COLLECTIONS))
    yield opened
    opened.close()


@pytest.fixture
def ledger(records: Records) -> Ledger:
    submission = SubmissionRecord(
        id="11111111-0000-5000-8000-000000000000",
        assay_types=(AssayType.NULLDIST,),
        assay_ids=(),
        container_image="explicit",
        container_env={},
        genome_id=wild_type_id("11111111-0000-5000-8000-000000000000"),
        max_active=8,
        max_fail=3,
        user_email="darwin@example.org",
        timeout_seconds=10,
        seed=7,
        skeletons=2,
        tolerated_untested=0.05,
        container_runtime="process",
        image_digest="sha256:0",
        num_sites=SITES,
        content_digest="0",
    )
    genome = wild_type(submission.id, "content", num_sites=SITES, user_email=submission.user_email)
    assay = AssayRecord(
        id=assay_id(submission.id, AssayType.NULLDIST),
        submission_id=submission.id,
        assay_type=AssayType.NULLDIST,
        container_image="explicit",
        container_env={},
        user_email=submission.user_email,
    )
    return Ledger(records, submission, assay, genome)


def succeeds(attempt: Attempt, _: int) -> AttemptOutcome:
    return AttemptOutcome(attempt, Outcome.SUCCEEDED, counts=Counts(1.0, 500, attempt.beta.knockout.dose))


def fails(attempt: Attempt, _: int) -> AttemptOutcome:
    return AttemptOutcome(attempt, Outcome.FAILED, exit_code=3, tail="segmentation fault")


class Tried:
    """A worker in the same loop: answers attempts by a behaviour, and remembers what it saw."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.attempts: list[Attempt] = []
        self.by_competition: Counter[str] = Counter()
        self.most_at_once = 0

    async def work(self, source: InProcessSource) -> None:
        while attempts := await source.claim(1000):
            self.most_at_once = max(self.most_at_once, len(attempts))
            outcomes: list[AttemptOutcome] = []
            for attempt in attempts:
                self.attempts.append(attempt)
                self.by_competition[attempt.competition_id] += 1
                outcomes.append(self.behaviour(attempt, self.by_competition[attempt.competition_id]))
            await source.finish(outcomes)


def run_assay(
    ledger: Ledger,
    behaviour: Behaviour,
    assay: Callable[[AssayRun], Awaitable[T]],
    *,
    max_active: int = 8,
    max_fail: int = 3,
) -> tuple[T, Tried]:
    tried = Tried(behaviour)

    async def main() -> T:
        source = InProcessSource(workers=1)
        worker = asyncio.create_task(tried.work(source))
        async with AssayRun(ledger, source, max_active=max_active, max_fail=max_fail) as run:
            result = await assay(run)
        await source.close()
        await worker
        return result

    return asyncio.run(main()), tried


def questions(number: int) -> list[Competition]:
    nothing = KnockoutSet.none(SITES)
    return [Competition(nothing, KnockoutSet.of(range(i % SITES), SITES), "screen", i // SITES) for i in range(number)]


def ask(number: int) -> Callable[[AssayRun], Awaitable[list[Answer]]]:
    return lambda run: run.compete(questions(number))


def test_answers_come_in_the_order_asked(ledger: Ledger) -> None:
    answers, _ = run_assay(ledger, succeeds, ask(300))
    assert [answer.num_beta for answer in answers if isinstance(answer, Counts)] == [i % SITES for i in range(300)]


def test_recorded_competitions_are_not_run_again(ledger: Ledger, records: Records) -> None:
    first, tried = run_assay(ledger, succeeds, ask(120))
    assert len(tried.attempts) == 120
    again, tried = run_assay(ledger, fails, ask(130))
    assert again[:120] == first
    assert len(tried.by_competition) == 10
    where = {"submissionId": "11111111-0000-5000-8000-000000000000"}
    assert records.documents.count("competitionResults", where) == 120


def test_same_question_asked_at_once_by_two_tasks_runs_once(ledger: Ledger) -> None:
    async def twice(run: AssayRun) -> list[list[Answer]]:
        return await asyncio.gather(run.compete(questions(30)), run.compete(questions(30)))

    (one, other), tried = run_assay(ledger, succeeds, twice)
    assert one == other
    assert len(tried.attempts) == 30


def test_never_more_than_max_active_attempts(ledger: Ledger) -> None:
    _, tried = run_assay(ledger, succeeds, ask(200), max_active=5)
    assert 1 <= tried.most_at_once <= 5


@pytest.mark.parametrize("max_fail", [1, 3])
def test_failing_competition_is_given_up_after_max_fail_attempts(ledger: Ledger, max_fail: int) -> None:
    answers, tried = run_assay(ledger, fails, ask(4), max_fail=max_fail)
    assert all(isinstance(answer, Untestable) for answer in answers)
    assert isinstance(answers[0], Untestable)
    assert "segmentation fault" in answers[0].reason
    assert set(tried.by_competition.values()) == {max_fail}


def test_failed_attempts_of_an_earlier_run_count(ledger: Ledger) -> None:
    class PowerCut(Exception):
        pass

    async def die_after_two(run: AssayRun) -> None:
        asking = asyncio.create_task(run.compete(questions(1)))
        while run.progress.attempts < 2:
            await asyncio.sleep(0)
        asking.cancel()
        raise PowerCut

    with pytest.raises(BaseExceptionGroup):
        run_assay(ledger, fails, die_after_two)
    _, tried = run_assay(ledger, fails, ask(1))
    assert len(tried.attempts) <= 2


def test_attempts_lost_with_their_container_have_a_cap_of_their_own(ledger: Ledger) -> None:
    def lose(attempt: Attempt, number: int) -> AttemptOutcome:
        return AttemptOutcome(attempt, Outcome.LOST, tail="the container died")

    answers, tried = run_assay(ledger, lose, ask(2), max_fail=1)
    assert all(isinstance(answer, Untestable) for answer in answers)
    assert set(tried.by_competition.values()) == {LOSSES_ALLOWED}


def test_user_who_resumes_gives_failed_competitions_a_new_chance(ledger: Ledger, records: Records) -> None:
    answers, _ = run_assay(ledger, fails, ask(4))
    assert all(isinstance(answer, Untestable) for answer in answers)
    resumed = ledger.submission.model_copy(update={"resumed": now()})
    again, tried = run_assay(Ledger(records, resumed, ledger.assay, ledger.genome), succeeds, ask(4))
    assert all(isinstance(answer, Counts) for answer in again)
    assert set(tried.by_competition.values()) == {1}
    where = {"submissionId": resumed.id}
    assert {record.number for record in records.attempts.find(where)} == {1, 2, 3, 4}


class KeepsTheBeginning(SqliteDocuments):
    """A store that dies within a batch of outcomes and keeps its beginning, as MongoDB may."""

    kept: float = 1.0

    def bulk(self, operations: Sequence[Operation]) -> list[bool]:
        named = {each.collection for each in operations if isinstance(each, PutNew)}
        if self.kept == 1.0 or "competitionAttemptResults" not in named:
            return super().bulk(operations)
        super().bulk(operations[: int(self.kept * len(operations))])
        raise StoreError("the store went away")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8])
def test_batch_stored_in_part_loses_no_answer(ledger: Ledger, tmp_path: Path, kept: float) -> None:
    documents = KeepsTheBeginning(tmp_path / "half" / "documents.sqlite", COLLECTIONS)
    half = Records(documents)
    documents.kept = kept
    halved = Ledger(half, ledger.submission, ledger.assay, ledger.genome)
    with pytest.raises(BaseExceptionGroup):
        run_assay(halved, succeeds, ask(8), max_fail=1)
    documents.kept = 1.0
    where = {"submissionId": ledger.submission.id}
    before = documents.count("competitionResults", where)
    answers, tried = run_assay(halved, succeeds, ask(8), max_fail=1)
    assert all(isinstance(answer, Counts) for answer in answers)
    assert len(tried.attempts) == 8 - before
    half.close()


def test_lost_attempt_does_not_count_towards_max_fail(ledger: Ledger) -> None:
    def lose_twice(attempt: Attempt, number: int) -> AttemptOutcome:
        return AttemptOutcome(attempt, Outcome.LOST) if number <= 2 else succeeds(attempt, number)

    answers, _ = run_assay(ledger, lose_twice, ask(3), max_fail=1)
    assert all(isinstance(answer, Counts) for answer in answers)


def test_every_attempt_is_recorded_with_its_outcome(ledger: Ledger, records: Records) -> None:
    def fail_once(attempt: Attempt, number: int) -> AttemptOutcome:
        return fails(attempt, number) if number == 1 else succeeds(attempt, number)

    run_assay(ledger, fail_once, ask(10))
    where = {"submissionId": "11111111-0000-5000-8000-000000000000"}
    outcomes = Counter(record.outcome for record in records.attempt_results.find(where))
    assert outcomes == {Outcome.FAILED: 10, Outcome.SUCCEEDED: 10}
    assert sorted(record.number for record in records.attempts.find(where)) == [1] * 10 + [2] * 10


def test_retry_has_the_same_seed(ledger: Ledger) -> None:
    def fail_once(attempt: Attempt, number: int) -> AttemptOutcome:
        return fails(attempt, number) if number == 1 else succeeds(attempt, number)

    _, tried = run_assay(ledger, fail_once, ask(5))
    seeds: dict[str, set[int]] = {}
    for attempt in tried.attempts:
        seeds.setdefault(attempt.competition_id, set()).add(attempt.seed)
    assert all(len(each) == 1 for each in seeds.values())
    assert len({next(iter(each)) for each in seeds.values()}) == 5


def test_store_that_refuses_to_write_breaks_the_run_at_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("no space left on device")

    monkeypatch.setattr(Ledger, "end", full)
    with pytest.raises(BaseExceptionGroup) as broken:
        run_assay(ledger, succeeds, ask(5))
    assert broken.group_contains(StoreError)


def test_genomes_are_recorded_as_parent_and_bitset(ledger: Ledger, records: Records) -> None:
    run_assay(ledger, succeeds, ask(SITES))
    where = {"submissionId": "11111111-0000-5000-8000-000000000000"}
    doses = sorted(genome.knockout.dose for genome in records.genomes.find(where))
    assert doses == list(range(1, SITES))
    assert all(genome.content is None and genome.is_ephemeral for genome in records.genomes.find(where))
