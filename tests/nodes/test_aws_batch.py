"""Nodes of AWS Batch: through boto3, against moto on loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from knockem_dagster.nodes.aws_batch import MOST_DESCRIBED
from knockem_dagster.nodes.node_pools import AwsBatchPool
from knockem_dagster.nodes.opening import scheduler_of
from knockem_dagster.nodes.schedulers import NodeOrder, NodeRefused, NodeSight, Scheduler, SchedulerAway, node_name
from knockem_dagster.records.nodes import NodeState
from knockem_dagster.records.record import new_id
from tests.services.batch import DEFINITION, QUEUE, REGION, BatchServer, batch_server
from tests.services.s3 import CREDENTIALS

STARTED, ENDED = datetime(2026, 1, 2, 3, 10, tzinfo=UTC), datetime(2026, 1, 2, 4, tzinfo=UTC)
POOL = {
    "name": "batch",
    "scheduler": "aws_batch",
    "cpus": 2,
    "memory": "4g",
    "gpus": 1,
    "walltime": "01:00:00",
    "max_nodes": 4,
    "max_node_hours": 100,
    "job_queue": QUEUE,
    "job_definition": DEFINITION,
    "region": REGION,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with batch_server() as server:
        yield server


@pytest.fixture
def scheduler(server: BatchServer) -> Scheduler:
    return scheduler_at(server.url)


def scheduler_at(url: str, **changed: Any) -> Scheduler:
    return scheduler_of(AwsBatchPool.model_validate({**POOL, "endpoint": url, **changed}))


def order() -> NodeOrder:
    return NodeOrder(node_name(new_id()), {"KNOCKEM_URL": "http://host:3001", "KNOCKEM_TOKEN": "a-token"})


def test_a_job_is_submitted_as_the_pool_says(server: BatchServer, scheduler: Scheduler):
    asked = order()
    job = server.jobs[scheduler.ask(asked)]
    assert (job.job_name, job.job_queue.name, job.job_definition.name) == (asked.name, QUEUE, DEFINITION)
    assert job.timeout == {"attemptDurationSeconds": 3600}
    overrides = job.container_overrides
    assert overrides["command"][:2] == ["knockem_dagster", "worker"]
    assert overrides["command"][-2:] == ["--time-left", "3540"]
    assert {each["name"]: each["value"] for each in overrides["environment"]} == asked.environment
    amounts = {each["type"]: each["value"] for each in overrides["resourceRequirements"]}
    assert amounts == {"VCPU": "2", "MEMORY": "4096", "GPU": "1"}


def test_no_gpu_is_asked_for_where_none_is_wanted(server: BatchServer):
    job = server.jobs[scheduler_at(server.url, gpus=0).ask(order())]
    assert [each["type"] for each in job.container_overrides["resourceRequirements"]] == ["VCPU", "MEMORY"]


@pytest.mark.parametrize("status", ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING"])
def test_a_job_on_its_way_is_pending_and_says_how_far_it_is(server: BatchServer, scheduler: Scheduler, status: str):
    asked = order()
    id = scheduler.ask(asked)
    server.set_state(id, status)
    sight = scheduler.look({asked.name: id})[asked.name]
    assert (sight.external_id, sight.state, sight.reason) == (id, NodeState.PENDING, status)


def test_a_job_that_runs_tells_since_when(server: BatchServer, scheduler: Scheduler):
    asked = order()
    id = scheduler.ask(asked)
    server.set_state(id, "RUNNING", started=STARTED)
    assert scheduler.look({asked.name: id}) == {asked.name: NodeSight(id, NodeState.RUNNING, started=STARTED)}


def test_a_job_that_is_over_tells_how_and_when(server: BatchServer, scheduler: Scheduler):
    asked = order()
    id = scheduler.ask(asked)
    server.set_state(id, "SUCCEEDED", started=STARTED, stopped=ENDED)
    sight = scheduler.look({asked.name: id})[asked.name]
    assert sight == NodeSight(id, NodeState.ENDED, "SUCCEEDED", STARTED, ENDED)
    said = {"reason": "OutOfMemoryError: Container killed due to memory usage", "exitCode": 137}
    server.set_state(id, "FAILED", started=STARTED, stopped=ENDED, **said)
    sight = scheduler.look({asked.name: id})[asked.name]
    assert sight.reason == "FAILED: OutOfMemoryError: Container killed due to memory usage: exit code 137"
    server.set_state(id, "FAILED", started=STARTED, stopped=ENDED)
    server.jobs[id].job_stopped_reason = "Host EC2 (instance i-0123) terminated."
    sight = scheduler.look({asked.name: id})[asked.name]
    assert sight.reason == "FAILED: Host EC2 (instance i-0123) terminated."


def test_a_job_whose_id_was_never_heard_is_found_by_its_name(server: BatchServer, scheduler: Scheduler):
    lost, known, never = order(), order(), order()
    ids = {lost.name: scheduler.ask(lost), known.name: scheduler.ask(known)}
    for id in ids.values():
        server.set_state(id, "RUNNABLE")
    seen = scheduler.look({lost.name: None, known.name: ids[known.name], never.name: None})
    assert {name: sight.external_id for name, sight in seen.items()} == ids


def test_more_jobs_are_looked_at_than_are_described_at_once(server: BatchServer, scheduler: Scheduler):
    orders = [order() for _ in range(MOST_DESCRIBED + 1)]
    nodes: dict[str, str | None] = {asked.name: scheduler.ask(asked) for asked in orders}
    assert {name: sight.external_id for name, sight in scheduler.look(nodes).items()} == nodes
    assert not scheduler.look({})


def test_jobs_are_let_go_however_far_they_are(server: BatchServer, scheduler: Scheduler):
    ids = {status: scheduler.ask(order()) for status in ("RUNNABLE", "RUNNING", "STARTING")}
    kept = scheduler.ask(order())
    for status, id in ids.items():
        server.set_state(id, status)
    scheduler.release([*ids.values(), new_id()])
    assert {id for id, job in server.jobs.items() if job.stop} == set(ids.values())
    assert not server.jobs[kept].stop


def test_what_aws_refuses_is_told_in_its_words(server: BatchServer):
    with pytest.raises(NodeRefused, match="Job definition no-such does not exist"):
        scheduler_at(server.url, job_definition="no-such").ask(order())


def test_an_aws_that_does_not_answer_is_away(server: BatchServer, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    nowhere = scheduler_at(address)
    for ask in (lambda: nowhere.ask(order()), lambda: nowhere.look({"a": "a"}), lambda: nowhere.release(["a"])):
        with pytest.raises(SchedulerAway, match="Could not connect"):
            ask()
    with pytest.raises(SchedulerAway, match="Job queue no-such does not exist"):
        scheduler_at(server.url, job_queue="no-such").look({"a": None})
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(SchedulerAway, match="region"):
        scheduler_at(server.url, region=None).look({"a": "a"})


def test_a_preview_is_the_request(server: BatchServer, scheduler: Scheduler):
    asked = order()
    request = json.loads(scheduler.preview(asked))
    assert request["jobName"] == asked.name
    assert request["retryStrategy"] == {"attempts": 1}
    assert not server.jobs
