"""Extending a study that is over: nothing recorded is run again, and what cannot be asked for is refused by name."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from knockem_dagster.assay_runs import control
from knockem_dagster.assay_runs.extension import Extension, extend
from knockem_dagster.assay_runs.tables import read_table
from knockem_dagster.errors import InvalidInput, SubmissionBusy
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType, assay_id
from knockem_dagster.records.submissions import LeaseValue, State, SubmissionRecord
from knockem_dagster.stores.documents import Patch
from tests.services.noisy_organism import GENOME, MOODY, NAME, carry_through, write_noisy_organisms
from tests.services.platforms import platform_of, study, submitted
from tests.services.submissions import a_submission, store_with_competitions

ROOT = Path(__file__).parents[2]
WEIGHED = {"assayTypes": ["weighing", "setEnumeration"]}
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module", autouse=True)
def organisms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("organisms")
    write_noisy_organisms(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOCKEM_ORGANISMS", f"{folder}{os.pathsep}{ROOT / 'deploy' / 'organisms'}")
        yield


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = platform_of(tmp_path)
    yield opened
    opened.close()


def completed(platform: Platform, **options: Any) -> SubmissionRecord:
    """Submit a study of the noisy organism and run it to its end."""
    content = study(**{"genome": GENOME, "containerImage": NAME, **options})
    return carry_through(platform, submitted(platform.settings.home, content))


def extended(platform: Platform, submission: SubmissionRecord, **options: Any) -> SubmissionRecord:
    """Extend a study and run it to its end."""
    return carry_through(platform, extend(platform, submission, Extension(**options)).id)


def counts(platform: Platform, submission: SubmissionRecord) -> dict[str, int]:
    """Count competitions, answers and attempts."""
    names = ("competitions", "competitionResults", "competitionAttempts")
    return {name: platform.records.documents.count(name, {"submissionId": submission.id}) for name in names}


def ids(platform: Platform, collection: str) -> set[str]:
    return {document["_id"] for document in platform.records.documents.find(collection, {})}


def table(platform: Platform, submission: SubmissionRecord, name: str) -> pd.DataFrame:
    found = read_table(platform.objects, submission.id, name)
    assert found is not None
    return found


def tables(platform: Platform, submission: SubmissionRecord) -> dict[str, bytes]:
    """Return every table but that of the study, which names the submission."""
    prefix = f"submissions/{submission.id}/tables/"
    keys = [stored.key for stored in platform.objects.list(prefix)]
    return {key.removeprefix(prefix): platform.objects.get(key) for key in keys if not key.endswith("study.parquet")}


def assert_counted(platform: Platform, submission: SubmissionRecord) -> int:
    """Every competition has one attempt and one answer, and is counted once; return their number."""
    [number] = set(counts(platform, submission).values())
    assert {attempt.number for attempt in platform.records.attempts.find({"submissionId": submission.id})} == {1}
    results = list(platform.records.assay_results.find({"submissionId": submission.id}))
    assert sum(result.num_competitions for result in results) == number
    for result in results:
        where = {"submissionId": submission.id, "assayId": result.id}
        assert platform.records.documents.count("competitions", where) == result.num_competitions
        assert result.num_untestable == 0
    assert submission.counters.submission_num_completed_competitions == number
    assert submission.state is State.COMPLETED
    return number


def test_finer_resolution_reuses_every_competition_and_ends_like_a_study_that_asked_twice(platform: Platform) -> None:
    coarse = completed(platform, **WEIGHED, resolution=0.8)
    first, asked = assert_counted(platform, coarse), ids(platform, "competitions")
    errors = table(platform, coarse, "weights")["error"]
    fine = extended(platform, coarse, resolution=0.14)
    assert fine.resolution == 0.14
    assert [stage.resolution for stage in fine.stages] == [0.8]
    assert assert_counted(platform, fine) > first
    assert asked < ids(platform, "competitions")
    assert table(platform, fine, "weights")["error"].max() < 0.9 * errors.max()
    assert set(table(platform, fine, "sets")["site"]) == {5, 20}
    facts = table(platform, fine, "study").set_index("name")["value"]
    assert facts["stage 1: options"] == "resolution 0.8, budget no limit, skeletons 3"
    assert float(facts["option: resolution"]) == 0.14


def test_budgets_hold_over_all_stages_and_weighing_grows_with_them(platform: Platform) -> None:
    submission = completed(platform, **WEIGHED, budget=300)
    number = assert_counted(platform, submission)
    assert number <= 300
    for budget in (700, 1600):
        before, asked = table(platform, submission, "weights")["error"].median(), ids(platform, "competitions")
        submission = extended(platform, submission, budget=budget)
        assert number < (number := assert_counted(platform, submission)) <= budget
        assert asked < ids(platform, "competitions")
        assert table(platform, submission, "weights")["error"].median() < before
    assert [stage.budget for stage in submission.stages] == [300, 700]


def test_more_skeletons_keep_those_that_are_there(platform: Platform) -> None:
    submission = completed(platform, assayTypes=["skeletonMarkRecapture", "prefixSkeletons"], skeletons=2)
    kept, first = table(platform, submission, "skeletons"), assert_counted(platform, submission)
    more = extended(platform, submission, skeletons=4)
    now = table(platform, more, "skeletons")
    assert now["skeleton"].nunique() == 4
    assert now[now["skeleton"] < 2].equals(kept)
    assert assert_counted(platform, more) > first
    derived = platform.records.assay_results.get(assay_id(more.id, AssayType.SKELETON_MARK_RECAPTURE))
    assert derived.stage == 1


def test_what_an_extension_does_not_touch_is_read_back(platform: Platform) -> None:
    both = {"assayTypes": ["weighing", "skeletonization"], "resolution": 0.8, "skeletons": 2}
    submission = completed(platform, **both)
    weighed = platform.records.assay_results.get(assay_id(submission.id, AssayType.WEIGHING))
    more = extended(platform, submission, skeletons=3)
    assert platform.records.assay_results.get(weighed.id) == weighed
    finer = extended(platform, more, resolution=0.14)
    assert_counted(platform, finer)
    assert platform.records.assay_results.get(weighed.id).stage == 2
    assert platform.records.assay_results.get(assay_id(submission.id, AssayType.SKELETONIZATION)).stage == 1


def test_two_extensions_end_like_one_study_however_they_are_interrupted(platform: Platform, tmp_path: Path) -> None:
    options = {**WEIGHED, "resolution": 0.8}
    undisturbed = extended(platform, completed(platform, **options), resolution=0.1)
    assert_counted(platform, undisturbed)
    expected = tables(platform, undisturbed)

    elsewhere = platform_of(tmp_path / "elsewhere")
    submission = completed(elsewhere, **options)
    before = counts(elsewhere, submission)["competitionResults"]
    extend(elsewhere, submission, Extension(resolution=0.1))
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.services.noisy_organism", str(elsewhere.settings.home), submission.id], cwd=ROOT
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while counts(elsewhere, submission)["competitionResults"] <= before:
        assert run.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
    run.send_signal(signal.SIGKILL)
    run.wait()
    killed = elsewhere.records.submissions.get(submission.id)
    assert killed.state is State.RUNNING
    assert counts(elsewhere, submission)["competitionResults"] < counts(platform, undisturbed)["competitionResults"]
    elsewhere.records.submissions.patch(submission.id, Patch(set={"lease": {"owner": "", "until": 0.0}}))
    ended = carry_through(elsewhere, submission.id)
    assert ended.state is State.COMPLETED
    assert tables(elsewhere, ended) == expected
    assert counts(elsewhere, ended)["competitions"] == counts(platform, undisturbed)["competitions"]
    elsewhere.close()


def test_competitions_given_up_stay_so_when_what_is_done_is_asked_again(platform: Platform) -> None:
    submission = completed(platform, **WEIGHED, containerImage=MOODY, maxFail=1, resolution=0.8)
    found, asked = counts(platform, submission), ids(platform, "competitions")
    assert found["competitionResults"] < found["competitions"] == found["competitionAttempts"]
    finer = extended(platform, submission, resolution=0.12)
    now = counts(platform, finer)
    assert asked < ids(platform, "competitions")
    assert found["competitions"] < now["competitions"] == now["competitionAttempts"]
    results = list(platform.records.assay_results.find({"submissionId": finer.id}))
    assert sum(result.num_competitions for result in results) == now["competitions"]
    untestable = now["competitions"] - now["competitionResults"]
    assert sum(result.num_untestable for result in results) == untestable == finer.untestable_competitions


def test_an_exact_study_whose_budget_ended_goes_on_where_it_was(platform: Platform) -> None:
    genome = (ROOT / "deploy" / "organisms" / "explicit" / "demo_genome.json").read_text()
    exact = {"genome": genome, "containerImage": "explicit", "containerEnv": {"EXPLICIT_MODE": "exact"}, **WEIGHED}
    submission = completed(platform, **exact, budget=1200)
    first = assert_counted(platform, submission)
    assert first <= 1200
    larger = extended(platform, submission, budget=10_000)
    assert first < assert_counted(platform, larger) <= 10_000
    whole = completed(platform, **exact)
    assert tables(platform, larger)["sets.parquet"] == tables(platform, whole)["sets.parquet"]
    with pytest.raises(InvalidInput, match="without noise"):
        extend(platform, whole, Extension(resolution=0.01))


def refusal(platform: Platform, submission: SubmissionRecord, **options: Any) -> str:
    """Return why an extension is refused; nothing of the submission changes."""
    platform.records.submissions.add(submission)
    with pytest.raises(InvalidInput) as refused:
        extend(platform, submission, Extension(**options))
    assert platform.records.submissions.get(submission.id) == submission
    [fault] = refused.value.faults
    assert submission.id in str(refused.value)
    return str(fault)


WEIGHING = {"state": State.COMPLETED, "assay_types": ["weighing", "prefixSkeletons"], "resolution": 0.2, "skeletons": 5}


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({}, {}, "extension: none is not allowed; at least one of a finer resolution"),
        ({}, {"resolution": 0.2}, "resolution: 0.2 is not allowed; the study has 0.2 .* a finer one, from 0.01, is"),
        ({}, {"resolution": 0.001}, "a finer one, from 0.01, is"),
        ({"budget": 900}, {"resolution": 0.1}, "as finely as its budget of 900 allows; a larger budget is"),
        ({"assay_types": ["nulldist"]}, {"resolution": 0.1}, "weighs no sites; a new submission with weighing"),
        ({"stated_unit": 0.25}, {"resolution": 0.1}, "the organism is without noise"),
        ({}, {"budget": 900}, "the study has no budget, so there is nothing to enlarge"),
        ({"budget": 900}, {"budget": 900}, "the study has 900 .* a larger whole number"),
        ({"assay_types": ["screenCritical"], "budget": 90}, {"budget": 900}, "no assay that goes by a budget"),
        ({}, {"skeletons": 5}, "the study has 5 .* a larger whole number, up to 50, is"),
        ({}, {"skeletons": 51}, "up to 50, is"),
        ({"assay_types": ["weighing"]}, {"skeletons": 9}, "makes no skeletons; a new submission with prefixSkeletons"),
    ],
)
def test_what_cannot_be_extended_is_refused_by_name(
    platform: Platform, changes: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    assert re.search(told, refusal(platform, a_submission(**{**WEIGHING, **changes}), **options))


def test_all_faults_are_told_at_once(platform: Platform) -> None:
    submission = a_submission(**WEIGHING)
    platform.records.submissions.add(submission)
    with pytest.raises(InvalidInput) as refused:
        extend(platform, submission, Extension(resolution=0.3, budget=10, skeletons=1))
    assert [fault.field for fault in refused.value.faults] == ["resolution", "budget", "skeletons"]


@pytest.mark.parametrize("state", [State.ACCEPTED, State.RUNNING])
def test_a_study_that_is_not_over_is_not_extended(platform: Platform, state: State) -> None:
    submission = a_submission(**{**WEIGHING, "state": state})
    platform.records.submissions.add(submission)
    with pytest.raises(SubmissionBusy, match="knockem cancel"):
        extend(platform, submission, Extension(resolution=0.1))


def test_a_study_whose_run_is_just_ending_is_not_extended_yet(platform: Platform) -> None:
    submission = a_submission(**WEIGHING, lease=LeaseValue(owner="a run", until=1e12))
    platform.records.submissions.add(submission)
    with pytest.raises(SubmissionBusy, match="in a moment"):
        extend(platform, submission, Extension(resolution=0.1))


def test_of_two_extensions_of_what_somebody_saw_one_is_refused(platform: Platform) -> None:
    seen = a_submission(**WEIGHING)
    platform.records.submissions.add(seen)
    assert extend(platform, seen, Extension(skeletons=6)).stage == 1
    with pytest.raises(SubmissionBusy):
        extend(platform, seen, Extension(skeletons=7))
    assert platform.records.submissions.get(seen.id).skeletons == 6


def test_an_extended_study_is_accepted_again_and_forgets_how_it_ended(platform: Platform) -> None:
    submission = a_submission(**{**WEIGHING, "state": State.FAILED}, reason="too many were untestable", vain_runs=2)
    platform.records.submissions.add(submission)
    again = extend(platform, submission, Extension(resolution=0.1, skeletons=8))
    assert (again.state, again.reason, again.finished, again.vain_runs) == (State.ACCEPTED, None, None, 0)
    assert (again.resolution, again.skeletons, again.interruptions) == (0.1, 8, 1)
    assert again.resumed is not None
    assert control.resume(platform, again).stages == again.stages


def test_a_record_of_before_stages_were_kept_opens_and_is_extended(platform: Platform) -> None:
    submission = a_submission(**WEIGHING)
    store_with_competitions(platform.records, submission, answered=3, failed=0)
    document = platform.records.submissions.get(submission.id).to_document()
    assert document.pop("stages") == []
    platform.records.documents.delete("submissions", {"_id": submission.id})
    platform.records.documents.put_new("submissions", document)
    old = platform.records.submissions.get(submission.id)
    assert (old.stage, old.weighing) == (0, None)
    assert [stage.weighing for stage in extend(platform, old, Extension(resolution=0.1)).stages] == [None]
