"""Whatever happens to workers and to the queue's server: jobs are recorded once, and no cap is exceeded.

Every worker is a process of its own, the server is real, and what ran when is told by the jobs themselves.
KNOCKEM_TEST_FAULTS sets the scale of the campaign (0.015; the full campaign is 1), KNOCKEM_TEST_SEED what it does.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.timed_jobs import a_workflow, most_at_once, read_log, timed_job
from benchmarks.workplace import Workplace, until
from knockem_dagster.assay_runs.compete import INTERRUPTIONS_ALLOWED, LOSSES_ALLOWED
from knockem_dagster.assay_runs.intake import examine, store
from knockem_dagster.assay_runs.submission_file import SubmissionFile
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.records.jobs import JobRecord, WorkflowRecord
from knockem_dagster.records.record import new_id
from tests.services.organisms import FAIR, GENOME, serving, write_organism

LEASE_SECONDS = 2.0
AWAY_SECONDS = 8.0
CAMPAIGN_SCALE = float(os.environ.get("KNOCKEM_TEST_FAULTS", "0.015"))
CAMPAIGN_SEED = int(os.environ.get("KNOCKEM_TEST_SEED", "1"))
BACK_SECONDS = 10.0

pytestmark = [pytest.mark.slow]


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    """A home with a running queue server and no worker."""
    with Workplace(tmp_path / "work", lease_seconds=LEASE_SECONDS) as opened:
        opened.start_server()
        yield opened
        assert_nothing_is_left(opened)


def assert_nothing_is_left(workplace: Workplace) -> None:
    """End the workers that are there, and check that no process of theirs outlives them."""
    for worker in workplace.workers:
        until(lambda worker=worker: worker.name or worker.process.poll() is not None, "it to listen to signals")
        if worker.process.poll() is None:
            assert worker.end() == 0, worker.said
    until(lambda: not workplace.processes(), "all processes to be gone", seconds=10)


def jobs_of(workplace: Workplace, workflow: WorkflowRecord, number: int, **options: object) -> list[JobRecord]:
    return [timed_job(workplace.folder, workflow, **options) for _ in range(number)]  # type: ignore[arg-type]


def shell_job(workflow: WorkflowRecord, script: str) -> JobRecord:
    return JobRecord(
        id=new_id(), workflow_id=workflow.id, name="sh", command=("/bin/sh", "-c", script), keep_output=True
    )


def all_are_final(workplace: Workplace, workflow: WorkflowRecord, number: int) -> Callable[[], bool]:
    return lambda: len(workplace.final_results(workflow.id)) == number


def fake_clock() -> str:
    """Return the library that fakes a process's clock; skips where there is none."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    return str(found[0])


RUN = """
import sys
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.errors import SubmissionBusy
from knockem_dagster.knockout.competitions import Competition
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayType
from knockem_dagster.settings import load_settings

async def ask(compete):
    nothing = KnockoutSet.none(12)
    knockouts = [KnockoutSet.of([number % 12], 12) for number in range(int(sys.argv[2]))]
    return await compete([Competition(nothing, each, "null", number) for number, each in enumerate(knockouts)])

try:
    with SubmissionRun(Platform(load_settings()), sys.argv[1], name="run") as run:
        for answer in run.perform(AssayType.NULLDIST, ask):
            print(answer)
except SubmissionBusy:
    sys.exit(75)
"""
"""A run of a submission whose assay asks for a number of competitions, and no more."""


def submit(workplace: Workplace, organism: str, **options: object) -> str:
    """Store a submission of a genome of 12 sites; return its id."""
    file = SubmissionFile(
        genome=GENOME,
        container_image=organism,
        user_email="someone@example.org",
        container_runtime="process",
        **options,
    )
    return store(workplace.platform, asyncio.run(examine(workplace.platform, file))).id


