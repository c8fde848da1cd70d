"""`workflow`: a file in, a graph run by a real worker, and what people see of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner, Result

from knockem_dagster.cli.main import app
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.work_messages import Description
from knockem_dagster.records.record import now
from tests.services.command_line import environment_of
from tests.services.job_play import record_in
from tests.services.queues import QueueServer, running_queue

WORKFLOW = """
name: sweep
jobs:
  - name: prepare
    command: echo 7 > ${files.output.seed}
  - name: run_{i}
    command: echo $(( $(cat ${files.input.seed}) * {i} )) > result_{i}.txt
    parameters: {i: 1:3}
  - name: gather
    command: cat result_*.txt && exit 4
    depends_on: ["run_{i}"]
    parameters: {i: 1:3}
  - name: publish
    command: touch published
    depends_on: [gather]
    cancel_on_blocking_job_failure: true
files:
  - {name: seed, path: seed.txt}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueServer]:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.chdir(tmp_path)
    with running_queue(tmp_path / "home") as running:
        yield running


def run(*arguments: str, home: Path) -> Result:
    return CliRunner().invoke(app, ["workflow", *arguments], env=environment_of(home))


def written(folder: Path, text: str = WORKFLOW) -> str:
    path = folder / "workflow.yaml"
    path.write_text(text)
    return str(path)


