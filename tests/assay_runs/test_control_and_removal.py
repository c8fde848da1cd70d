"""Canceling, resuming and removing submissions."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.assay_runs import control, removal
from knockem_dagster.containers.marked_processes import MARK
from knockem_dagster.errors import KnockemError, SubmissionBusy
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import COLLECTIONS
from knockem_dagster.records.submissions import LeaseValue, State
from knockem_dagster.records.uploads import FaultValue, UploadRecord
from knockem_dagster.settings import load_settings
from tests.services.queue_play import until
from tests.services.submissions import a_submission, store_with_competitions
from tests.services.waiting import until as patiently

LIVE = LeaseValue(owner="a run", until=1e12)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform(load_settings(home=tmp_path))
    yield opened
    opened.close()


def test_cancel_ends_the_containers_and_keeps_what_is_recorded(platform: Platform) -> None:
    submission = a_submission(state=State.RUNNING)
    store_with_competitions(platform.records, submission, answered=2, failed=0)
    container = subprocess.Popen(["sleep", "600"], env={MARK: f"somebody#1#{submission.id}"})
    patiently(lambda: Path(f"/proc/{container.pid}/environ").read_bytes(), "its environment")
    assert asyncio.run(control.cancel(platform, submission)) == control.EndedContainers(1)
    assert container.wait(60) == -9
    ended = platform.records.submissions.get(submission.id)
    assert (ended.state, ended.reason) == (State.CANCELED, "canceled by the user")
    assert platform.records.documents.count("competitionResults", {"submissionId": submission.id}) == 2


def test_cancel_waits_for_the_run_to_let_go(platform: Platform) -> None:
    submission = a_submission(state=State.RUNNING, lease=LIVE)
    platform.records.submissions.add(submission)

    async def both() -> bool:
        canceling = asyncio.create_task(control.cancel(platform, submission))

        async def is_canceled() -> bool:
            return platform.records.submissions.get(submission.id).state is State.CANCELED

        await until(is_canceled)
        waited = not canceling.done()
        platform.records.submissions.release_lease(submission.id, LIVE.owner)
        await canceling
        return waited

    assert asyncio.run(both())


def test_cancel_without_the_engine_of_its_containers_succeeds_and_says_so(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    submission = a_submission(state=State.RUNNING, container_runtime="docker")
    platform.records.submissions.add(submission)
    ended = asyncio.run(control.cancel(platform, submission))
    assert ended.number == 0
    assert "no container engine" in (ended.unseen or "")
    assert platform.records.submissions.get(submission.id).state is State.CANCELED


def test_what_is_over_cannot_be_canceled(platform: Platform) -> None:
    submission = a_submission(state=State.COMPLETED)
    platform.records.submissions.add(submission)
    with pytest.raises(KnockemError, match="completed already"):
        asyncio.run(control.cancel(platform, submission))


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_resume_opens_what_failed_or_was_canceled(platform: Platform, state: State) -> None:
    submission = a_submission(state=state, reason="why not", finished="2026-01-01T00:00:00+00:00")
    platform.records.submissions.add(submission)
    resumed = control.resume(platform, submission)
    assert (resumed.state, resumed.reason, resumed.finished) == (State.ACCEPTED, None, None)
    assert resumed.interruptions == 1


def test_resume_refuses_what_is_completed_or_worked_on(platform: Platform) -> None:
    with pytest.raises(KnockemError, match="completed"):
        control.resume(platform, a_submission(state=State.COMPLETED))
    with pytest.raises(SubmissionBusy):
        control.resume(platform, a_submission(state=State.RUNNING, lease=LIVE))


def test_removal_leaves_the_id_nowhere_and_others_alone(platform: Platform, tmp_path: Path) -> None:
    gone, stays = a_submission("gone"), a_submission("stays")
    for submission in (gone, stays):
        store_with_competitions(platform.records, submission, answered=3, failed=2)
        platform.objects.put(f"submissions/{submission.id}/report.html", b"report")
    platform.objects.put("uploads/submissions/first.yaml", b"accepted")
    platform.objects.put("uploads/submissions/again.yaml", b"refused")
    accepted = UploadRecord(id="1", key="uploads/submissions/first.yaml", content_digest="0", submission_id=gone.id)
    refused = UploadRecord(
        id="2",
        key="uploads/submissions/again.yaml",
        content_digest="1",
        faults=(FaultValue(field="seed", value="1", allowed=f"submission {gone.id} has it"),),
    )
    platform.records.uploads.add_many([accepted, refused])
    plan = removal.plan_removal(platform, gone)
    assert plan.documents["competitions"] == 5
    assert plan.documents["submissions"] == 1
    assert plan.documents["uploads"] == 2
    assert f"submissions/{gone.id}/report.html" in plan.objects

    removal.close_for_removal(platform, gone)
    removal.remove(platform, plan)

    documents = [str(document) for each in COLLECTIONS for document in platform.records.documents.find(each.name, {})]
    assert not [document for document in documents if gone.id in document]
    assert [stored.key for stored in platform.objects.list()] == [f"submissions/{stays.id}/report.html"]
    assert len(list(platform.records.competitions.find({"submissionId": stays.id}))) == 5


def test_removal_is_refused_while_a_run_is_alive(platform: Platform) -> None:
    submission = a_submission(state=State.RUNNING, lease=LIVE)
    platform.records.submissions.add(submission)
    with pytest.raises(SubmissionBusy, match="cancel"):
        removal.plan_removal(platform, submission)


def test_an_interrupted_removal_can_be_repeated(platform: Platform) -> None:
    submission = a_submission()
    store_with_competitions(platform.records, submission, answered=1, failed=0)
    platform.records.documents.delete("competitions", {"submissionId": submission.id})
    found = platform.records.submissions.resolve(submission.id[:8])
    removal.remove(platform, removal.plan_removal(platform, found))
    assert platform.records.submissions.find_one(submission.id) is None
