"""Quotas: what counts towards each, up to where each lets more in, and that each is refused by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.accounts.quotas import active_jobs, check_quotas, cpu_seconds, note_stored
from knockem_dagster.accounts.users import add_user, set_quotas, user_of
from knockem_dagster.errors import NotPermitted
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.restarting import restart_workflow
from knockem_dagster.jobs.workflows import cancel_workflow
from knockem_dagster.platform import Platform
from knockem_dagster.records.accounts import QuotasValue
from knockem_dagster.records.submissions import State
from knockem_dagster.stores.documents import Patch
from tests.services.graph_play import completed, job, run, stored
from tests.services.job_play import record_in, results_of, worker_on
from tests.services.queue_play import play, until
from tests.services.queues import QueueServer
from tests.services.submissions import USER, a_submission, store_with_competitions

OTHER = "other@example.org"
BURN = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
        for address in (USER, OTHER):
            add_user(opened.records, address)
        yield opened


def allow(platform: Platform, **quotas: float) -> None:
    set_quotas(platform.records, USER, QuotasValue.model_validate(quotas))


def ask(platform: Platform, *, jobs: int = 0, size: int = 0, address: str = USER) -> None:
    check_quotas(platform.records, address, jobs=jobs, size=size)


def test_jobs_count_until_they_are_over_and_submissions_for_all_they_may_have(
    platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"), job("b"), job("c", depends_on=["a"]))
    submission = a_submission(state=State.RUNNING, max_active=8)
    platform.records.submissions.add(submission)
    assert active_jobs(platform.records, user_of(platform.records, USER)) == 11
    allow(platform, active_jobs=12)
    ask(platform, jobs=1)
    with pytest.raises(NotPermitted, match=r"^Quota activeJobs: 11 of 12 are used, and 2 more were asked for\.$"):
        ask(platform, jobs=2)
    platform.records.submissions.patch(submission.id, Patch(set={"state": State.FAILED.value}))
    with pytest.raises(NotPermitted, match="activeJobs: 3 of 12"):
        ask(platform, jobs=12)
    asyncio.run(cancel_workflow(platform.records, None, workflow))
    ask(platform, jobs=12)
    with pytest.raises(NotPermitted, match="activeJobs: 0 of 12"):
        ask(platform, jobs=13)


def test_cpu_time_of_all_tries_counts_and_is_added_up_once(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    records, user = platform.records, user_of(platform.records, USER)
    workflow = stored(
        platform, tmp_path, {"name": "a", "command": BURN}, {"name": "b", "command": f"{BURN}; test -e mended"}
    )
    assert (cpu_seconds(records, user), records.workflows.get(workflow.id).cpu_seconds) == (0.0, None)
    run(queue_server, platform, workflow)
    used = used_by(platform, workflow.id)
    assert used > 0.01
    assert cpu_seconds(records, user) == records.workflows.get(workflow.id).cpu_seconds == used
    allow(platform, cpu_hours=2 * used / 3600)
    ask(platform, jobs=100)
    allow(platform, cpu_hours=used / 3600)
    with pytest.raises(NotPermitted, match=r"^Quota cpuHours: 0\.00 of .* are used\.$"):
        ask(platform)
    (tmp_path / "mended").touch()

    async def again(queue: Queue) -> None:
        await restart_workflow(records, queue, workflow.id)
        async with worker_on(platform, queue):
            await until(completed(platform, workflow))

    play(queue_server, again)
    in_all = used_by(platform, workflow.id)
    assert in_all > used
    assert cpu_seconds(records, user) == pytest.approx(in_all), "a restart lets it be added up anew"
    records.documents.delete(records.results.name, {"workflowId": workflow.id})
    assert cpu_seconds(records, user) == pytest.approx(in_all), "it is remembered"
    assert cpu_seconds(records, user_of(records, OTHER)) == 0.0


def test_cpu_time_of_competitions_counts_and_is_added_up_once(platform: Platform) -> None:
    records, user = platform.records, user_of(platform.records, USER)
    submission = a_submission(state=State.RUNNING)
    store_with_competitions(records, submission, answered=3, failed=1)
    attempts = [each.id for each in records.attempt_results.find({"submissionId": submission.id})]
    for attempt in attempts:
        records.attempt_results.patch(attempt, Patch(set={"cpuSeconds": 900.0}))
    allow(platform, cpu_hours=1.0)
    with pytest.raises(NotPermitted, match=r"Quota cpuHours: 1\.00 of 1 are used"):
        ask(platform)
    assert records.submissions.get(submission.id).cpu_seconds is None, "there may be more"
    records.submissions.patch(submission.id, Patch(set={"state": State.COMPLETED.value}))
    assert cpu_seconds(records, user) == records.submissions.get(submission.id).cpu_seconds == 3600.0
    records.attempt_results.patch(attempts[0], Patch(set={"cpuSeconds": 0.0}))
    assert cpu_seconds(records, user) == 3600.0, "it is remembered"


def test_bytes_count_for_good(platform: Platform) -> None:
    allow(platform, stored_bytes=10)
    ask(platform, size=10)
    for size in (3, 4):
        note_stored(platform.records, USER, size)
    ask(platform, size=3)
    with pytest.raises(NotPermitted, match=r"^Quota storedBytes: 7 of 10 are used, and 4 more were asked for\.$"):
        ask(platform, size=4)


def test_who_has_no_quota_or_is_no_user_may_have_anything(platform: Platform) -> None:
    allow(platform, active_jobs=0, cpu_hours=0, stored_bytes=0)
    with pytest.raises(NotPermitted):
        ask(platform, jobs=1)
    for address in (OTHER, "nobody@example.org"):
        ask(platform, jobs=1 << 40, size=1 << 40, address=address)


def used_by(platform: Platform, workflow: str) -> float:
    """Return the CPU seconds in the results of a workflow."""
    return sum(each.cpu_seconds or 0.0 for each in results_of(platform, platform.records.workflows.get(workflow)))
