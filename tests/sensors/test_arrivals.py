"""Arrivals: submissions that get a run each, and uploads that are taken in once they stop changing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import RUN_KEY_TAG

from assets.partitions import SUBMISSION_JOB
from assets.selection import selection_of
from knockem_dagster.assay_runs.errands import ERRANDS
from knockem_dagster.definitions import build_definitions
from knockem_dagster.jobs import errands
from knockem_dagster.jobs.errands import run_errands
from knockem_dagster.mapping_file import MOST_BYTES
from knockem_dagster.records.submissions import State
from knockem_dagster.stores.declarations import MAX_DOCUMENT_BYTES
from knockem_dagster.stores.documents import Patch
from resources.names import SUBMISSION_TAG, SUBMISSIONS, USER_TAG
from sensors import arrivals
from sensors.arrivals import new_submissions, take_in, uploaded_submissions
from tests.services.organisms import serving, write_organism
from tests.services.platforms import (
    USER,
    documents_in,
    faults_shown,
    platform_of,
    put_upload,
    study,
    submitted,
    take_in_uploads,
    tick,
)
from tests.services.queues import running_queue
from tests.services.submissions import a_submission


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_organism(tmp_path / "organisms" / "tiny", {"knockem_serve": serving("pass")})
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    return tmp_path / "home"


def ticked(
    sensor: dg.SensorDefinition, home: Path, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult:
    result = tick(sensor, home, instance, cursor=cursor)
    assert isinstance(result, dg.SensorResult)
    return result


def test_accepted_submission_gets_one_run_and_its_partition(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    result = ticked(new_submissions, home, instance)
    [request] = result.run_requests or []
    [added] = result.dynamic_partitions_requests or []
    assert added == dg.DynamicPartitionsDefinition(name=SUBMISSIONS).build_add_request([id])
    assert request.partition_key == id
    assert request.tags == {SUBMISSION_TAG: id, USER_TAG: USER}
    platform = platform_of(home)
    assert request.asset_selection == selection_of(platform.records.submissions.get(id).assay_types)
    platform.close()


def test_asking_again_has_the_same_key_so_that_nothing_runs_twice(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    first = ticked(new_submissions, home, instance)
    instance.add_dynamic_partitions(SUBMISSIONS, [id])
    second = ticked(new_submissions, home, instance)
    assert [each.run_key for each in first.run_requests or []] == [each.run_key for each in second.run_requests or []]
    assert not second.dynamic_partitions_requests
    platform = platform_of(home)
    platform.records.submissions.patch(id, Patch(increment={"interruptions": 1}))
    platform.close()
    third = ticked(new_submissions, home, instance)
    assert (third.run_requests or [])[0].run_key != (first.run_requests or [])[0].run_key


def test_every_accepted_submission_has_its_turn_however_many_wait(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.arrivals.MOST_LOOKED_AT", 4)
    monkeypatch.setattr("sensors.arrivals.MOST_REQUESTS", 3)
    platform = platform_of(home)
    ids = {f"{number:08x}" for number in range(10)}
    for id in ids:
        platform.records.submissions.add(a_submission().model_copy(update={"id": id}))
    platform.close()
    job = build_definitions().resolve_job_def(SUBMISSION_JOB)
    asked: list[str | None] = []
    cursor = None
    for _ in range(5):
        result = ticked(new_submissions, home, instance, cursor)
        cursor = result.cursor
        requests = result.run_requests or []
        assert len(requests) <= 3
        asked.extend(request.partition_key for request in requests)
        for request in requests:  # the queued run that the daemon makes of it: the submission stays accepted
            instance.create_run_for_job(job, tags={RUN_KEY_TAG: str(request.run_key), **request.tags})
    assert len(asked) == len(ids)
    assert set(asked) == ids


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELED])
def test_submission_that_is_over_gets_no_run(home: Path, instance: dg.DagsterInstance, state: State) -> None:
    id = submitted(home, study())
    platform = platform_of(home)
    platform.records.submissions.move(id, state, sources=(State.ACCEPTED,))
    platform.close()
    assert not ticked(new_submissions, home, instance).run_requests


def test_upload_that_still_changes_is_left_alone(home: Path, instance: dg.DagsterInstance) -> None:
    whole = json.dumps(study()).encode()
    cursor = None
    for written in (10, 60, len(whole)):
        put_upload(home, whole[:written])
        result = ticked(uploaded_submissions, home, instance, cursor)
        assert not result.asset_events
        assert documents_in(home) == {}
        cursor = result.cursor
    result = ticked(uploaded_submissions, home, instance, cursor)
    [event] = result.asset_events
    platform = platform_of(home)
    [submission] = platform.records.submissions.find({})
    platform.close()
    assert submission.state is State.ACCEPTED
    assert event.metadata["submission"].value == submission.id  # type: ignore[union-attr]
    assert not ticked(uploaded_submissions, home, instance, result.cursor).asset_events
    [request] = ticked(new_submissions, home, instance).run_requests or []
    assert request.partition_key == submission.id


def test_refused_upload_shows_each_fault_and_a_corrected_one_is_read_anew(
    home: Path, instance: dg.DagsterInstance
) -> None:
    key = put_upload(home, study(maxActive=0, userEmail="nobody"))
    [event] = take_in_uploads(home, instance)
    assert event.asset_key == dg.AssetKey("submission_uploads")
    assert "REFUSED: 2 faults" in (event.description or "")
    assert [fault.partition(":")[0] for fault in faults_shown(event)] == ["maxActive", "userEmail"]
    assert "Correct the file" in str(event.metadata["what to do"].value)
    platform = platform_of(home)
    [upload] = platform.records.uploads.find({})
    platform.close()
    assert (upload.key, upload.submission_id) == (key, None)
    assert [(fault.field, fault.value) for fault in upload.faults] == [("maxActive", "0"), ("userEmail", '"nobody"')]
    put_upload(home, study())
    [event] = take_in_uploads(home, instance)
    assert "was accepted" in (event.description or "")
    assert documents_in(home)["submissions"] == 1


def test_same_content_put_again_is_refused_as_a_duplicate(home: Path, instance: dg.DagsterInstance) -> None:
    put_upload(home, study(), name="first.json")
    [accepted] = take_in_uploads(home, instance)
    put_upload(home, study(), name="second.json")
    events = take_in_uploads(home, instance)
    refused = next(event for event in events if "REFUSED" in (event.description or ""))
    assert str(accepted.metadata["submission"].value) in faults_shown(refused)[0]
    assert documents_in(home)["submissions"] == 1


def test_upload_interrupted_before_its_submission_was_stored_is_taken_in_again(home: Path) -> None:
    platform = platform_of(home)
    key = put_upload(home, study())
    upload = take_in(platform, key, version="1")
    assert upload.submission_id is not None
    platform.records.documents.delete("submissions", {"_id": upload.submission_id})
    again = take_in(platform, key, version="1")
    assert again.submission_id == upload.submission_id
    assert again.faults == ()
    assert platform.records.submissions.find_one(upload.submission_id) is not None
    platform.close()


def test_taking_in_twice_changes_nothing(home: Path) -> None:
    platform = platform_of(home)
    key = put_upload(home, study())
    assert take_in(platform, key, version="1") == take_in(platform, key, version="1")
    assert documents_in(home)["submissions"] == 1
    platform.close()


def test_huge_upload_is_refused(home: Path, instance: dg.DagsterInstance) -> None:
    put_upload(home, b"x" * (MOST_BYTES + 2))
    [event] = take_in_uploads(home, instance)
    assert faults_shown(event) == [f"(file): more than {MOST_BYTES} bytes is not allowed; a smaller file is"]


def test_genome_too_large_to_be_stored_is_refused_once(home: Path, instance: dg.DagsterInstance) -> None:
    genome = "\u00e9" * 7_990_000 + "\n"
    put_upload(home, json.dumps(study(genome=genome), ensure_ascii=False).encode())
    seen = ticked(uploaded_submissions, home, instance)
    taken = ticked(uploaded_submissions, home, instance, seen.cursor)
    [event] = taken.asset_events
    assert "was accepted" in (event.description or "")
    put_upload(home, json.dumps(study(genome="1\n" * 5_400_000, seed=2), ensure_ascii=False).encode())
    seen = ticked(uploaded_submissions, home, instance, taken.cursor)
    taken = ticked(uploaded_submissions, home, instance, seen.cursor)
    [event] = taken.asset_events
    assert isinstance(event, dg.AssetMaterialization)
    [fault] = faults_shown(event)
    assert fault.startswith("genome: ")
    assert str(MAX_DOCUMENT_BYTES) in fault
    assert not ticked(uploaded_submissions, home, instance, taken.cursor).asset_events


def test_upload_waits_for_an_engine_that_is_away(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home}/no.sock")
    put_upload(home, study(containerRuntime="docker"))
    cursor = ticked(uploaded_submissions, home, instance).cursor
    for _ in range(2):
        result = ticked(uploaded_submissions, home, instance, cursor)
        assert not result.asset_events
        assert result.skip_reason is not None
        assert "tried again at the next tick: there is no container engine" in (result.skip_reason.skip_message or "")
        cursor = result.cursor
    assert documents_in(home) == {}
    put_upload(home, study(containerRuntime="process"))
    [event] = take_in_uploads(home, instance)
    assert "was accepted" in (event.description or "")


def test_slow_competitions_do_not_refuse_an_upload(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.arrivals.EXAMINING_SECONDS", 3.0)
    write_organism(home.parent / "organisms" / "slow", {"knockem_serve": serving("time.sleep(600)")})
    put_upload(home, study(containerImage="slow"))
    [event] = take_in_uploads(home, instance)
    assert "was accepted" in (event.description or "")


def test_hanging_count_refuses_an_upload_in_time(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.arrivals.EXAMINING_SECONDS", 0.5)
    write_organism(home.parent / "organisms" / "stuck", {"knockem_count_sites": "#!/bin/sh\nexec sleep 600\n"})
    put_upload(home, study(containerImage="stuck"))
    [event] = take_in_uploads(home, instance)
    [fault] = faults_shown(event)
    assert fault.startswith("genome: ")
    assert "within 0.5 s" in fault


def test_uploads_beyond_the_time_of_a_tick_wait_for_the_next(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        put_upload(home, study(maxActive=0, seed=number), name=f"{number}.json")
    seen = ticked(uploaded_submissions, home, instance)
    monkeypatch.setattr("sensors.arrivals.TICK_SECONDS", 0.0)
    assert not ticked(uploaded_submissions, home, instance, seen.cursor).asset_events
    monkeypatch.setattr("sensors.arrivals.TICK_SECONDS", 15.0)
    assert len(ticked(uploaded_submissions, home, instance, seen.cursor).asset_events) == 3


def test_upload_waits_for_workers_that_have_no_time(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(errands, "LOOK_SECONDS", 0.1)
    put_upload(home, study())
    cursor = ticked(uploaded_submissions, home, instance).cursor
    with running_queue(home), monkeypatch.context() as patch:
        patch.setenv("KNOCKEM_LEAVE_TO_WORKERS", "true")
        for _ in range(arrivals.MOST_SLOW_TRIES + 1):
            result = ticked(uploaded_submissions, home, instance, cursor)
            cursor = result.cursor
            assert not result.asset_events and result.skip_reason is not None
            assert "had time for this" in (result.skip_reason.skip_message or "")
    assert documents_in(home) == {}


def test_upload_that_is_too_slow_for_workers_lets_others_go_first_and_is_refused(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "EXAMINING_SECONDS", 3.0)
    monkeypatch.setattr(arrivals, "TICK_SECONDS", 2.0)
    monkeypatch.setattr(errands, "LOOK_SECONDS", 0.1)
    write_organism(home.parent / "organisms" / "stuck", {"knockem_count_sites": "#!/bin/sh\nexec sleep 600\n"})
    put_upload(home, study(containerImage="stuck"), name="first.json")
    put_upload(home, study(), name="second.json")
    told: list[str] = []
    with running_queue(home), monkeypatch.context() as patch:
        patch.setenv("KNOCKEM_LEAVE_TO_WORKERS", "true")
        cursor = ticked(uploaded_submissions, home, instance).cursor
        with errands_run(home):
            for _ in range(arrivals.MOST_SLOW_TRIES + 1):
                result = ticked(uploaded_submissions, home, instance, cursor)
                cursor = result.cursor
                for event in result.asset_events:
                    assert isinstance(event, dg.AssetMaterialization)
                    told.append((event.description or "") + "".join(map(str, event.metadata.values())))
    [accepted, refused] = told
    assert "second.json was accepted" in accepted
    assert "first.json was REFUSED" in refused and "within 3 s" in refused
    assert not ticked(uploaded_submissions, home, instance, cursor).asset_events


@contextmanager
def errands_run(home: Path) -> Iterator[None]:
    """Run errands beside, as a worker does."""
    platform, over, loop = platform_of(home), asyncio.Event(), asyncio.new_event_loop()
    running = run_errands(platform, ERRANDS, runtimes={"process"}, over=over, say=print)
    with ThreadPoolExecutor(1) as threads:
        worker = threads.submit(loop.run_until_complete, running)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(over.set)
            worker.result()
            loop.close()
            platform.close()
