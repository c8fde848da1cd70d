"""What arrives: submissions in the documents store, and submission files in the object store."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

import dagster as dg
from dagster._core.storage.tags import RUN_KEY_TAG

from assets.partitions import SUBMISSION_JOB, submissions
from assets.selection import selection_of
from knockem_dagster.assay_runs.intake import Accepted, content_digest, examine, store, time_competitions
from knockem_dagster.assay_runs.submission_file import read_submission_file
from knockem_dagster.errors import Fault, InvalidInput, KnockemError
from knockem_dagster.mapping_file import MOST_BYTES, shown
from knockem_dagster.platform import Platform
from knockem_dagster.records.record import derived_id
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.records.uploads import FaultValue, UploadRecord
from resources.names import SUBMISSION_TAG, SUBMISSIONS, USER_TAG
from resources.platform import PlatformResource
from sensors.rounds import START, next_part

UPLOADS = "uploads/submissions/"
submission_uploads = dg.AssetSpec(
    "submission_uploads",
    group_name="arrivals",
    kinds={"yaml"},
    description=f"Submission files put under `{UPLOADS}` in the object store, and what became of each.",
)
EXAMINING_SECONDS = 20.0
"""How long an upload's image may take to count its sites, and then how long trial competitions may run."""
PATIENCE_SECONDS = 8.0
"""How long of this a worker may take to begin, where that is left to workers: the rest is the upload's own."""
MOST_SLOW_TRIES = 3
"""Times that a worker may be stopped while it counts an upload's sites, before the upload is refused as too slow."""
MOST_LOOKED_AT = 500
"""Accepted submissions looked at in one tick; the next goes on behind them."""
MOST_REQUESTS = 100
"""Runs requested in one tick."""
TICK_SECONDS = 15.0
"""No further upload is begun after this long: with the two limits above a tick stays below Dagster's 60 s."""


def run_key(submission: SubmissionRecord) -> str:
    """Return the name of the one run that a submission needs now."""
    return f"{submission.id}:{submission.content_digest[:12]}:{submission.interruptions}"


def run_request(submission: SubmissionRecord) -> dg.RunRequest:
    """Return the one run that a submission needs now; asking again for the same state changes nothing."""
    return dg.RunRequest(
        run_key=run_key(submission),
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
    repository = platform.open().records.submissions
    part = next_part(repository, State.ACCEPTED, after=context.cursor or START, most=MOST_LOOKED_AT)
    requested = _keys_with_a_run(context.instance, [run_key(submission) for submission in part.submissions])
    waiting = [submission for submission in part.submissions if run_key(submission) not in requested]
    now = waiting[:MOST_REQUESTS]
    return dg.SensorResult(
        run_requests=[run_request(submission) for submission in now],
        dynamic_partitions_requests=partitions_to_add(context.instance, now),
        cursor=part.end if now == waiting else now[-1].id,
    )


def _keys_with_a_run(instance: dg.DagsterInstance, keys: Sequence[str]) -> set[str]:
    """Return those of the run keys under which there is a run, whichever sensor requested it."""
    runs = instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: list(keys)})) if keys else []
    return {run.tags[RUN_KEY_TAG] for run in runs}


def partitions_to_add(
    instance: dg.DagsterInstance, accepted: Sequence[SubmissionRecord]
) -> list[dg.AddDynamicPartitionsRequest]:
    """Return the request that adds those of the submissions' partitions that are not there yet."""
    new = [each.id for each in accepted if not instance.has_dynamic_partition(SUBMISSIONS, each.id)]
    return [submissions.build_add_request(new)] if new else []


