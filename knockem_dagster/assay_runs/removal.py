"""Removing a submission from the record and the object store. Dagster's own storage is the caller's part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.assay_runs.tables import submission_prefix
from knockem_dagster.errors import SubmissionBusy
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import OF_A_SUBMISSION
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.records.uploads import UploadRecord


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What removing a submission takes away: documents by collection, objects by key, uploads by id."""

    submission_id: str
    documents: Mapping[str, int]
    objects: tuple[str, ...]
    uploads: tuple[str, ...]


def plan_removal(platform: Platform, submission: SubmissionRecord) -> RemovalPlan:
    """Tell what `remove` will take away.

    Raises SubmissionBusy while a run works on the submission.
    """
    refuse_while_busy(platform, submission)
    records, id = platform.records, submission.id
    documents = {
        model.collection.name: records.documents.count(model.collection.name, {"submissionId": id})
        for model in OF_A_SUBMISSION
        if model is not UploadRecord
    }
    uploads = list(_uploads_of(platform, id))
    documents |= {records.submissions.name: 1, records.uploads.name: len(uploads)}
    keys = [stored.key for stored in platform.objects.list(submission_prefix(id))]
    keys += [upload.key for upload in uploads if platform.objects.exists(upload.key)]
    return RemovalPlan(
        submission_id=id,
        documents={name: number for name, number in documents.items() if number},
        objects=tuple(dict.fromkeys(keys)),
        uploads=tuple(upload.id for upload in uploads),
    )


def close_for_removal(platform: Platform, submission: SubmissionRecord) -> None:
    """Make sure that nobody starts a run of a submission that is about to be removed."""
    platform.records.submissions.move(
        submission.id, State.CANCELED, reason="being purged", sources=(State.ACCEPTED, State.RUNNING)
    )
    refuse_while_busy(platform, submission)


def remove(platform: Platform, plan: RemovalPlan) -> None:
    """Remove objects, then documents; the submission last, so that an interrupted removal can be repeated.

    What others keep from being erased from the store's files is erased by upkeep.
    """
    records, id = platform.records, plan.submission_id
    for key in plan.objects:
        platform.objects.delete(key)
    for upload in plan.uploads:
        records.documents.delete(records.uploads.name, {"_id": upload})
    for model in OF_A_SUBMISSION:
        records.documents.delete(model.collection.name, {"submissionId": id})
    records.documents.delete(records.submissions.name, {"_id": id})
    records.documents.erase_deleted()


def refuse_while_busy(platform: Platform, submission: SubmissionRecord) -> None:
    """Raise SubmissionBusy while a living run holds the submission's lease."""
    current = platform.records.submissions.find_one(submission.id)
    if current is not None and is_leased(current):
        raise SubmissionBusy(
            f"A run ({current.lease.owner}) works on submission {submission.id}. "
            f"First `./knockem cancel {submission.id[:8]}`, then purge again."
        )


def _uploads_of(platform: Platform, submission_id: str) -> Iterator[UploadRecord]:
    """Yield the uploads that became the submission, or were refused with a fault that names it.

    Uploads are few, and a purge is rare: all of them are read.
    """
    for upload in platform.records.uploads.find({}):
        named = any(submission_id in str(fault) for fault in upload.faults)
        if named or upload.submission_id == submission_id:
            yield upload
