"""Organisms that misbehave only when a submission runs: what is lost is recorded and told, and nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from knockem_dagster.assay_runs.tables import read_table, report_key
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.submissions import State, SubmissionRecord
from tests.services.organisms import EAT_MEMORY, FLOOD, NUM_SITES, serving, write_organism
from tests.services.platforms import platform_of, run_in_dagster, study, submitted

TROUBLED_SITE = 5
NAN = "answer['numBeta'] = float('nan')"
TROUBLES = [
    pytest.param(NAN, Outcome.BAD_RESULT, "finite", id="NaN"),
    pytest.param("time.sleep(600)", Outcome.TIMED_OUT, "no answer within 1 s", id="hangs"),
    pytest.param(EAT_MEMORY, Outcome.LOST, "grew past its memory", id="memory"),
    pytest.param(
        f"subprocess.run([sys.executable, '-c', {EAT_MEMORY!r}])",
        Outcome.LOST,
        "grew past its memory",
        id="memory of a child",
        marks=pytest.mark.slow,
    ),
    pytest.param(FLOOD, Outcome.LOST, "wrote more than", id="1 GB of output", marks=pytest.mark.slow),
    pytest.param("os._exit(3)", Outcome.LOST, "the container ended", id="dies", marks=pytest.mark.slow),
    pytest.param(
        "answer = {'error': 'no such luck'}", Outcome.FAILED, "no such luck", id="fails", marks=pytest.mark.slow
    ),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bundled = Path(__file__).parents[2] / "deploy" / "organisms"
    (tmp_path / "organisms").mkdir()
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KNOCKEM_ORGANISMS", f"{tmp_path / 'organisms'}:{bundled}")
    return tmp_path / "home"


def run(home: Path, content: dict[str, object]) -> tuple[Platform, SubmissionRecord, bool]:
    """Run a submission in Dagster; return the stores, the submission as it ended, and whether the run succeeded."""
    id = submitted(home, content)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_in_dagster(home, instance, id)
    platform = platform_of(home)
    return platform, platform.records.submissions.get(id), result.success


def outcomes(platform: Platform) -> Counter[Outcome]:
    return Counter(ended.outcome for ended in platform.records.attempt_results.find({}))


def assert_consistent(platform: Platform) -> None:
    """Every result has the one attempt that brought it, and every attempt has ended."""
    records = platform.records
    ended = {each.id: each for each in records.attempt_results.find({})}
    assert {attempt.id for attempt in records.attempts.find({})} == set(ended)
    results = {each.id: each for each in records.competition_results.find({})}
    succeeded = {each.competition_id for each in ended.values() if each.outcome is Outcome.SUCCEEDED}
    assert set(results) == succeeded
    assert all(ended[each.competition_attempt_id].result == each.result for each in results.values())
    assert {each.id for each in records.competitions.find({})} >= set(results)


@pytest.mark.parametrize(("trouble", "outcome", "words"), TROUBLES)
def test_submission_fails_with_the_reason_when_a_site_cannot_be_tested(
    home: Path, tmp_path: Path, trouble: str, outcome: Outcome, words: str
) -> None:
    write_organism(tmp_path / "organisms" / "tiny", {"knockem_serve": serving(trouble, at=(TROUBLED_SITE,))})
    changes = {"toleratedUntested": 0, "maxFail": 2, "timeoutSeconds": 1, "limits": {"memoryMiB": 64}}
    platform, submission, succeeded = run(home, study(**changes))
    assert not succeeded
    assert submission.state is State.FAILED
    assert f"1 of {NUM_SITES} competitions" in (submission.reason or "")
    assert words in (submission.reason or "")
    assert "mend the organism" in (submission.reason or "")
    assert submission.lease.owner == ""
    assert outcomes(platform)[outcome] >= 2
    assert outcomes(platform)[Outcome.SUCCEEDED] == 100 + NUM_SITES - 1
    assert submission.counters.submission_num_completed_competitions == 100 + NUM_SITES
    assert submission.untestable_competitions == 1
    assert_consistent(platform)
    finished = {each.assay_type for each in platform.records.assay_results.find({})}
    assert finished == {AssayType.NULLDIST}
    assert [stored.key for stored in platform.objects.list() if "screen" in stored.key] == []
    platform.close()


def test_submission_completes_when_what_is_lost_is_tolerated(home: Path, tmp_path: Path) -> None:
    write_organism(tmp_path / "organisms" / "tiny", {"knockem_serve": serving(NAN, at=(TROUBLED_SITE,))})
    platform, submission, succeeded = run(home, study(toleratedUntested=0.1, maxFail=2))
    assert succeeded
    assert submission.state is State.COMPLETED
    assert submission.untestable_competitions == 1
    assert outcomes(platform)[Outcome.BAD_RESULT] == 2
    assert_consistent(platform)
    page = platform.objects.get(report_key(submission.id)).decode()
    told = first_screen(page)
    assert f"{100 + NUM_SITES} competitions were asked for" in told
    assert "; 1 (" in told
    assert "gave no answer" in told
    assert f"1 site could not be tested ({TROUBLED_SITE})" in told
    platform.close()


def test_beneficial_knockout_is_reported(home: Path) -> None:
    genome = {"sites": 20, "effects": {"3": -2.0, "7": 1.5}}
    assays = ["nulldist", "screenCritical", "skeletonization", "jackknifeKnockout"]
    environment = {"EXPLICIT_MODE": "exact"}
    platform, submission, succeeded = run(
        home,
        study(containerImage="explicit", genome=json.dumps(genome), assayTypes=assays, containerEnv=environment),
    )
    assert succeeded
    assert submission.state is State.COMPLETED
    found = {each.assay_type: each.result for each in platform.records.assay_results.find({})}
    assert found[AssayType.SCREEN_CRITICAL]["beneficial knockouts"] == 1
    assert found[AssayType.SKELETONIZATION]["beneficial deletions"] >= 3
    sites = read_table(platform.objects, submission.id, "sites")
    assert sites is not None
    assert sites.set_index("site")["effect"][3] < -1
    page = platform.objects.get(report_key(submission.id)).decode()
    assert "gained from the loss of 1 site (3)" in page
    platform.close()


def test_unruly_organism_finishes_and_the_first_screen_tells_what_was_lost(home: Path) -> None:
    genome = {"sites": 30, "effects": {"3": 1.5, "7": 0.6, "8": 0.7}, "sets": [{"sites": [11, 12], "penalty": 1.2}]}
    platform, submission, succeeded = run(
        home,
        study(
            containerImage="unruly",
            genome=json.dumps(genome),
            assayTypes=["nulldist", "screenCritical", "skeletonization", "jackknifeKnockout", "skeletonMarkRecapture"],
            timeoutSeconds=10,
        ),
    )
    assert succeeded, submission.reason
    assert submission.state is State.COMPLETED
    assert_consistent(platform)
    ended = outcomes(platform)
    failed = sum(ended.values()) - ended[Outcome.SUCCEEDED]
    assert ended[Outcome.FAILED]
    assert failed
    page = platform.objects.get(report_key(submission.id)).decode()
    told = first_screen(page)
    assert f"{failed:,} of {sum(ended.values()):,} attempts" in told
    assert "of the workers" in told
    platform.close()


def first_screen(page: str) -> str:
    """Return the sentences of a report's first screen, one after the other."""
    found = page.partition('id="found"')[2].partition("</ol>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", found).split())
