"""Nodes of a real SLURM cluster: they come while work is ready, end when idle, and never beyond their limits."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from knockem_dagster.accounts.tokens import issue_token, token_record
from knockem_dagster.jobs.attempt_records import job_of
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import OwnerSettings
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.nodes.acquiring import MOST_FAILURES, NOBODY, order_of
from knockem_dagster.nodes.node_pools import SlurmPool
from knockem_dagster.nodes.node_records import FORGOTTEN_HOURS
from knockem_dagster.nodes.opening import open_pools
from knockem_dagster.nodes.schedulers import node_name
from knockem_dagster.nodes.tending import tend_nodes
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.nodes import NodeState, ScheduledNodeRecord
from knockem_dagster.records.record import new_id
from knockem_dagster.stores.documents import Patch
from tests.services.api_server import ALICE, BOB, ApiServer, running_api
from tests.services.command_line import ROOT, knockem
from tests.services.node_play import in_slurm, let_all_end, nodes, submit, tend, write_pools
from tests.services.queues import running_queue
from tests.services.slurm import CPUS, needs_slurm, running_slurm
from tests.services.submissions import a_submission, store_with_competitions
from tests.services.waiting import until

pytestmark = needs_slurm()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    with running_slurm() as configuration:
        yield configuration


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with running_queue(tmp_path / "home", lease_seconds=3.0) as queue, running_api(queue.settings) as api:
        yield api


@pytest.fixture(autouse=True)
def no_job_is_left(cluster: Path) -> Iterator[None]:
    yield
    subprocess.run(["scancel", "--me"], check=False)
    until(lambda: not in_slurm())


def test_nodes_come_while_work_is_ready_and_end_when_idle(api: ApiServer, tmp_path: Path) -> None:
    write_pools(api, {})
    assert tend(api)[0].asked == 0, "nothing is ready"
    client, place = submit(
        api,
        {"name": "a_{i}", "command": f"echo {{i}} >> {tmp_path}/order", "parameters": {"i": "1:5"}},
        {"name": "end", "command": f"echo end >> {tmp_path}/order", "depends_on_regexes": ["^a_"]},
    )
    [state] = tend(api)
    assert (state.wanted, state.asked) == (2, 2), "five jobs are ready, and two nodes are permitted"
    assert tend(api)[0].asked == 0, "what is on its way is not asked for again"
    until(lambda: client.get(place).json()["state"] == "completed")
    let_all_end(api)
    assert (tmp_path / "order").read_text().split()[-1] == "end"
    found = nodes(api)
    assert {(node.state, node.reason) for node in found} == {(NodeState.ENDED, "COMPLETED")}
    assert len(found) == 2
    results = client.get(f"{place}/results").json()["items"]
    tokens = {node.token_id[:8] for node in found}
    assert {each["computeNode"].partition("-")[0] for each in results} <= tokens
    for node in found:
        assert api.platform.records.tokens.get(node.token_id).revoked is not None
        assert node.started is not None and node.ended is not None and node.started <= node.ended
    assert 0 < tend(api)[0].hours < 2 * 10 / 60, "what was not used is not counted"


def test_what_slurm_refuses_is_told_in_its_words_and_not_tried_for_ever(api: ApiServer) -> None:
    write_pools(api, {"partition": "elsewhere"})
    submit(api, {"name": "a", "command": "true"})
    for _ in range(MOST_FAILURES):
        assert "invalid partition" in tend(api)[0].hindrance.lower()
    assert len(nodes(api)) == MOST_FAILURES
    [state] = tend(api)
    assert len(nodes(api)) == MOST_FAILURES, "it is not asked again"
    assert "nodes retry p" in state.hindrance
    home = api.platform.settings.home
    listed = knockem("nodes", "list", home=home)
    assert "invalid partition" in listed.stdout.lower() and "No more is asked for" in listed.stdout
    assert knockem("nodes", "retry", "q", home=home).returncode == 1
    retried = knockem("nodes", "retry", "p", home=home)
    assert "3 failures" in retried.stdout, retried
    assert knockem("nodes", "retry", "p", home=home).returncode == 1, "those have been dismissed"
    [state] = tend(api)
    assert len(nodes(api)) == MOST_FAILURES + 1, state
    assert "1 failure dismissed" in knockem("nodes", "retry", "p", home=home).stdout


def test_nodes_that_fail_before_they_work_are_shown_with_the_reason(api: ApiServer) -> None:
    write_pools(api, {"max_nodes": 1, "setup": ["echo the module is missing", "exit 7"]})
    submit(api, {"name": "a", "command": "true"})
    for number in range(1, MOST_FAILURES + 1):
        assert tend(api)[0].asked == 1
        until(lambda: not in_slurm())
        assert number == sum(node.state is NodeState.FAILED for node in nodes(api)) + 1
    [state] = tend(api)
    assert "exit code 7:0" in state.hindrance and "the module is missing" in state.hindrance
    assert not in_slurm()
    write_pools(api, {"max_nodes": 1})
    assert tend(api)[0].asked == 1, "a change of the pool is a new beginning"
    let_all_end(api)


def test_a_node_that_can_do_nothing_of_what_it_is_given_has_failed(api: ApiServer) -> None:
    write_pools(api, {"max_nodes": 1, "runtimes": ["process"]})
    study = a_submission(container_image="nowhere")
    store_with_competitions(api.platform.records, study, answered=0, failed=2)
    attempts = list(api.platform.records.attempts.find({"submissionId": study.id}))

    async def put() -> None:
        async with queue_of(api.platform) as queue:
            needs = Requirement(cpus=1, memory_mib=100, runtime="process")
            ready = [job_of(attempt.id) for attempt in attempts]
            await queue.enqueue(study.id, ready, requirement=needs, settings=OwnerSettings(max_active=8))

    asyncio.run(put())
    for _ in range(MOST_FAILURES):
        assert tend(api)[0].asked == 1
        until(lambda: not in_slurm())
    [state] = tend(api)
    assert (state.asked, state.hindrance) == (0, ""), "only its owner's jobs have no nodes any more"
    assert "'nowhere'" in state.left_out[study.id]
    for node in nodes(api):
        assert (node.state, node.unable_for) == (NodeState.FAILED, (study.id,))
        assert "'nowhere'" in node.reason
    listed = knockem("nodes", "list", home=api.platform.settings.home)
    assert f"No more is asked for {study.id}: 3 nodes" in listed.stdout


def test_what_waits_is_not_asked_for_again_and_let_go_when_nothing_is_ready(api: ApiServer) -> None:
    write_pools(api, {"cpus": CPUS, "max_nodes": 3, "extra": ["--hold", "--time=99", "-t98"]})
    client, place = submit(api, {"name": "a", "command": "true"})
    assert tend(api)[0].asked == 1
    [state] = tend(api)
    assert (state.asked, state.pending) == (0, 1)
    assert in_slurm("%l") == ["10:00"], "of two, SLURM takes the last, which is ours"
    [node] = nodes(api)
    assert (node.state, node.reason) == (NodeState.PENDING, "JobHeldUser")
    client.post(f"{place}/cancel")
    until(lambda: tend(api)[0].released == 1)
    assert not in_slurm()
    tend(api)
    [over] = nodes(api)
    assert over.state is NodeState.ENDED and "let go" in over.reason


def test_a_node_is_found_again_by_its_name_when_its_record_was_not_finished(api: ApiServer) -> None:
    write_pools(api, {"extra": ["--hold"]})
    submit(api, {"name": "a", "command": "true"})
    found = open_pools(api.platform)
    assert found is not None
    [each] = found.pools
    token, secret = issue_token(api.platform.records, ALICE, Scope.WORKER)
    asked, never = (
        ScheduledNodeRecord(
            id=new_id(), pool="p", scheduler="slurm", configuration=each.pool.digest, token_id=token.id, seconds=600
        )
        for _ in range(2)
    )
    for node in (asked, never):
        api.platform.records.scheduled_nodes.add(node)
    external = each.scheduler.ask(order_of(each.pool, asked.id, url=api.url, token=secret))
    assert tend(api)[0].asked == 0
    assert in_slurm("%i %j") == [f"{external} {node_name(asked.id)}"]
    there, gone = (api.platform.records.scheduled_nodes.get(node.id) for node in (asked, never))
    assert (there.state, there.external_id) == (NodeState.PENDING, external)
    assert gone.state is NodeState.ENDED


def test_node_hours_are_promised_before_they_are_used(api: ApiServer) -> None:
    write_pools(api, {"max_nodes": 10, "max_node_hours": 0.4, "extra": ["--hold"]})
    submit(api, {"name": "a_{i}", "command": "true", "parameters": {"i": "1:10"}})
    [state] = tend(api)
    assert state.asked == 2, "ten minutes each: a third would be beyond 24"
    assert tend(api)[0].asked == 0


def test_a_node_ends_when_nobody_answers(api: ApiServer, tmp_path: Path) -> None:
    with running_queue(tmp_path / "other", lease_seconds=3.0) as queue, running_api(queue.settings) as other:
        write_pools(other, {"max_nodes": 1})
        _, place = submit(other, {"name": "a", "command": "sleep 3600"})
        assert tend(other)[0].asked == 1
        workflow = place.rpartition("/")[2]
        until(lambda: list(other.platform.records.events.find({"subject": workflow})))
    until(lambda: not in_slurm())


def test_users_have_nodes_of_their_own(api: ApiServer) -> None:
    write_pools(api, {"user": BOB, "extra": ["--hold"]})
    submit(api, {"name": "a", "command": "true"})
    assert tend(api)[0].asked == 0
    submit(api, {"name": "a", "command": "true"}, address=BOB)
    assert tend(api)[0].asked == 1
    write_pools(api, {"user": BOB, "extra": ["--hold"]}, {"name": "all", "extra": ["--hold"]})
    assert [state.asked for state in tend(api)] == [0, 1], "one of Bob's is on its way for Bob's"
    tokens = [api.platform.records.tokens.get(node.token_id) for node in nodes(api)]
    assert [(token.user_email, token.for_all) for token in tokens] == [(BOB, False), (NOBODY, True)]


def test_the_schedulers_of_workflow_files_are_used_within_limits(api: ApiServer, tmp_path: Path) -> None:
    usual = {"cpus": 1, "memory": "1g", "idle_seconds": 1, "command": [sys.executable, "-P", "-m", "knockem_dagster"]}
    setup = [f"export PYTHONPATH={shlex.quote(str(ROOT))} KNOCKEM_ENVIRONMENT=testing"]
    limits = {**usual, "setup": setup, "max_nodes": 3, "max_node_hours": 10, "folder": str(tmp_path)}
    write_pools(api, workflows=limits)
    client, place = submit(
        api,
        {"name": "a_{i}", "command": "true", "parameters": {"i": "1:20"}},
        slurm_schedulers=[
            {"name": "s", "account": "abc", "walltime": "20", "extra": "--comment='of mine'"},
            {"name": "odd", "walltime": "2"},
        ],
        slurm_defaults={"constraint": ""},
        actions=[
            {
                "trigger_type": "on_workflow_start",
                "action_type": "schedule_nodes",
                "scheduler": name,
                "num_allocations": 2,
            }
            for name in ("s", "odd")
        ],
    )
    state, refused = tend(api)
    assert "walltime" in refused.hindrance and "'odd'" in refused.hindrance
    assert state.asked == 2, "two are asked for by the file, of three that the limits permit"
    assert all("20:00" in line and "of mine" in line and "abc" in line for line in in_slurm("%l %k %a"))
    until(lambda: client.get(place).json()["state"] == "completed")
    until(lambda: not in_slurm())


def test_a_workflow_may_not_change_what_is_asked_for(api: ApiServer) -> None:
    limits = {"cpus": 1, "memory": "1g", "max_nodes": 3, "max_node_hours": 10}
    write_pools(api, workflows=limits)
    for number, extra in enumerate(("--array=0-9", "--exclusive --export=ALL", "--arr=0-9", "--wrap=true")):
        submit(
            api,
            {"name": "a", "command": "true"},
            slurm_schedulers=[{"name": "s", "gres": "gpu:²", "extra": extra}],
            actions=[{"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler": "s"}],
        )
        refused = tend(api)
        assert len(refused) == number + 1
        assert all("may not give" in state.hindrance for state in refused)
    assert not in_slurm()
    home = api.platform.settings.home
    shown = knockem("nodes", "preview", home=home)
    assert shown.stdout.count("cannot be used") == len(refused), shown
    told = json.loads(knockem("nodes", "preview", "--json", home=home).stdout)
    assert [each["hindrance"] for each in told] == [state.hindrance for state in refused]


def test_nodes_are_not_forgotten_with_their_file(api: ApiServer) -> None:
    write_pools(api, {"extra": ["--hold"]})
    submit(api, {"name": "a", "command": "true"})
    tend(api)
    [node] = nodes(api)
    (api.platform.settings.folder / "nodes.yaml").unlink()
    assert asyncio.run(tend_nodes(api.platform)) is None
    assert nodes(api)[0].state is NodeState.PENDING, "it may come yet"
    long_ago = (datetime.now(UTC) - timedelta(hours=FORGOTTEN_HOURS + 1)).isoformat()
    api.platform.records.scheduled_nodes.patch(node.id, Patch(set={"datetime": long_ago}))
    asyncio.run(tend_nodes(api.platform))
    assert nodes(api)[0].state is NodeState.ENDED
    assert api.platform.records.tokens.get(node.token_id).revoked is not None


def test_the_preview_shows_what_would_be_asked_for_and_no_token(api: ApiServer) -> None:
    write_pools(api, {"gpus": 2, "qos": "high", "constraint": "skylake"})
    home = api.platform.settings.home
    found = open_pools(api.platform)
    assert found is not None and isinstance(found.pools[0].pool, SlurmPool)
    queue_url = str(api.platform.settings.queue_url or "")
    shown = knockem("nodes", "preview", home=home, **({"KNOCKEM_QUEUE_URL": queue_url} if queue_url else {}))
    assert shown.returncode == 0, shown.stderr
    assert "no work is ready" in shown.stdout
    for option in ("--gres=gpu:2", "--qos=high", "--constraint=skylake", "--time=0-00:10:00", "worker --cpus 1"):
        assert option in shown.stdout
    assert "knockem_" not in shown.stdout.replace("knockem_dagster", "")
    assert not nodes(api)


def test_a_token_of_a_node_is_worth_nothing_when_the_node_is_over(api: ApiServer) -> None:
    write_pools(api, {"extra": ["--hold"]})
    submit(api, {"name": "a", "command": "true"})
    tend(api)
    [id] = in_slurm()
    script = subprocess.run(["scontrol", "write", "batch_script", id, "-"], capture_output=True, text=True, check=True)
    [secret] = [line.partition("KNOCKEM_TOKEN=")[2] for line in script.stdout.splitlines() if "KNOCKEM_TOKEN" in line]
    assert token_record(api.platform.records, secret) is not None
    subprocess.run(["scancel", id], check=True)
    until(lambda: not in_slurm())
    tend(api)
    assert token_record(api.platform.records, secret) is None
