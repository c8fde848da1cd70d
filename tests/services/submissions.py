"""Submissions as the record holds them, made up for tests of what reads or changes them."""

from __future__ import annotations

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.knockout.competitions import Competition
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.assays import AssayRecord, AssayType, assay_id
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.competitions import (
    CompetitionAttemptRecord,
    CompetitionAttemptResultRecord,
    CompetitionRecord,
    CompetitionResultRecord,
    CountsValue,
    attempt_id,
    competition_id,
)
from knockem_dagster.records.genomes import wild_type
from knockem_dagster.records.record import derived_id
from knockem_dagster.records.submissions import SubmissionRecord

USER = "someone@example.org"
NUM_SITES = 10


def a_submission(name: str = "first", **changes: object) -> SubmissionRecord:
    """Return a submission of a genome with ten sites."""
    id = derived_id("made up", name)
    return SubmissionRecord.model_validate(
        {
            "id": id,
            "assay_types": [AssayType.NULLDIST],
            "assay_ids": [assay_id(id, AssayType.NULLDIST)],
            "container_image": "explicit",
            "container_env": {},
            "genome_id": wild_type(id, "content", num_sites=NUM_SITES, user_email=USER).id,
            "max_active": 8,
            "max_fail": 3,
            "user_email": USER,
            "timeout_seconds": 60.0,
            "seed": 1,
            "skeletons": 3,
            "tolerated_untested": 0.05,
            "container_runtime": "process",
            "image_digest": "sha256:0",
            "num_sites": NUM_SITES,
            "content_digest": "0",
            **changes,
        }
    )


def store_with_competitions(records: Records, submission: SubmissionRecord, *, answered: int, failed: int) -> None:
    """Store a submission whose null assay asked for competitions, each tried once: some answered, some not.

    The challenger of competition i lacks site i; an answered one ends 60 to 40 after 2 updates.
    """
    records.submissions.add(submission)
    genome = wild_type(submission.id, "content", num_sites=NUM_SITES, user_email=USER)
    records.genomes.add(genome)
    assay = AssayRecord(
        id=assay_id(submission.id, AssayType.NULLDIST),
        submission_id=submission.id,
        assay_type=AssayType.NULLDIST,
        container_image=submission.container_image,
        container_env={},
        user_email=USER,
    )
    records.assays.add(assay)
    for number in range(answered + failed):
        knockout = KnockoutSet.of([number % NUM_SITES], NUM_SITES)
        question = Competition(KnockoutSet.none(NUM_SITES), knockout, "null", number)
        variant = genome.variant(knockout)
        records.genomes.add(variant)
        id = competition_id(assay.id, question)
        shared = {"submission_id": submission.id, "assay_id": assay.id, "user_email": USER}
        records.competitions.add(
            CompetitionRecord(
                id=id,
                genome_id_alpha=genome.id,
                genome_id_beta=variant.id,
                num_knockout_sites=1,
                purpose="null",
                replicate=number,
                seed=number,
                **shared,
            )
        )
        counts = CountsValue(updates_elapsed=2.0, num_alpha=60, num_beta=40) if number < answered else None
        records.attempts.add(CompetitionAttemptRecord(id=attempt_id(id, 1), competition_id=id, number=1, **shared))
        records.attempt_results.add(
            CompetitionAttemptResultRecord(
                id=attempt_id(id, 1),
                competition_id=id,
                outcome=Outcome.FAILED if counts is None else Outcome.SUCCEEDED,
                command="knockem_compete_two",
                exit_code=3 if counts is None else 0,
                tail="out of luck" if counts is None else "",
                result=counts,
                **shared,
            )
        )
        if counts is not None:
            records.competition_results.add(
                CompetitionResultRecord(
                    id=id,
                    competition_attempt_id=attempt_id(id, 1),
                    genome_id_beta=variant.id,
                    num_knockout_sites=1,
                    result=counts,
                    **shared,
                )
            )
