"""The ledger of one assay: its questions, attempts and answers, written to the record in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.knockout.competitions import Competition, Counts
from knockem_dagster.records.assays import AssayRecord
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.competitions import (
    CompetitionAttemptRecord,
    CompetitionAttemptResultRecord,
    CompetitionRecord,
    CompetitionResultRecord,
    CountsValue,
    attempt_id,
    competition_id,
    competition_seed,
)
from knockem_dagster.records.genomes import GenomeRecord, variant_id
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.documents import Operation


@dataclass(slots=True)
class Question:
    """A competition on its way to an answer, with the tries it has had.

    `interruptions`: tries that were lost with the run that made them, beside others: nobody knows whose fault that was.
    `under_way`: a try that an earlier run began.
    """

    id: str
    competition: Competition
    alpha: GenomeVariant
    beta: GenomeVariant
    seed: int
    tries: int = 0
    failures: int = 0
    losses: int = 0
    interruptions: int = 0
    last: str = ""
    under_way: Attempt | None = None

    def next_attempt(self, assay: AssayRecord) -> Attempt:
        """Count one more try and return it."""
        self.tries += 1
        return Attempt(
            id=attempt_id(self.id, self.tries),
            competition_id=self.id,
            assay_id=assay.id,
            submission_id=assay.submission_id,
            alpha=self.alpha,
            beta=self.beta,
            seed=self.seed,
        )

    def note(self, outcome: Outcome, tail: str) -> None:
        """Count an attempt that brought no answer."""
        if outcome is Outcome.LOST:
            self.losses += 1
        else:
            self.failures += 1
        last_line = tail.strip().rsplit("\n", 1)[-1][:200]
        self.last = f"{outcome.value}: {last_line}" if last_line else outcome.value


@dataclass(frozen=True, slots=True)
class Held:
    """How many competitions of an assay the record has, and how many of these have an answer."""

    asked: int = 0
    answered: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """The recorded answers to questions, by competition id, and how many questions were not in the record."""

    answers: dict[str, Counts]
    num_new: int


class Ledger:
    """Writes and reads one assay's competitions. Calls block; the assay run makes them in a thread of their own."""

    def __init__(
        self,
        records: Records,
        submission: SubmissionRecord,
        assay: AssayRecord,
        genome: GenomeRecord,
        *,
        under_way: frozenset[str] = frozenset(),
        settled: str = "",
    ) -> None:
        """`under_way`: ids of attempts without a result that somebody still works on.

        `settled`: when a result of the assay was last recorded. What had failed by then stays untestable whatever is
        forgiven later, or the assay, asking its questions again to go on from there, would ask others.
        """
        self._records = records
        self.submission = submission
        self._assay = assay
        self.genome = genome
        self._under_way = under_way
        self._settled = settled

    @property
    def assay(self) -> AssayRecord:
        """The assay whose ledger this is."""
        return self._assay

    def question(self, competition: Competition) -> Question:
        """Return what identifies a competition: its id, its two genomes and its seed."""
        return Question(
            id=competition_id(self._assay.id, competition),
            competition=competition,
            alpha=self._variant(competition, challenger=False),
            beta=self._variant(competition, challenger=True),
            seed=competition_seed(self.submission.seed, self._assay.assay_type.value, competition),
        )

    def _variant(self, competition: Competition, *, challenger: bool) -> GenomeVariant:
        knockout = competition.challenger if challenger else competition.background
        wild_type = knockout.is_wild_type
        id = self.genome.id if wild_type else variant_id(self.submission.id, knockout.to_bytes())
        return GenomeVariant(id, knockout)

    def held(self) -> Held:
        """Count what the record has of the assay."""
        where = {"submissionId": self.submission.id, "assayId": self._assay.id}
        documents = self._records.documents
        return Held(documents.count("competitions", where), documents.count("competitionResults", where))

    def open(self, questions: Sequence[Question]) -> Opened:
        """Return the recorded answers; record the questions that are new.

        A question asked before without an answer gets its tries counted; attempts that never
        ended were lost with the run that made them, and are recorded so, without blame unless they were alone.
        """
        known = self._records.competition_results.get_many([question.id for question in questions])
        answers = {id: found.result.to_counts() for id, found in known.items()}
        waiting = [question for question in questions if question.id not in answers]
        new = self._records.documents.bulk([*self._questions(waiting), *self._genomes(waiting)])
        asked_before = [question for question, is_new in zip(waiting, new, strict=False) if not is_new]
        if asked_before:
            self._take_up(asked_before)
        return Opened(answers, len(waiting) - len(asked_before))

    def _questions(self, questions: Iterable[Question]) -> list[Operation]:
        return [
            *self._records.competitions.additions(
                CompetitionRecord(
                    id=question.id,
                    submission_id=self.submission.id,
                    assay_id=self._assay.id,
                    genome_id_alpha=question.alpha.id,
                    genome_id_beta=question.beta.id,
                    num_knockout_sites=question.beta.knockout.dose,
                    purpose=question.competition.purpose,
                    replicate=question.competition.replicate,
                    seed=question.seed,
                    user_email=self.submission.user_email,
                )
                for question in questions
            )
        ]

    def _genomes(self, questions: Iterable[Question]) -> list[Operation]:
        variants = {
            variant.id: variant.knockout
            for question in questions
            for variant in (question.alpha, question.beta)
            if not variant.knockout.is_wild_type
        }
        return [*self._records.genomes.additions(self.genome.variant(knockout) for knockout in variants.values())]

    def _take_up(self, questions: Sequence[Question]) -> None:
        """Count the tries that earlier runs made at these questions."""
        unsettled = list(questions)
        abandoned: list[CompetitionAttemptResultRecord] = []
        while unsettled:
            ids = {attempt_id(question.id, question.tries + 1): question for question in unsettled}
            made = self._records.attempts.get_many(list(ids))
            ended = self._records.attempt_results.get_many(list(made))
            for id in made:
                question = ids[id]
                attempt = question.next_attempt(self._assay)
                result = ended.get(id)
                if result is None and id in self._under_way:
                    question.under_way = attempt
                    continue
                if result is None:
                    lost = AttemptOutcome(attempt, Outcome.LOST, tail="the run ended before this attempt did")
                    result = self._attempt_result(lost, blameless=not made[id].alone)
                    abandoned.append(result)
                self._count(question, result)
            unsettled = [ids[id] for id in made]
        self._records.attempt_results.add_many(abandoned)

    def _count(self, question: Question, result: CompetitionAttemptResultRecord) -> None:
        """Count an earlier attempt's end, unless that is forgiven."""
        if self._settled < result.datetime <= (self.submission.resumed or ""):
            return
        if result.blameless:
            question.interruptions += 1
        else:
            question.note(result.outcome, result.tail)

    def begin(self, attempts: Sequence[Attempt], numbers: Mapping[str, int], *, alone: bool) -> None:
        """Record attempts before they start; `numbers` gives the number of each by its id."""
        self._records.attempts.add_many(
            CompetitionAttemptRecord(
                id=attempt.id,
                submission_id=self.submission.id,
                assay_id=self._assay.id,
                competition_id=attempt.competition_id,
                number=numbers[attempt.id],
                alone=alone,
                genome_id_alpha=attempt.alpha.id,
                genome_id_beta=attempt.beta.id,
                seed=attempt.seed,
                user_email=self.submission.user_email,
            )
            for attempt in attempts
        )

    def end(self, outcomes: Sequence[AttemptOutcome]) -> dict[str, Counts]:
        """Record ended attempts; return the answers that now stand, by competition id."""
        return record_ended(self._records, outcomes, user_email=self.submission.user_email)

    def _attempt_result(self, ended: AttemptOutcome, *, blameless: bool = False) -> CompetitionAttemptResultRecord:
        return CompetitionAttemptResultRecord.of(ended, user_email=self.submission.user_email, blameless=blameless)


