"""Jobs that fail: another try if their handler says so, and a restart of what did not complete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.recovery import exit_code_of
from knockem_dagster.jobs.restarting import Enlargement
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobState
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch
from tests.services.graph_play import job, jobs_of, lines, run, run_again, states, stored
from tests.services.job_play import record_in, results_of
from tests.services.queues import QueueServer


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
        yield opened


def test_a_restart_runs_what_did_not_complete_and_what_waited_for_it(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(
        platform,
        tmp_path,
        job("good"),
        {"name": "moody", "command": "test -e mended && echo moody >> done.txt"},
        job("anyway", depends_on=["moody"]),
        job("not", depends_on=["moody"], cancel_on_blocking_job_failure=True),
        job("apart", depends_on=["good"]),
    )
    run(queue_server, platform, workflow)
    assert sorted(lines(tmp_path)) == ["anyway", "apart", "good"]
    (tmp_path / "mended").touch()

    assert run_again(queue_server, platform, workflow) == 3
    order = lines(tmp_path)
    assert sorted(order) == ["anyway", "anyway", "apart", "good", "moody", "not"]
    assert order.index("moody") < order.index("not")
    assert set(states(platform, workflow).values()) == {JobState.COMPLETED}
    tries = [each for each in results_of(platform, workflow) if each.job_id == jobs_of(platform, workflow)["moody"].id]
    assert [(each.outcome, each.final) for each in tries] == [(Outcome.FAILED, False), (Outcome.SUCCEEDED, True)]
    with pytest.raises(KnockemError, match="nothing to run again"):
        run_again(queue_server, platform, workflow)


def test_a_restart_runs_what_reads_a_file_that_has_changed(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    def reading(name: str, command: str) -> dict[str, Any]:
        return {"name": name, "command": f"echo {name} >> done.txt; {command}"}

    for name in ("given", "other"):
        (tmp_path / name).write_text("1")
    workflow = stored(
        platform,
        tmp_path,
        reading("first", "cat ${files.input.given} > ${files.output.made}"),
        reading("second", "cat ${files.input.made} > ${files.output.last}"),
        reading("third", "cat ${files.input.last} ${files.input.other}"),
        reading("apart", "cat ${files.input.other}"),
        files=[{"name": name, "path": name} for name in ("given", "other", "made", "last")],
    )
    run(queue_server, platform, workflow)

    def again() -> list[str]:
        (tmp_path / "done.txt").unlink()

        run_again(queue_server, platform, workflow)
        return sorted(lines(tmp_path))

    (tmp_path / "given").write_text("2")
    assert again() == ["first", "second", "third"]
    assert (tmp_path / "last").read_text() == "2"
    (tmp_path / "other").write_text("2")
    assert again() == ["apart", "third"]
    (tmp_path / "made").unlink()
    (tmp_path / "last").unlink()
    (tmp_path / "other").write_text("3")
    assert again() == ["apart", "first", "second", "third"], "what is read and gone is made again"
    for name in ("given", "other"):
        (tmp_path / name).touch()
    with pytest.raises(KnockemError, match="as it was"):
        again()
    assert not (tmp_path / "done.txt").exists()


def test_a_restart_runs_what_reads_user_data_that_have_changed(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    """A job that stores user data itself is not run again for having done so."""
    workflow = stored(
        platform,
        tmp_path,
        job("storing", output_user_data=["rates"]),
        job("reading", input_user_data=["rates"]),
        job("apart"),
        user_data=[{"name": "rates", "data": [1]}],
    )
    run(queue_server, platform, workflow)
    [rates] = platform.records.user_data.find({"workflowId": workflow.id})
    platform.records.user_data.patch(rates.id, Patch(set={"data": [2], "changed": now()}))

    assert run_again(queue_server, platform, workflow) == 1
    assert sorted(lines(tmp_path)) == ["apart", "reading", "reading", "storing"]
    with pytest.raises(KnockemError, match="as it was"):
        run_again(queue_server, platform, workflow)


def test_a_restart_enlarges_what_was_too_small(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    """The first job needs 20 MiB and has 16; the second needs a second and has half of one."""
    needs = [
        {"name": "memory", "num_cpus": 1, "memory": "16m"},
        {"name": "time", "num_cpus": 1, "memory": "64m", "runtime": "PT0.5S"},
    ]
    eater = "head -c 20m /dev/zero | tail -c 20m | (sleep 0.3; wc -c >> done.txt)"
    workflow = stored(
        platform,
        tmp_path,
        {"name": "eater", "command": eater, "resource_requirements": "memory"},
        {"name": "sleeper", "command": "sleep 1; echo awake >> done.txt", "resource_requirements": "time"},
        job("other", resource_requirements="memory"),
        resource_requirements=needs,
    )
    run(queue_server, platform, workflow)
    ends = {each.job_id: each.outcome for each in results_of(platform, workflow)}
    names = {each.id: name for name, each in jobs_of(platform, workflow).items()}
    assert {names[id]: outcome for id, outcome in ends.items()} == {
        "eater": Outcome.OUT_OF_MEMORY,
        "sleeper": Outcome.TIMED_OUT,
        "other": Outcome.SUCCEEDED,
    }

    assert run_again(queue_server, platform, workflow, Enlargement(memory=4.0, time=6.0)) == 2
    assert set(states(platform, workflow).values()) == {JobState.COMPLETED}
    found = {
        name: (each.resources.memory_mib, each.resources.seconds) for name, each in jobs_of(platform, workflow).items()
    }
    assert found == {"eater": (64, 3600.0), "sleeper": (64, 3.0), "other": (16, 3600.0)}


HANDLERS = [
    {
        "name": "handler",
        "rules": [
            {"exit_codes": [7], "recovery_script": "echo fixed$TORC_RETURN_CODE >> done.txt", "max_retries": 2},
            {"exit_codes": [8], "recovery_script": "exit 1"},
            {"exit_codes": [9]},
        ],
    },
    {"name": "any", "rules": [{"match_all_exit_codes": True, "max_retries": 1}]},
]


@dataclass(frozen=True, slots=True)
class Failing:
    """A job that fails: its handler and command, and what comes of it: tries, state, what is told on the way."""

    handler: str
    command: str
    tries: int
    state: JobState
    told: str = ""


MOODY = "[ $TORC_ATTEMPT_ID = 3 ] && echo third >> done.txt || exit 7"


@pytest.mark.parametrize(
    "case",
    [
        Failing("handler", MOODY, 3, JobState.COMPLETED, "fixed7 fixed7 third"),
        Failing("handler", "exit 7", 3, JobState.FAILED, "fixed7 fixed7"),
        Failing("handler", "exit 8", 1, JobState.FAILED),
        Failing("handler", "exit 9", 4, JobState.FAILED),
        Failing("handler", "exit 1", 1, JobState.FAILED),
        Failing("any", "kill -TERM $$", 2, JobState.FAILED),
    ],
    ids=lambda case: case.command[:8],
)
def test_a_failure_handler_decides_on_another_try(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, case: Failing
) -> None:
    jobs = [{"name": "a", "command": case.command, "failure_handler": case.handler}, job("b", depends_on=["a"])]
    workflow = stored(platform, tmp_path, *jobs, failure_handlers=HANDLERS)
    run(queue_server, platform, workflow)
    first = jobs_of(platform, workflow)["a"]
    assert first.state is case.state
    results = [each for each in results_of(platform, workflow) if each.job_id == first.id]
    assert [each.final for each in results] == [False] * (case.tries - 1) + [True]
    assert lines(tmp_path) == [*case.told.split(), "b"]


@pytest.mark.parametrize(
    ("outcome", "code", "known"),
    [
        (Outcome.FAILED, 3, 3),
        (Outcome.FAILED, -15, 143),
        (Outcome.TIMED_OUT, -9, 152),
        (Outcome.OUT_OF_MEMORY, -9, 137),
    ],
)
def test_rules_know_signals_time_and_memory_by_exit_codes(outcome: Outcome, code: int, known: int) -> None:
    assert exit_code_of(CommandEnded(outcome, code, "", 0, 0.0, 0.0)) == known
