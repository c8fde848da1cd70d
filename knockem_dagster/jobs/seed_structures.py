"""The queue in the seed's words: its six structures and six counters, with fields read from the record.

What a user must not see is left out: e-mail addresses, and the values of containerEnv, which may be secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knockem_dagster.jobs.attempt_records import attempt_id_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import OwnerView, QueueViews
from knockem_dagster.records.assays import NEEDS, AssayType, assay_id
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.competitions import CompetitionAttemptRecord
from knockem_dagster.records.submissions import SubmissionRecord

COUNTERS = (
    "submissionNumPendingAssays",
    "submissionNumActiveAssays",
    "submissionNumCompletedAssays",
    "submissionNumPendingCompetitions",
    "submissionNumActiveCompetitions",
    "submissionNumCompletedCompetitions",
)


async def seed_structures(queue: Queue, records: Records, *, most: int) -> dict[str, Any]:
    """Return activeSubmissions, pendingAssays and so on; of each owner at most so many attempts."""
    owners = await QueueViews(queue).owners()
    submissions = records.submissions.get_many(list(owners))
    structures: dict[str, Any] = {
        "activeSubmissions": [],
        "pendingAssays": [],
        "activeAssays": [],
        "activeCompetitions": [],
        "pendingCompetitionAttempts": [],
        "activeCompetitionAttempts": [],
        "counters": {},
        "numbers": {},
    }
    for owner, view in owners.items():
        structures["counters"][owner] = {name: int(view.fields.get(name, 0)) for name in COUNTERS}
        structures["numbers"][owner] = {
            "pendingCompetitionAttempts": sum(view.ready.values()),
            "activeCompetitionAttempts": view.active,
            "retrying": view.retrying,
            "unrecorded": view.unrecorded,
        }
        submission = submissions.get(owner)
        if submission is None:
            continue
        common = _common(submission)
        structures["activeSubmissions"].append({**common, "id": submission.id, "assayIds": list(submission.assay_ids)})
        structures["pendingAssays"] += _assays(submission, view.pending_assays, records)
        structures["activeAssays"] += await _active_assays(queue, submission, view, records, most=most)
        await _add_attempts(structures, queue, submission, records, most=most)
    return structures


def _common(submission: SubmissionRecord) -> dict[str, Any]:
    return {
        "submissionId": submission.id,
        "containerImage": submission.container_image,
        "datetime": submission.datetime,
        "genomeId": submission.genome_id,
        "revisionKnockem": submission.revision_knockem,
    }


def _assays(submission: SubmissionRecord, ids: Sequence[str], records: Records) -> list[dict[str, Any]]:
    """Return pending assays with those that they wait for."""
    found = records.assay_results.find({"submissionId": submission.id})
    done = {result.id for result in found if submission.stands(result)}
    types = {assay_id(submission.id, each): each for each in AssayType}
    return [
        {
            **_common(submission),
            "id": id,
            "assayId": id,
            "dependsOnAssayIds": [
                needed for each in NEEDS[types[id]] if (needed := assay_id(submission.id, each)) not in done
            ],
        }
        for id in ids
        if id in types
    ]


async def _active_assays(
    queue: Queue, submission: SubmissionRecord, view: OwnerView, records: Records, *, most: int
) -> list[dict[str, Any]]:
    ready, held = await QueueViews(queue).some_jobs(submission.id, most=most)
    attempts = records.attempts.get_many([attempt_id_of(job) for job in (*ready, *held)])
    return [
        {
            **_common(submission),
            "id": id,
            "assayId": id,
            "dependsOnCompetitionIds": sorted(
                {attempt.competition_id for attempt in attempts.values() if attempt.assay_id == id}
            ),
        }
        for id in view.active_assays
    ]


async def _add_attempts(
    structures: dict[str, Any], queue: Queue, submission: SubmissionRecord, records: Records, *, most: int
) -> None:
    ready, held = await QueueViews(queue).some_jobs(submission.id, most=most)
    workers = {attempt_id_of(job): worker for job, worker in held.items()}
    attempts = records.attempts.get_many([attempt_id_of(job) for job in (*ready, *held)])
    common = _common(submission)
    for id, attempt in attempts.items():
        fields = {**common, **_attempt(attempt), "timeoutSeconds": submission.timeout_seconds}
        if id in workers:
            structures["activeCompetitionAttempts"].append({**fields, "worker": workers[id]})
        else:
            structures["pendingCompetitionAttempts"].append(fields)
        competition = {name: fields[name] for name in ("assayId", "genomeIdAlpha", "genomeIdBeta")}
        structures["activeCompetitions"].append(
            {**common, **competition, "id": attempt.competition_id, "dependsOnCompetitionAttemptId": id}
        )


def _attempt(attempt: CompetitionAttemptRecord) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "assayId": attempt.assay_id,
        "genomeIdAlpha": attempt.genome_id_alpha,
        "genomeIdBeta": attempt.genome_id_beta,
    }