def record_ended(
    records: Records, outcomes: Sequence[AttemptOutcome], *, user_email: str, blameless: frozenset[str] = frozenset()
) -> dict[str, Counts]:
    """Record ended attempts; return the answers that now stand, by competition id.

    The first result wins: where another was recorded meanwhile, that one stands. Results come first in the
    batch, so that a store that keeps only its beginning loses no answer. `blameless`: ids of attempts that count
    nowhere.
    """
    answers: dict[str, Counts] = {}
    results: list[Operation] = []
    for ended in outcomes:
        if ended.counts is not None:
            answers[ended.attempt.competition_id] = ended.counts
            results.extend(records.competition_results.additions([_result(ended, ended.counts, user_email)]))
    tries = records.attempt_results.additions(
        CompetitionAttemptResultRecord.of(ended, user_email=user_email, blameless=ended.attempt.id in blameless)
        for ended in outcomes
    )
    stored = records.documents.bulk([*results, *tries])
    answered = [ended.attempt.competition_id for ended in outcomes if ended.counts is not None]
    beaten = [id for id, is_new in zip(answered, stored, strict=False) if not is_new]
    for id, record in records.competition_results.get_many(beaten).items():
        answers[id] = record.result.to_counts()
    return answers


def _result(ended: AttemptOutcome, counts: Counts, user_email: str) -> CompetitionResultRecord:
    return CompetitionResultRecord(
        id=ended.attempt.competition_id,
        submission_id=ended.attempt.submission_id,
        assay_id=ended.attempt.assay_id,
        competition_attempt_id=ended.attempt.id,
        genome_id_beta=ended.attempt.beta.id,
        num_knockout_sites=ended.attempt.beta.knockout.dose,
        result=CountsValue.of(counts),
        user_email=user_email,
    )