def run_of(workplace: Workplace, submission: str, number: int) -> subprocess.Popen[str]:
    """Start a run of a submission."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, submission, str(number)],
        env=workplace.environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Callable[..., Workplace]]:
    """Make a home with an organism, `small`, made of a few commands; `close` is called at the end."""
    opened: list[Workplace] = []

    def make(**commands: str) -> Workplace:
        write_organism(tmp_path / "organisms" / "small", commands)
        organisms = {"KNOCKEM_ORGANISMS": str(tmp_path / "organisms")}
        opened.append(Workplace(tmp_path / "work", lease_seconds=1.0, **organisms))
        return opened[-1]

    yield make
    for each in opened:
        try:
            assert_nothing_is_left(each)
        finally:
            each.close()


def test_clocks_an_hour_off_change_nothing(workplace: Workplace) -> None:
    library = fake_clock()
    workflow = a_workflow("timely", max_active=10)
    jobs = jobs_of(workplace, workflow, 120, seconds=0.1)
    workplace.submit(workflow, jobs)
    workers = [workplace.start_worker("--cpus", "1", LD_PRELOAD=library, FAKETIME=offset) for offset in ("+1h", "-1h")]
    workers.append(workplace.start_worker("--cpus", "1"))
    until(all_are_final(workplace, workflow, 120), "all jobs")
    results = workplace.results(workflow.id)
    assert {result.outcome for result in results} == {Outcome.SUCCEEDED}
    assert {result.compute_node for result in results} == {worker.name for worker in workers}
    assert len(results) == len(read_log(workplace.folder).executions) == 120
    assert not any("is gone" in worker.said for worker in workers)


def test_a_worker_paused_beyond_its_lease_records_nothing_and_goes_on(workplace: Workplace) -> None:
    workflow = a_workflow("paused", max_active=1)
    [job] = jobs_of(workplace, workflow, 1, seconds=1000.0, seconds_again=0.5)
    workplace.submit(workflow, [job])
    paused = workplace.start_worker("--cpus", "1")
    until(lambda: read_log(workplace.folder).executions, "the job to start")
    paused.signal(signal.SIGSTOP)
    other = workplace.start_worker("--cpus", "1")
    until(all_are_final(workplace, workflow, 1), "the other worker to do the job")
    paused.signal(signal.SIGCONT)
    until(lambda: workplace.is_registered(paused), "the paused worker to register anew")
    first, second = read_log(workplace.folder).of_job(job.id)
    assert first.ended is None, "it was not ended before the other began"
    assert second.ended is not None
    assert not read_log(workplace.folder).beyond
    assert other.end() == 0
    after = timed_job(workplace.folder, workflow, seconds=0.1)
    workplace.submit(workflow, [after])
    until(all_are_final(workplace, workflow, 2), "the worker that was paused to go on")
    outcomes = {(result.job_id, result.final, result.outcome) for result in workplace.results(workflow.id)}
    lost = {(job.id, False, Outcome.LOST)}
    assert outcomes - lost == {(job.id, True, Outcome.SUCCEEDED), (after.id, True, Outcome.SUCCEEDED)}
    found = workplace.final_results(workflow.id)
    assert (found[job.id].compute_node, found[after.id].compute_node) == (other.name, paused.name)
    assert paused.end() == 0
    assert paused.said.rstrip().endswith("Done: 1 done."), paused.said
    assert "Traceback" not in paused.said


def test_a_server_that_is_away_is_told_once_and_found_again(workplace: Workplace) -> None:
    workflow = a_workflow("patient", max_active=10)
    jobs = jobs_of(workplace, workflow, 30, seconds=0.2)
    workplace.submit(workflow, jobs)
    workers = [workplace.start_worker("--cpus", "1") for _ in range(2)]
    until(lambda: len(read_log(workplace.folder).executions) > 4, "some jobs")
    workplace.kill_server()
    gone = time.monotonic()
    until(lambda: all("does not answer" in worker.said for worker in workers), "all to notice")
    until(lambda: time.monotonic() > gone + AWAY_SECONDS, "the time to pass")
    before = len(read_log(workplace.folder).executions)
    workplace.start_server()
    until(lambda: len(read_log(workplace.folder).executions) > before, "work to go on", seconds=BACK_SECONDS)
    until(all_are_final(workplace, workflow, 30), "all jobs")
    for worker in workers:
        assert worker.end() == 0
        assert worker.said.count("does not answer") == 1, worker.said
        assert "Traceback" not in worker.said
        assert "is gone" not in worker.said
    assert len(read_log(workplace.folder).executions) == 30, "a job ran twice"


def test_a_worker_ends_when_told_to_while_the_server_is_away(workplace: Workplace) -> None:
    workflow = a_workflow("away", max_active=10)
    workplace.submit(workflow, jobs_of(workplace, workflow, 30, seconds=0.5))
    worker = workplace.start_worker("--cpus", "2")
    until(lambda: len(read_log(workplace.folder).executions) > 2, "some jobs")
    workplace.kill_server()
    worker.signal(signal.SIGTERM)
    until(lambda: "Ending" in worker.said, "it to be told")
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(15) == 0
    assert "Traceback" not in worker.said
    until(lambda: not workplace.processes(), "its processes to be gone", seconds=10)


def test_one_at_a_time_whatever_the_number_of_workers(workplace: Workplace) -> None:
    workflow = a_workflow("one at a time", max_active=1)
    jobs = jobs_of(workplace, workflow, 60, seconds=0.05)
    workers = [workplace.start_worker("--cpus", "2") for _ in range(4)]
    until(lambda: all(map(workplace.is_registered, workers)), "all workers")
    workplace.submit(workflow, jobs)
    until(all_are_final(workplace, workflow, 60), "all jobs")
    log = read_log(workplace.folder)
    assert (len(log.executions), most_at_once(log.executions), len(log.beyond)) == (60, 1, 0)
    assert len({each.worker for each in log.executions}) > 1, "only one of them ever worked"


def test_a_job_that_always_fails_stops_at_its_cap_and_says_why(workplace: Workplace) -> None:
    workflow = a_workflow("failing", max_active=4, max_fail=3)
    broken, sound = shell_job(workflow, "echo it is broken; exit 3"), shell_job(workflow, "exit 0")
    workplace.start_worker("--cpus", "2")
    workplace.submit(workflow, [broken, sound])
    until(all_are_final(workplace, workflow, 2), "both jobs")
    tries = [result for result in workplace.results(workflow.id) if result.job_id == broken.id]
    assert [(each.outcome, each.exit_code, each.tail) for each in tries] == [(Outcome.FAILED, 3, "it is broken")] * 3
    assert sum(each.final for each in tries) == 1
    assert workplace.final_results(workflow.id)[sound.id].outcome is Outcome.SUCCEEDED


def test_a_job_that_kills_its_worker_stops_at_the_cap_and_the_others_finish(workplace: Workplace) -> None:
    # The spawner is the job's parent, and the worker's socket is known to nobody: who started it is in the mark.
    kill_worker = 'kill -9 "$(echo "$KNOCKEM_OWNER" | cut -d "~" -f 4)"; sleep 100'
    workflow = a_workflow("murderous", max_active=10)
    murderer = shell_job(workflow, kill_worker)
    others = jobs_of(workplace, workflow, 100, seconds=0.01)
    workplace.submit(workflow, [*others[:50], murderer, *others[50:]])
    patience = time.monotonic() + 120
    while not all_are_final(workplace, workflow, 101)():
        assert time.monotonic() < patience, workplace.results(workflow.id)
        alive = [worker for worker in workplace.workers if worker.process.poll() is None]
        for _ in range(2 - len(alive)):
            workplace.start_worker("--cpus", "1")
        time.sleep(0.05)
    killed = [worker for worker in workplace.workers if worker.process.poll() == -signal.SIGKILL]
    assert len(killed) == 5
    results = workplace.final_results(workflow.id)
    assert results[murderer.id].outcome is Outcome.LOST
    assert "worker" in results[murderer.id].tail
    assert {results[job.id].outcome for job in others} == {Outcome.SUCCEEDED}


def test_a_worker_told_to_end_loses_nothing(workplace: Workplace) -> None:
    workflow = a_workflow("drained", max_active=10)
    workplace.submit(workflow, jobs_of(workplace, workflow, 12, seconds=1.0))
    first = workplace.start_worker("--cpus", "2")
    until(lambda: len(read_log(workplace.folder).executions) >= 2, "two jobs to start")
    assert first.end() == 0
    executions = read_log(workplace.folder).executions
    assert all(each.ended is not None for each in executions), "what was in work was not finished"
    assert len(workplace.final_results(workflow.id)) == len(executions), "what was finished was not recorded"
    workplace.start_worker("--cpus", "4")
    until(all_are_final(workplace, workflow, 12), "all jobs")
    assert len(read_log(workplace.folder).executions) == 12
    assert len(workplace.results(workflow.id)) == 12


def test_a_worker_told_twice_hands_back_at_once(workplace: Workplace) -> None:
    workflow = a_workflow("impatient", max_active=10)
    [job] = jobs_of(workplace, workflow, 1, seconds=1000)
    workplace.submit(workflow, [job])
    worker = workplace.start_worker("--cpus", "1")
    until(lambda: read_log(workplace.folder).executions, "the job to start")
    worker.signal(signal.SIGTERM)
    until(lambda: "Ending" in worker.said, "it to be told")
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0
    ready, held = workplace.on_queue(lambda queue: queue.jobs_of(workflow.id))
    assert (len(ready), held) == (1, {})
    assert workplace.results(workflow.id) == []


def test_a_worker_with_little_time_left_starts_nothing_that_could_not_finish(workplace: Workplace) -> None:
    workflow = a_workflow("timed", max_active=10)
    short = jobs_of(workplace, workflow, 40, seconds=0.3, seconds_at_most=1.0)
    long = jobs_of(workplace, workflow, 2, seconds=0.1, seconds_at_most=30.0)
    workplace.submit(workflow, [*long, *short])
    worker = workplace.start_worker("--cpus", "1", "--time-left", "5")
    until(lambda: "offers" in worker.said, "the worker")
    began = time.monotonic()
    assert worker.process.wait(10) == 0
    assert time.monotonic() - began < 6.5
    executions = read_log(workplace.folder).executions
    assert executions and {each.job for each in executions} <= {job.id for job in short}
    assert all(each.ended is not None for each in executions)
    assert {result.job_id for result in workplace.results(workflow.id)} == {each.job for each in executions}
    ready, held = workplace.on_queue(lambda queue: queue.jobs_of(workflow.id))
    assert (len(ready) + len(executions), held) == (42, {})


def test_what_takes_as_long_as_it_takes_is_handed_back_when_the_time_is_over(workplace: Workplace) -> None:
    workflow = a_workflow("endless", max_active=10)
    workplace.submit(workflow, jobs_of(workplace, workflow, 1, seconds=1000))
    worker = workplace.start_worker("--cpus", "1", "--time-left", "4")
    until(lambda: read_log(workplace.folder).executions, "the job to start")
    assert worker.process.wait(8) == 0
    ready, held = workplace.on_queue(lambda queue: queue.jobs_of(workflow.id))
    assert (len(ready), held) == (1, {})


MURDER = f"""#!/bin/sh
# The first competition without site 7 kills whoever started it, each time; who that was is in the mark.
victim={{place}}/victim
case $(grep -n '^0' "$KNOCKEM_GENOMES/$KNOCKEM_GENOME_ID_BETA") in
8:0) [ -e $victim ] || echo $KNOCKEM_COMPETITION_ID > $victim ;;
esac
if [ "$(cat $victim 2> /dev/null)" = "$KNOCKEM_COMPETITION_ID" ]; then
    kill -9 $(echo "$KNOCKEM_OWNER" | cut -d '~' -f 4)
    sleep 100