def test_a_workflow_is_run_in_order_and_shown(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    ended = run("submit", written(tmp_path), "--wait", home=home)
    assert ended.exit_code == 1, ended.output
    id = ended.stdout.strip()
    assert (tmp_path / "result_3.txt").read_text() == "21\n"
    assert not (tmp_path / "published").exists()
    assert ended.stderr.endswith("is completed, with 6 of 6 jobs over: 4 completed, 1 failed, 1 canceled.\n")

    shown = run("status", id[:8], home=home)
    assert shown.exit_code == 1
    assert "completed, not all jobs" in shown.stdout
    assert "6 of 6 jobs over: 4 completed, 1 failed, 1 canceled" in shown.stdout
    assert "`--limit`" not in run("status", id, "--state", "completed", "--limit", "4", home=home).stderr
    cut = run("status", id, "--state", "completed", "--limit", "3", home=home).stderr
    assert cut == "The first 3 of 4; `--limit` shows more.\n"
    assert "is canceled, and no try at it is recorded" in run("logs", id, "publish", home=home).stdout
    told = json.loads(run("status", id, "--state", "failed", "--json", home=home).stdout)
    assert told["jobs"] == {"completed": 4, "failed": 1, "canceled": 1}
    assert [(each["name"], each["exitCode"]) for each in told["jobList"]] == [("gather", 4)]

    logs = run("logs", id, "gather", home=home).stdout
    assert "try 1: failed" in logs
    assert "7\n14\n21" in logs
    assert "cat result_" in logs
    [tried] = json.loads(run("logs", id, "gather", "--json", home=home).stdout)
    assert (tried["outcome"], tried["exitCode"], tried["tail"]) == ("failed", 4, "7\n14\n21")
    assert "sweep" in run("list", home=home).stdout
    assert [each["id"] for each in json.loads(run("list", "--json", home=home).stdout)] == [id]


def test_what_ended_a_job_that_had_no_time_to_say_so_is_told(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    text = """
name: ends
jobs:
  - {name: late, command: exec sleep 60, resource_requirements: short}
  - {name: struck, command: kill -9 $$}
resource_requirements: [{name: short, num_cpus: 1, memory: 100m, runtime: PT1S}]
"""
    id = run("submit", written(tmp_path, text), "--wait", home=home).stdout.strip()
    late, struck = run("status", id, home=home).stdout.splitlines()[-2:]
    assert late.split()[:4] == ["late", "failed", "timed", "out"]
    assert struck.split()[:3] == ["struck", "failed", "-9"]


def test_a_dry_run_tells_what_a_file_stands_for_and_stores_nothing(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    told = json.loads(run("submit", written(tmp_path), "--dry-run", "--json", home=home).stdout)
    assert told == {"name": "sweep", "jobs": 6, "dependencies": 7, "readyAtOnce": 1, "files": 1, "userData": 0}
    assert "6 jobs, 1 ready at once" in run("submit", written(tmp_path), "--dry-run", home=home).stdout
    assert "There is no workflow yet" in run("list", home=home).stdout


def test_what_has_no_effect_depends_on_whether_nodes_are_acquired(server: QueueServer, tmp_path: Path) -> None:
    action = "{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s}"
    file = written(tmp_path, f"{WORKFLOW}slurm_schedulers: [{{name: s}}]\nactions: [{action}]\n")
    warning = "without effect so far: schedule_nodes"
    assert warning in run("submit", file, "--dry-run", home=server.settings.home).output
    limits = "{max_nodes: 1, max_node_hours: 1, cpus: 1, memory: 1g}"
    (server.settings.folder / "nodes.yaml").write_text(f"url: http://here\nworkflows: {limits}\n")
    assert "without effect" not in run("submit", file, "--dry-run", home=server.settings.home).output


def test_jobs_that_no_worker_could_run_are_told_at_once(server: QueueServer, tmp_path: Path) -> None:
    small = Description(
        host="here",
        owner="a worker",
        cpus=2,
        memory_mib=4096,
        gpus=0,
        runtimes=("command",),
        lease_seconds=600,
        started=now(),
    )

    async def join() -> None:
        with record_in(server.settings.home) as platform:
            async with queue_of(platform) as queue:
                await queue.beat("here-1", lease_seconds=600, description=small.to_json())

    asyncio.run(join())
    needs = "resource_requirements: [{name: big, num_cpus: 64, memory: 1g}]\n"
    big = WORKFLOW.replace("  - name: gather\n", "  - name: gather\n    resource_requirements: big\n") + needs
    submitted = run("submit", written(tmp_path, big), home=server.settings.home)
    assert "No worker offers 64 CPUs: 1 job with 'big' will wait until one does." in submitted.stderr
    assert "without resource_requirements" not in submitted.stderr


def test_every_fault_is_told_and_nothing_stored(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    refused = run("submit", written(tmp_path, WORKFLOW.replace("seed, path", "sed, path")), home=home)
    assert refused.exit_code == 1
    assert 'prepare.command: "seed"' in refused.output
    assert refused.output.count("there is nothing of that name") == 4
    assert "There is no workflow yet" in run("list", home=home).stdout
    assert "cannot be read" in run("submit", "missing.yaml", home=home).output


def test_the_graph_is_drawn(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    id = run("submit", written(tmp_path), home=home).stdout.strip().splitlines()[-1]
    drawn = run("graph", id, "--output", str(tmp_path / "graph.svg"), home=home)
    assert drawn.stdout.strip() == str(tmp_path / "graph.svg")
    picture = (tmp_path / "graph.svg").read_text()
    assert all(f'data-name="{name}"' in picture for name in ("prepare", "run_1", "run_2", "run_3", "gather", "publish"))
    assert "prepare: 1 ready" in picture
    assert "cannot be written" in run("graph", id, "-o", str(tmp_path / "no" / "x.svg"), home=home).output
    told = json.loads(run("graph", id, "--json", home=home).stdout)
    names = {f"jobs/{each['id']}": each["name"] for each in told["jobs"]}
    assert Counter(each["state"] for each in told["jobs"]) == {"ready": 1, "blocked": 5}
    assert {(names[each["_from"]], names[each["_to"]]) for each in told["blocks"]} == {
        *(("prepare", f"run_{number}") for number in (1, 2, 3)),
        *((f"run_{number}", "gather") for number in (1, 2, 3)),
        ("gather", "publish"),
    }


def test_a_workflow_waits_for_a_worker_and_can_be_canceled(server: QueueServer, tmp_path: Path) -> None:
    home = server.settings.home
    submitted = run("submit", written(tmp_path), home=home)
    assert "No worker is there" in submitted.output
    id = submitted.stdout.strip().splitlines()[-1]
    going = run("status", id, home=home)
    assert going.exit_code == 3
    assert "0 of 6 jobs over: 5 blocked, 1 ready" in going.stdout
    assert "6 jobs had not ended" in run("cancel", id, home=home).stdout
    assert "0 jobs had not ended" in run("cancel", id, home=home).output
    assert json.loads(run("cancel", id, "--json", home=home).stdout) == {"id": id, "jobs": 0}
    assert run("status", id, home=home).exit_code == 1
    assert json.loads(run("restart", id, "--json", home=home).stdout) == {"id": id, "jobs": 6}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status", "nobody"), "There is no workflow 'nobody'"),
        (("status", "ab"), "There is no workflow 'ab'. The beginning of an id needs at least 4 characters."),
        (("logs", "nobody", "a"), "There is no workflow 'nobody'"),
        (("status", "nobody", "--state", "done"), "'done' is no state of a job"),
    ],
)
def test_what_is_not_there_is_said(server: QueueServer, arguments: tuple[str, ...], words: str) -> None:
    found = run(*arguments, home=server.settings.home)
    assert found.exit_code == 1
    assert words in found.output


def test_without_a_queue_it_is_said_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    refused = run("submit", written(tmp_path), home=tmp_path / "home")
    assert refused.exit_code == 1
    assert "./knockem up" in refused.output


def test_what_was_measured_is_offered_to_the_next_and_may_be_taken(server: QueueServer, tmp_path: Path) -> None:
    home, machine_mib = server.settings.home, psutil.virtual_memory().total >> 20
    given_mib = machine_mib * 6 // 10  # so that one fits at a time
    (tmp_path / "fill.py").write_text("import time; kept = bytearray(20 << 20); time.sleep(0.2)")
    how = "command: 'fill.py {i}', invocation_script: python3, parameters: {i: '1:20'}"
    jobs = f"{{name: 'fill_{{i}}', {how}, resource_requirements: generous}}"
    needs = f"{{name: generous, num_cpus: 1, memory: {given_mib}m}}"
    file = written(tmp_path, f"name: measured\njobs: [{jobs}]\nresource_requirements: [{needs}]\n")
    first = run("submit", file, "--wait", home=home)
    assert first.exit_code == 0 and "--measured" not in first.stderr
    second = run("submit", file, home=home)
    assert "python3 fill.py: 20 jobs from" in second.stderr and "`--measured` gives each" in second.stderr
    third = run("submit", file, "--measured", "--wait", home=home)
    assert third.exit_code == 0, third.stderr
    with record_in(home) as platform:
        memory = [
            {job.resources.memory_mib for job in platform.records.jobs.find({"workflowId": each.stdout.strip()})}
            for each in (first, second, third)
        ]
        results = list(platform.records.results.find({"workflowId": third.stdout.strip()}))
    [[before], [unchanged], [after]] = memory
    assert before == unchanged == given_mib and 20 < after < 256
    fitting = min(server.settings.cpus, machine_mib // after)
    assert f"Each is given {after} MiB and 1 CPU instead of {given_mib:,} MiB and 1 CPU" in third.stderr
    assert f"{fitting:,} at a time on this machine instead of 1." in third.stderr
    assert len(results) == 20 and {each.outcome for each in results} == {"succeeded"}
    assert {each.given.memory_mib for each in results if each.given is not None} == {after}
