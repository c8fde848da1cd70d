"""Workers that reach the platform over HTTP only: a real worker process with a home of its own, one URL, one token."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.record import new_id
from knockem_dagster.records.submissions import State
from tests.api.http.conftest import until
from tests.services.api_server import ADMINISTRATOR, ALICE, BOB, ApiServer, running_api
from tests.services.command_line import environment_of
from tests.services.organisms import serving, write_organism
from tests.services.platforms import run_in_dagster, study
from tests.services.queues import running_queue

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def organisms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("organisms")
    write_organism(folder / "tiny", {"knockem_serve": serving("import time; time.sleep(0.02)")})
    return folder


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, organisms: Path) -> Iterator[ApiServer]:
    home = tmp_path_factory.mktemp("platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOCKEM_ORGANISMS", str(organisms))
        with running_queue(home, lease_seconds=3.0) as queue, running_api(queue.settings) as api:
            yield api


@contextmanager
def worker(api: ApiServer, folder: Path, token: str, organisms: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Give a worker process with nothing but a URL and a token, and what it says; it is ended by SIGTERM."""
    log = folder / "worker.log"
    environment = environment_of(folder / "elsewhere") | {
        "KNOCKEM_TOKEN": token,
        "KNOCKEM_ORGANISMS": str(organisms),
        "KNOCKEM_LEASE_SECONDS": "3",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "knockem_dagster", "worker", "--url", api.url, "--cpus", "2"],
            env=environment | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def submit(client: httpx.Client, *jobs: dict[str, Any], **fields: Any) -> str:
    answer = client.post("/v1/workflows", json={"name": "w", "jobs": jobs, **fields})
    assert answer.status_code == 201, answer.text
    return f"/v1/workflows/{answer.json()['id']}"


def test_a_workflow_is_run_by_a_worker_over_http(api: ApiServer, organisms: Path, tmp_path: Path) -> None:
    client = api.client()
    once = 'test "$TORC_ATTEMPT_ID" = 2 || exit 7'
    place = submit(
        client,
        {"name": "a_{i}", "command": "echo {i} >> order.txt", "parameters": {"i": "1:20"}},
        {"name": "again", "command": once, "failure_handler": "h", "depends_on_regexes": ["^a_"]},
        {"name": "end", "command": "echo end >> order.txt; exit 5", "depends_on": ["again"]},
        failure_handlers=[{"name": "h", "rules": [{"exit_codes": [7]}]}],
    )
    record, token = issue_token(api.platform.records, ALICE, Scope.WORKER)
    with worker(api, tmp_path, token, organisms) as (process, log):
        until(lambda: client.get(place).json()["state"] == "completed")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert "1 tried again" in log.read_text()
    assert (tmp_path / "order.txt").read_text().split()[-1] == "end"
    assert client.get(place).json()["jobs"] == {"completed": 21, "failed": 1}
    results = client.get(f"{place}/results", params={"limit": 1000}).json()["items"]
    assert len(results) == 23
    assert {each["computeNode"].startswith(worker_prefix(record.id)) for each in results} == {True}
    assert [each["exitCode"] for each in results if each["outcome"] == "failed"].count(7) == 1
    kinds = {each["kind"] for each in client.get(f"{place}/events", params={"limit": 1000}).json()["items"]}
    assert kinds == {"jobStarted", "jobEnded"}
    node = api.platform.records.compute_nodes.get(results[0]["computeNode"])
    assert (node.cpus, node.ended is None) == (2.0, False)
    assert client.get(f"/v1/computeNodes/{node.id}").json()["ended"] == node.ended
    assert client.get("/v1/computeNodes/nobody").status_code == 404


def test_competitions_are_run_by_a_worker_over_http(api: ApiServer, organisms: Path, tmp_path: Path) -> None:
    made = api.client().post("/v1/submissions", json=study(userEmail=None, maxActive=16))
    id = made.json()["id"]
    record, token = issue_token(api.platform.records, ALICE, Scope.WORKER)
    with worker(api, tmp_path, token, organisms) as (_, log), dg.DagsterInstance.ephemeral() as instance:
        until(lambda: "offers" in log.read_text())
        assert run_in_dagster(api.platform.settings.home, instance, id).success
    assert api.platform.records.submissions.get(id).state is State.COMPLETED
    workers = [each.worker for each in api.platform.records.attempt_results.find({"submissionId": id})]
    assert sum(each.startswith(worker_prefix(record.id)) for each in workers) > 10
    assert "0 done" not in log.read_text()


