"""`worker`, `workers` and `queue`: what they refuse, and what they show of a real queue."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.workplace import until
from knockem_dagster.cli.main import app
from knockem_dagster.jobs.job_records import submit_jobs
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import OwnerSettings
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, WorkflowRecord
from tests.services.command_line import command_line, environment_of, knockem, tiny_submission
from tests.services.interruptions import notice_server
from tests.services.queues import QueueServer, running_queue

SMALL = Requirement(cpus=1, memory_mib=100, runtime="command")
MOST_LINES = 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueServer]:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    with running_queue(tmp_path / "home") as running:
        yield running


def run(*arguments: str, home: Path) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment_of(home))


def enqueue(server: QueueServer, owner: str, number: int, requirement: Requirement = SMALL) -> None:
    async def put() -> None:
        async with queue_of(Platform(server.settings)) as queue:
            jobs = [uuid.uuid4().bytes for _ in range(number)]
            await queue.enqueue(owner, jobs, requirement=requirement, settings=OwnerSettings(max_active=4))

    asyncio.run(put())


def start_worker(server: QueueServer, *arguments: str) -> subprocess.Popen[str]:
    """Start a worker and wait until it has said what it offers."""
    worker = subprocess.Popen(
        command_line("worker", *arguments),
        env=environment_of(server.settings.home),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    assert "offers" in worker.stderr.readline()
    return worker


def end(worker: subprocess.Popen[str]) -> str:
    """Ask a worker to end and return what it said."""
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=30)
    assert worker.returncode == 0, said
    return said


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("--cpus", "0"), "offer some with --cpus"),
        (("--memory", "-5"), "offer some"),
        (("--interruption-notice", "spot"), "no address"),
        (("--gpus", "-1"), "--gpus is 0 or more"),
        (("--time-left", "soon"), "HH:MM:SS"),
        (("--end-when-idle", "1 hour"), "--end-when-idle '1 hour'"),
        (("--runtimes", "command,magic"), "cannot offer magic"),
    ],
)
def test_worker_that_offers_nonsense_is_refused(tmp_path: Path, arguments: tuple[str, ...], advice: str) -> None:
    refused = run("worker", *arguments, home=tmp_path)
    assert refused.exit_code == 1
    assert advice in refused.output


def test_a_worker_takes_only_the_kinds_of_jobs_that_it_is_told_to(server: QueueServer) -> None:
    home = server.settings.home
    with subprocess.Popen(
        command_line("worker", "--runtimes", "command"), env=environment_of(home), stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stderr is not None
        assert "(command)" in worker.stderr.readline()
        worker.send_signal(signal.SIGTERM)
    refused = knockem("worker", "--runtimes", "docker", home=home, DOCKER_HOST=f"unix://{home}/nothing")
    assert refused.returncode == 1
    assert "cannot offer docker" in refused.stderr


@pytest.mark.parametrize("command", [("worker",), ("workers",), ("queue", "inspect"), ("queue", "rebuild")])
def test_without_a_queue_each_command_says_how_to_get_one(tmp_path: Path, command: tuple[str, ...]) -> None:
    refused = run(*command, home=tmp_path)
    assert refused.exit_code == 1
    assert "./knockem up" in refused.output


def test_inspect_stays_short_and_says_why_nothing_is_claimed(server: QueueServer) -> None:
    for number in range(1, 51):
        enqueue(server, str(uuid.uuid4()), 200 * number)
    shown = run("queue", "inspect", home=server.settings.home)
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert len(lines) <= MOST_LINES
    assert "10,000" in lines[1] and "no worker is there" in lines[1]
    assert "255,000 ready" in lines[-1]


def test_inspect_and_submit_name_what_no_worker_offers(server: QueueServer, tmp_path: Path) -> None:
    enqueue(server, "a-workflow", 1, Requirement(cpus=64, memory_mib=100, gpus=2, runtime="command"))
    worker = start_worker(server, "--cpus", "1", "--memory", "512")
    try:
        shown = run("queue", "inspect", home=server.settings.home)
        assert "no worker offers 64 CPUs and 2 GPUs" in shown.output
        file = tiny_submission(tmp_path / "study")
        assert "1,024 MiB" in knockem("submit", file, home=server.settings.home).stderr
        table = run("workers", home=server.settings.home)
        assert "waits for work" in table.output and "0.5 GiB" in table.output
    finally:
        end(worker)
    assert "No worker is there" in run("workers", home=server.settings.home).output


def test_a_worker_shares_a_submission_and_everything_is_recorded_with_its_name(
    server: QueueServer, tmp_path: Path
) -> None:
    home = server.settings.home
    worker = start_worker(server, "--cpus", "1")
    file = tiny_submission(tmp_path / "study", skeletons=40, maxActive=8)
    ended = knockem("submit", file, "--wait", "--json", home=home)
    assert ended.returncode == 0, ended.stderr
    said = end(worker)
    assert " done" in said
    platform = Platform(server.settings)
    found = platform.records.attempt_results.find({"submissionId": json.loads(ended.stdout)["id"]})
    names = {result.worker.partition("-")[0] for result in found}
    platform.close()
    assert len(names) == 2 and "run" in names  # the run's own, and the one of this machine
    assert run("queue", "inspect", home=home).output.startswith("The queue is empty")


def test_a_worker_ends_when_there_is_nothing_to_do(server: QueueServer) -> None:
    worker = start_worker(server, "--end-when-idle", "1", "--runtimes", "command")
    _, said = worker.communicate(timeout=30)
    assert worker.returncode == 0, said
    assert "nothing to do for 1 s" in said and "Done: 0 done." in said


def test_a_worker_ends_when_its_machine_is_taken_away(server: QueueServer) -> None:
    home = server.settings.home
    with notice_server(looks_in_vain=1) as (address, _):
        worker = start_worker(server, "--cpus", "1", "--interruption-notice", address)
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert "will be taken away" in said and "terminate" in said
    assert "No worker is there" in run("workers", home=home).output


@pytest.mark.slow
def test_a_worker_whose_machine_is_taken_away_finishes_what_it_can_and_hands_the_rest_back(
    server: QueueServer, tmp_path: Path
) -> None:
    platform = Platform(server.settings)
    workflow = WorkflowRecord(id=str(uuid.uuid4()), name="taken", max_active=2, user_email="someone@example.org")
    ends = f"touch {tmp_path}/ends; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    jobs = [
        JobRecord(id=str(uuid.uuid4()), workflow_id=workflow.id, name=name, command=("sh", "-c", command))
        for name, command in (("ends", ends), ("hangs", f"touch {tmp_path}/hangs; sleep 600"))
    ]

    async def submit() -> None:
        async with queue_of(platform) as queue:
            await submit_jobs(platform.records, queue, workflow, jobs)

    asyncio.run(submit())
    given = threading.Event()
    with notice_server(given=given) as (address, _):
        worker = start_worker(server, "--cpus", "2", "--interruption-notice", address)
        until(lambda: all((tmp_path / job.name).exists() for job in jobs), "both jobs to begin")
        given.set()
        assert worker.stderr is not None
        assert "will be taken away" in worker.stderr.readline()
        (tmp_path / "go").touch()
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert "1 done, 1 returned" in said
    [result] = platform.records.results.find({"workflowId": workflow.id})
    assert (result.job_id, result.exit_code) == (jobs[0].id, 0)
    platform.close()
    assert "1 ready" in run("queue", "inspect", home=server.settings.home).output


def test_inspect_for_programs_has_the_seed_s_structures_and_no_address(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    file = tiny_submission(
        tmp_path / "study", containerEnv={"EXPLICIT_MODE": "exact", "TOKEN": "a-secret"}, userEmail="me@example.org"
    )
    submission = knockem("submit", file, home=home).stdout.strip()
    enqueue(server, submission, 3)
    shown = run("queue", "inspect", "--json", home=home)
    answer = json.loads(shown.stdout)
    assert answer["activeSubmissions"][0]["submissionId"] == submission
    assert answer["counters"][submission]["submissionNumPendingCompetitions"] == 3
    assert {"pendingAssays", "activeAssays", "activeCompetitions", "activeCompetitionAttempts"} <= answer.keys()
    assert "me@example.org" not in shown.stdout and "a-secret" not in shown.stdout


def test_rebuild_restores_the_jobs_of_workflows_after_the_queue_was_lost(server: QueueServer) -> None:
    home = server.settings.home
    platform = Platform(server.settings)
    workflow = WorkflowRecord(id=str(uuid.uuid4()), name="lost", max_active=2, user_email="someone@example.org")
    jobs = [
        JobRecord(id=str(uuid.uuid4()), workflow_id=workflow.id, name=f"job {n}", command=("true",)) for n in range(7)
    ]

    async def submit() -> None:
        async with queue_of(platform) as queue:
            await submit_jobs(platform.records, queue, workflow, jobs)

    asyncio.run(submit())
    server.kill()
    server.forget()
    server.start()
    assert "The queue is empty" in run("queue", "inspect", home=home).output
    assert "7 jobs put into the queue again" in run("queue", "rebuild", home=home).output
    assert "0 jobs put into the queue again" in run("queue", "rebuild", home=home).output
    worker = start_worker(server)
    platform.close()
    wait_for_results(server, workflow.id, len(jobs))
    end(worker)


def wait_for_results(server: QueueServer, workflow: str, number: int) -> None:
    """Return when so many results are recorded; a test's time-out is the only other end."""
    platform = Platform(server.settings)
    while len(list(platform.records.results.find({"workflowId": workflow}))) < number:
        time.sleep(0.05)
    platform.close()
