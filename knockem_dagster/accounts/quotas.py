"""What a user may have at a time and in all: checked when more is asked for, and refused by name."""

from __future__ import annotations

from knockem_dagster.accounts.users import user_id
from knockem_dagster.errors import NotPermitted
from knockem_dagster.records.accounts import UserRecord
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import JobState
from knockem_dagster.stores.documents import Patch


def check_quotas(records: Records, address: str, *, jobs: int, size: int) -> None:
    """Make sure that a user may ask for so many jobs more, in a request of so many bytes.

    Raises NotPermitted, naming the quota, what of it is used and what was asked for.
    """
    user = records.users.find_one(user_id(address))
    if user is None:
        return
    quotas = user.quotas
    if quotas.stored_bytes is not None:
        _check("storedBytes", quotas.stored_bytes, user.stored_bytes, size)
    if quotas.active_jobs is not None:
        _check("activeJobs", quotas.active_jobs, active_jobs(records, user), jobs)
    if quotas.cpu_hours is not None:
        used = cpu_seconds(records, user) / 3600
        if used >= quotas.cpu_hours:
            raise NotPermitted(f"Quota cpuHours: {used:.2f} of {quotas.cpu_hours:g} are used.")


def note_stored(records: Records, address: str, size: int) -> None:
    """Note that so many bytes more were stored for a user."""
    records.users.patch(user_id(address), Patch(increment={"storedBytes": size}))


def active_jobs(records: Records, user: UserRecord) -> int:
    """Return how many jobs of a user are not over; a submission has as many as it may have at a time."""
    number = 0
    for workflow in records.workflows.find({"userEmail": user.user_email}):
        if not workflow.is_over:
            where = {"workflowId": workflow.id, "state": JobState.BLOCKED.value}
            number += records.documents.count(records.jobs.name, where)
    for submission in records.submissions.find({"userEmail": user.user_email}):
        if not submission.state.is_final:
            number += submission.max_active
    return number


def cpu_seconds(records: Records, user: UserRecord) -> float:
    """Return the CPU time that jobs and competitions of a user have used. What is over is added up once."""
    total = 0.0
    for workflow in records.workflows.find({"userEmail": user.user_email}):
        used = workflow.cpu_seconds
        if used is None:
            used = sum(each.cpu_seconds or 0.0 for each in records.results.find({"workflowId": workflow.id}))
            if workflow.is_over:
                records.workflows.patch(workflow.id, Patch(set={"cpuSeconds": used}))
        total += used
    for submission in records.submissions.find({"userEmail": user.user_email}):
        used = submission.cpu_seconds
        if used is None:
            used = sum(
                each.cpu_seconds or 0.0 for each in records.attempt_results.find({"submissionId": submission.id})
            )
            if submission.state.is_final:
                records.submissions.patch(submission.id, Patch(set={"cpuSeconds": used}))
        total += used
    return total


def _check(name: str, most: int, used: int, asked: int) -> None:
    if used + asked > most:
        raise NotPermitted(f"Quota {name}: {used:,} of {most:,} are used, and {asked:,} more were asked for.")