fi
echo '{FAIR}' > "$KNOCKEM_RESULT"
"""


@pytest.mark.parametrize("external_workers", [0, 2])
def test_a_competition_that_kills_its_worker_is_given_up_and_named(
    laboratory: Callable[..., Workplace], tmp_path: Path, external_workers: int
) -> None:
    place = laboratory(knockem_compete_two=MURDER.replace("{place}", str(tmp_path)))
    if external_workers:
        place.start_server()
    id = submit(place, "small", max_active=4, max_fail=2)
    patience = time.monotonic() + 150
    killed_runs = 0
    run = run_of(place, id, 60)
    while run.poll() != 0:
        assert time.monotonic() < patience
        if run.poll() is not None:
            assert run.returncode in (75, -signal.SIGKILL)
            killed_runs += run.returncode != 75
            run.communicate()
            run = run_of(place, id, 60)
        alive = [worker for worker in place.workers if worker.process.poll() is None]
        for _ in range(external_workers - len(alive)):
            place.start_worker("--cpus", "1")
        time.sleep(0.05)
    answers = run.communicate()[0].splitlines()
    assert len(answers) == 60
    [given_up] = [answer for answer in answers if not answer.startswith("Counts")]
    assert "5 attempts were lost" in given_up
    killed_workers = sum(worker.process.poll() == -signal.SIGKILL for worker in place.workers)
    assert killed_runs + killed_workers <= LOSSES_ALLOWED + INTERRUPTIONS_ALLOWED
    told = json.loads(place.command("status", id, "--json").stdout)
    assert [(each["purpose"], each["replicate"]) for each in told["given_up"]] == [("null", 7)]
    assert "5 attempts lost" in told["given_up"][0]["reason"]
    bad = json.loads(place.command("logs", id, "--failed", "--json", "--limit", "1000").stdout)
    assert {each["outcome"] for each in bad} == {"lost"}
    assert sum(each["replicate"] == 7 for each in bad) == killed_runs + killed_workers


def test_a_worker_told_to_end_amid_a_serving_container_loses_nothing(laboratory: Callable[..., Workplace]) -> None:
    place = laboratory(knockem_serve=serving("time.sleep(0.05)"))
    place.start_server()
    id = submit(place, "small", max_active=32)
    worker = place.start_worker("--cpus", "2")
    until(lambda: place.is_registered(worker), "the worker")
    run = run_of(place, id, 200)
    results = place.platform.records.attempt_results

    def answers_of_the_worker() -> int:
        return sum(result.worker == worker.name for result in results.find({"submissionId": id}))

    until(lambda: answers_of_the_worker() > 5, "the worker to be at work")
    assert worker.end() == 0
    assert run.poll() is None, "there was nothing left to be lost"
    assert len(run.communicate(timeout=60)[0].splitlines()) == 200
    assert {result.outcome for result in results.find({"submissionId": id})} == {Outcome.SUCCEEDED}
    assert {made.number for made in place.platform.records.attempts.find({"submissionId": id})} == {1}


def test_a_campaign_of_random_kills_breaks_no_promise() -> None:
    measured = {each.name: each.value for each in faults.run(CAMPAIGN_SCALE, CAMPAIGN_SEED)}
    assert measured["jobs, each with one last result"] >= round(faults.JOBS * CAMPAIGN_SCALE)
    assert measured["workers killed"] > 0
    assert measured["runs killed, tables those of an undisturbed run"] > 0