@dg.sensor(
    name="uploaded_submissions",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Reads submission files under {UPLOADS}; shows the faults of refused ones on submission_uploads.",
)
def uploaded_submissions(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Take in each upload that has not changed since the last tick: a file still being written is left alone."""
    opened = platform.open()
    began = time.monotonic()
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    entries = {entry.key: f"{entry.size}:{entry.modified.isoformat()}" for entry in opened.objects.list(UPLOADS)}
    now = {key: _Upload.read(seen.get(key, ""), version) for key, version in entries.items()}
    events: list[dg.AssetMaterialization] = []
    none = opened.objects.no_objects(UPLOADS)
    trouble = f"; {passed_over(none)}" if none else ""
    for key, upload in sorted(now.items(), key=lambda item: item[1].tries):
        if upload.is_still and not upload.is_done and time.monotonic() - began < TICK_SECONDS:
            now[key] = replace(upload, tries=upload.tries + 1)
            try:
                taken = take_in(opened, key, version=upload.version, is_last=upload.slow_tries + 1 >= MOST_SLOW_TRIES)
            except (KnockemError, TimeoutError) as error:
                trouble = f"; {key} is tried again at the next tick: {error}"
                context.log.warning(trouble.removeprefix("; "))
                if isinstance(error, TimeoutError):
                    now[key] = replace(now[key], slow_tries=upload.slow_tries + 1)
            else:
                events.append(_upload_event(taken))
                now[key] = replace(now[key], is_done=True)
    waiting = sum(1 for upload in now.values() if not upload.is_done)
    skip = f"{len(now)} uploads known, {waiting} waiting until they stop changing{trouble}" if not events else None
    cursor = json.dumps({key: str(upload) for key, upload in now.items()})
    return dg.SensorResult(asset_events=events, cursor=cursor, skip_reason=skip)


def passed_over(paths: Sequence[str]) -> str:
    """Tell of what was put into the object store and can be no object: nothing else is held up by it."""
    others = f", and {len(paths) - 1:,} more" if len(paths) > 1 else ""
    return (
        f"passed over: {paths[0]!r}{others}. Give it a name of at most 240 bytes that is UTF-8, without control "
        "characters and without # before final digits; a link must not lead to itself or above itself"
    )


@dataclass(frozen=True, slots=True)
class _Upload:
    """What the cursor tells of a version of an upload: whether it was there before, how often it was tried in vain."""

    version: str
    is_still: bool = False
    is_done: bool = False
    tries: int = 0
    slow_tries: int = 0

    @classmethod
    def read(cls, told: str, version: str) -> Self:
        """Read what was told at the last tick, of this version or another."""
        state, _, of = told.rpartition(" ")
        if of != version:
            return cls(version)
        tries, slow = map(int, re.findall(r"\d+", state) or (0, 0))
        return cls(version, is_still=True, is_done=state == "done", tries=tries, slow_tries=slow)

    def __str__(self) -> str:
        """Return it as `read` reads it."""
        if self.is_done:
            return f"done {self.version}"
        return f"tried {self.tries} slow {self.slow_tries} {self.version}" if self.tries else self.version


def take_in(platform: Platform, key: str, *, version: str, is_last: bool = True) -> UploadRecord:
    """Read one upload, at `version` of its object, and either store its submission or record why not.

    The upload is recorded before its submission: taken in again after a crash between the two, it is no duplicate of
    itself. Raises StoreError or NotFound when the object cannot be read, ContainerError when the containers of its
    submission cannot be started here, WorkersAway when workers have no time: the upload is not to blame. Unless it
    `is_last`, TimeoutError when a worker took too long, which may be busy.
    """
    records = platform.records
    data = platform.objects.get_range(key, start=0, length=MOST_BYTES + 1)
    digest = content_digest(data)
    id = derived_id("upload", key, version, digest)
    known = records.uploads.find_one(id)
    if known is not None and (known.submission_id is None or records.submissions.find_one(known.submission_id)):
        return known
    accepted: Accepted | None = None
    faults: tuple[Fault, ...] = ()
    try:
        accepted = asyncio.run(_examined(platform, data, is_last=is_last))
    except InvalidInput as refusal:
        faults = refusal.faults
    upload = UploadRecord(
        id=id,
        key=key,
        content_digest=digest,
        submission_id=None if accepted is None else accepted.submission.id,
        faults=tuple(FaultValue.of(fault) for fault in faults),
    )
    records.uploads.add(upload)
    if accepted is not None:
        store(platform, accepted)
    return upload


async def _examined(platform: Platform, data: bytes, *, is_last: bool) -> Accepted:
    """Examine what was uploaded, within the time of a tick. Slow competitions are no fault: the run judges them."""
    file = read_submission_file(data, folder=None)
    try:
        async with asyncio.timeout(EXAMINING_SECONDS):
            accepted = await examine(platform, file, patience_seconds=PATIENCE_SECONDS)
    except TimeoutError:
        if platform.settings.leave_to_workers and not is_last:
            raise TimeoutError(f"a worker had not examined it within {EXAMINING_SECONDS:g} s") from None
        allowed = f"an upload's sites must be counted within {EXAMINING_SECONDS:g} s; `./knockem submit` waits longer"
        raise InvalidInput("The upload was not examined.", [Fault("genome", shown(file.genome), allowed)]) from None
    with suppress(TimeoutError):
        async with asyncio.timeout(EXAMINING_SECONDS):
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
