"""What arrives: submissions in the documents store, and submission files in the object store."""

import asyncio
import json

import dagster as dg

from assets.partitions import SUBMISSION_JOB, SUBMISSION_TAG, USER_TAG, submissions
from assets.selection import selection_of
from knockem_dagster.assay_runs.intake import Accepted, content_digest, examine, store, time_competitions
from knockem_dagster.assay_runs.platform import Platform
from knockem_dagster.assay_runs.submission_file import read_submission_file
from knockem_dagster.errors import Fault, InvalidInput, KnockemError
from knockem_dagster.records.record import derived_id
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.records.uploads import FaultValue, UploadRecord
from resources.platform import PlatformResource

UPLOADS = "uploads/submissions/"
submission_uploads = dg.AssetSpec(
    "submission_uploads",
    group_name="arrivals",
    kinds={"yaml"},
    description=f"Submission files put under `{UPLOADS}` in the object store, and what became of each.",
)
MOST_A_TICK = 20


def run_request(submission: SubmissionRecord) -> dg.RunRequest:
    """Return the one run that a submission needs now; asking again for the same state changes nothing."""
    return dg.RunRequest(
        run_key=f"{submission.id}:{submission.content_digest[:12]}:{submission.interruptions}",
        job_name=SUBMISSION_JOB,
        partition_key=submission.id,
        asset_selection=selection_of(submission.assay_types),
        tags={SUBMISSION_TAG: submission.id, USER_TAG: submission.user_email},
    )


@dg.sensor(
    name="new_submissions",
    job_name=SUBMISSION_JOB,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition and requests one run for each accepted submission.",
)
def new_submissions(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Request a run for each submission that was accepted and has none."""
    records = platform.open().records
    accepted = list(records.submissions.find({"state": State.ACCEPTED.value}, limit=100))
    known = set(context.instance.get_dynamic_partitions(submissions.name or ""))
    new = [submission.id for submission in accepted if submission.id not in known]
    return dg.SensorResult(
        run_requests=[run_request(submission) for submission in accepted],
        dynamic_partitions_requests=[submissions.build_add_request(new)] if new else [],
    )


@dg.sensor(
    name="uploaded_submissions",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Reads submission files under {UPLOADS}; shows the faults of refused ones on submission_uploads.",
)
def uploaded_submissions(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Take in each upload that has not changed since the last tick: a file still being written is left alone."""
    opened = platform.open()
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    now: dict[str, str] = {}
    events: list[dg.AssetMaterialization] = []
    for entry in opened.objects.list(UPLOADS):
        version = f"{entry.size}:{entry.last_modified}"
        if seen.get(entry.key) == f"done {version}":
            now[entry.key] = f"done {version}"
        elif seen.get(entry.key) == version and len(events) < MOST_A_TICK:
            events.append(_upload_event(take_in(opened, entry.key)))
            now[entry.key] = f"done {version}"
        else:
            now[entry.key] = version
    waiting = sum(1 for version in now.values() if not version.startswith("done"))
    skip = f"{len(now)} uploads known, {waiting} waiting until they stop changing" if not events else None
    return dg.SensorResult(asset_events=events, cursor=json.dumps(now), skip_reason=skip)


def take_in(platform: Platform, key: str) -> UploadRecord:
    """Read one upload and either store its submission or record why not."""
    data = platform.objects.get(key)
    digest = content_digest(data)
    id = derived_id("upload", key, digest)
    known = platform.records.uploads.find_one(id)
    if known is not None:
        return known
    submission_id: str | None = None
    faults: tuple[Fault, ...] = ()
    try:
        accepted = asyncio.run(_examined(platform, data))
        submission_id = store(platform, accepted).id
    except InvalidInput as refusal:
        faults = refusal.faults
    except KnockemError as refusal:
        faults = (Fault("(platform)", key, str(refusal)),)
    upload = UploadRecord(
        id=id,
        key=key,
        content_digest=digest,
        submission_id=submission_id,
        faults=tuple(FaultValue.of(fault) for fault in faults),
    )
    platform.records.uploads.add(upload)
    return upload


async def _examined(platform: Platform, data: bytes) -> Accepted:
    accepted = await examine(platform, read_submission_file(data, folder=None))
    await time_competitions(platform, accepted)
    return accepted


def _upload_event(upload: UploadRecord) -> dg.AssetMaterialization:
    """Tell in the UI what became of an upload: its submission, or a table with a row for each fault."""
    metadata: dict[str, dg.MetadataValue | str] = {"key": upload.key, "sha256": upload.content_digest}
    if upload.submission_id is not None:
        metadata["submission"] = upload.submission_id
        description = f"{upload.key} was accepted as submission {upload.submission_id}."
    else:
        number = len(upload.faults)
        description = f"{upload.key} was REFUSED: {number} fault{'s' if number != 1 else ''}. Nothing was stored."
        metadata["faults"] = dg.TableMetadataValue(
            records=[
                dg.TableRecord({"field": fault.field, "value": fault.value, "allowed": fault.allowed})
                for fault in upload.faults
            ],
            schema=dg.TableSchema(columns=[dg.TableColumn(name) for name in ("field", "value", "allowed")]),
        )
        metadata["what to do"] = "Correct the file and put it there again; a changed file is read anew."
    return dg.AssetMaterialization(asset_key=submission_uploads.key, description=description, metadata=metadata)