def test_a_worker_that_is_killed_loses_no_job(api: ApiServer, organisms: Path, tmp_path: Path) -> None:
    client = api.client()
    place = submit(client, {"name": "a_{i}", "command": "sleep 0.2", "parameters": {"i": "1:12"}})
    token = api.token(scope=Scope.WORKER)
    with worker(api, tmp_path, token, organisms) as (first, _):
        until(lambda: client.get(place).json()["jobs"].get("completed", 0) >= 2)
        first.kill()
    with worker(api, tmp_path, token, organisms):
        until(lambda: _reaped(api) and client.get(place).json()["state"] == "completed")
    assert client.get(place).json()["jobs"] == {"completed": 12}


def _reaped(api: ApiServer) -> bool:
    """Do what upkeep does for workers whose lease has lapsed."""
    import asyncio

    from knockem_dagster.jobs.opening import queue_of
    from knockem_dagster.jobs.tending import tend

    async def look() -> None:
        async with queue_of(api.platform) as queue:
            await tend(queue, api.platform.records, [], lease_seconds=3.0, say=lambda line: None)

    asyncio.run(look())
    return True


def test_a_token_works_for_its_user_unless_an_administrator_said_for_all(
    api: ApiServer, organisms: Path, tmp_path: Path
) -> None:
    alice, bob = api.client(), api.client(BOB)
    mine, theirs = (submit(client, {"name": "a", "command": "true"}) for client in (alice, bob))
    job = bob.get(f"{theirs}/jobs").json()["items"][0]["job"]["id"]
    client = api.client(scope=Scope.WORKER)
    assert client.post("/v1/work/jobs", json={"ids": [job]}).json()["jobs"] == []
    with worker(api, tmp_path, api.token(scope=Scope.WORKER), organisms):
        until(lambda: alice.get(mine).json()["state"] == "completed")
        time.sleep(0.5)
        assert bob.get(theirs).json()["jobs"] == {"ready": 1}
    for_all = issue_token(api.platform.records, ALICE, Scope.WORKER, for_all=True)[1]
    with worker(api, tmp_path, for_all, organisms) as (_, log):
        until(lambda: "offers" in log.read_text())
        root = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
        [there] = root.get("/v1/workers").json()["workers"]
        assert (there["cpus"], there["name"][8]) == (2.0, "-")
        until(lambda: bob.get(theirs).json()["state"] == "completed")


def test_a_revoked_token_ends_its_worker_and_a_wait_within_seconds(
    api: ApiServer, organisms: Path, tmp_path: Path
) -> None:
    record, token = issue_token(api.platform.records, ALICE, Scope.WORKER)
    client = api.client(token=token)
    waiter = f"{worker_prefix(record.id)}w/1"
    answers: list[tuple[int, float]] = []

    def wait() -> None:
        answer = client.post("/v1/work/waits", json={"waiter": waiter, "seconds": 30})
        answers.append((answer.status_code, time.monotonic()))

    with worker(api, tmp_path, token, organisms) as (process, log):
        until(lambda: "offers" in log.read_text())
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.5)
        revoked = time.monotonic()
        assert api.client().delete(f"/v1/tokens/{record.id}").status_code == 200
        waiting.join()
        assert process.wait(30) == 1
    [(status, when)] = answers
    assert status == 401
    assert when - revoked < 5
    assert "refuses the token" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_worker_may_not_speak_for_another(api: ApiServer) -> None:
    client = api.client(scope=Scope.WORKER)
    other = "12345678-host-1"
    description = {
        "host": "h", "owner": "o", "cpus": 1, "memoryMiB": 1, "gpus": 0, "secondsLeft": None, "runtimes": ["command"],
        "leaseSeconds": 3, "started": "now",
    }  # fmt: skip
    for path, body in (
        ("beats", {"worker": other, "leaseSeconds": 3, "description": description}),
        ("departures", {"worker": other}),
        ("claims", {"worker": other, "waiter": other, "classes": ["c"]}),
        ("waits", {"waiter": other, "seconds": 1}),
        ("results", {"worker": other, "reports": []}),
        ("events", {"worker": other, "events": []}),
    ):
        refused = client.post(f"/v1/work/{path}", json=body)
        assert (path, refused.status_code) == (path, 403), refused.text
    assert client.get(f"/v1/work/studies/{new_id()}").status_code == 404
    unregistered = f"{worker_prefix(client.get('/v1/self').json()['tokenId'])}w"
    lapsed = client.post("/v1/work/claims", json={"worker": unregistered, "waiter": unregistered, "classes": ["c"]})
    assert (lapsed.status_code, lapsed.json()["type"]) == (409, "about:lease-lapsed")
    assert api.client().post("/v1/work/claims", json={}).status_code == 403
