"""Workers that reach the platform over HTTP only: a real worker process with a home of its own, one URL, one token."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import orjson
import pytest
import redis

from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.api.http import work
from knockem_dagster.api.http.site import MOST_WAITING
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.attempt_records import job_of
from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Report, Verdict
from knockem_dagster.jobs.tending import tend
from knockem_dagster.jobs.work_messages import Claimed, Ended, Reported
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.record import new_id
from knockem_dagster.records.submissions import State
from knockem_dagster.stores.queue_connection import open_queue
from tests.services.api_server import ADMINISTRATOR, ALICE, BOB, ApiServer, running_api
from tests.services.command_line import environment_of
from tests.services.organisms import serving, write_organism
from tests.services.platforms import run_in_dagster, study
from tests.services.queues import running_queue
from tests.services.waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).parents[3]
REFUSED_SECONDS = 5
"""After so long at most a token that was revoked permits nothing, also to those who wait by it."""


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


def test_a_worker_over_http_runs_what_each_worker_runs(api: ApiServer, organisms: Path, tmp_path: Path) -> None:
    client = api.client()
    commands = {"on_worker_start": "echo begin >> order.txt; false", "on_worker_complete": "echo end >> order.txt"}
    place = submit(
        client,
        {"name": "a_{i}", "command": "echo {i} >> order.txt", "parameters": {"i": "1:5"}},
        actions=[
            {"trigger_type": trigger, "action_type": "run_commands", "commands": [command]}
            for trigger, command in commands.items()
        ],
    )
    with worker(api, tmp_path, api.token(scope=Scope.WORKER), organisms) as (_, log):
        until(lambda: client.get(place).json()["state"] == "completed")
    order = (tmp_path / "order.txt").read_text().split()
    assert (order[0], sorted(order[1:-1]), order[-1]) == ("begin", list("12345"), "end")
    assert client.get(place).json()["jobs"] == {"completed": 5}
    events = client.get(f"{place}/events", params={"limit": 1000}).json()["items"]
    ended = [each["data"] for each in events if each["kind"] == "actionEnded"]
    assert [(each["trigger"], each["outcome"]) for each in ended] == [
        ("on_worker_start", "failed"),
        ("on_worker_complete", "succeeded"),
    ]
    assert "action 0: on_worker_start of workflow" in log.read_text()
    theirs = place.replace("/v1/", "/v1/work/") + "/actions"
    mine = api.client(scope=Scope.WORKER).get(theirs).json()["actions"]
    assert [each["trigger"] for each in mine] == list(commands)
    assert api.client(BOB, Scope.WORKER).get(theirs).json() == {"actions": []}
    assert client.get(theirs).status_code == 403


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
    assert ": 0 done" not in log.read_text()


def test_a_worker_that_is_killed_loses_no_job(api: ApiServer, organisms: Path, tmp_path: Path) -> None:
    client = api.client()
    held = "until test -e go; do sleep 0.1; done"
    place = submit(
        client,
        {"name": "a_{i}", "command": "true", "parameters": {"i": "1:10"}},
        {"name": "b_{i}", "command": held, "parameters": {"i": "1:2"}, "depends_on_regexes": ["^a_"]},
    )
    token = api.token(scope=Scope.WORKER)
    with worker(api, tmp_path, token, organisms) as (first, _):
        until(lambda: client.get(place).json()["jobs"] == {"completed": 10, "running": 2})
        first.kill()
    (tmp_path / "go").touch()
    with worker(api, tmp_path, token, organisms):
        until(lambda: _reaped(api) and client.get(place).json()["state"] == "completed")
    assert client.get(place).json()["jobs"] == {"completed": 12}


def _reaped(api: ApiServer) -> bool:
    """Do what upkeep does for workers whose lease has lapsed."""

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
    assert bob.get(theirs).json()["jobs"] == {"ready": 1}
    record, for_all = issue_token(api.platform.records, ALICE, Scope.WORKER, for_all=True)
    with worker(api, tmp_path, for_all, organisms) as (_, log):
        until(lambda: "offers" in log.read_text())
        root = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
        there = {each["name"]: each["cpus"] for each in root.get("/v1/workers").json()["items"]}
        assert [cpus for name, cpus in there.items() if name.startswith(worker_prefix(record.id))] == [2.0]
        until(lambda: bob.get(theirs).json()["state"] == "completed")


def test_a_claim_brings_jobs_only_of_those_for_whom_its_token_works(api: ApiServer) -> None:
    carol, dave = "carol@example.org", "dave@example.org"
    for address in (carol, dave):
        add_user(api.platform.records, address)
    two = {"name": "a_{i}", "command": "true", "parameters": {"i": "1:2"}}
    theirs, mine = (submit(api.client(address), two) for address in (dave, carol))
    hand, anybody = ByHand(api, carol), ByHand(api, carol, for_all=True)
    assert hand.claim(only=theirs) == Claimed().model_dump(by_alias=True, mode="json")
    assert [hand.claim(preferred=theirs)["owner"], hand.claim()["owner"]] == [id_of(mine)] * 2
    assert hand.claim()["jobs"] == hand.claim(preferred=theirs)["jobs"] == []
    assert api.client(dave).get(theirs).json()["jobs"] == {"ready": 2}
    assert anybody.claim(only=theirs)["owner"] == id_of(theirs)
    hand.leave()  # its jobs are ready again
    assert anybody.claim(only=mine)["owner"] == id_of(mine)
    anybody.leave()
    for address, place in ((dave, theirs), (carol, mine)):
        assert api.client(address).post(f"{place}/cancel").json()["state"] == "canceled"


def test_a_revoked_token_ends_its_worker_and_its_waits(
    api: ApiServer, organisms: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    assert work.LOOK_SECONDS <= REFUSED_SECONDS < PATIENCE_SECONDS
    record, token = issue_token(api.platform.records, ALICE, Scope.WORKER)
    with ThreadPoolExecutor() as pool, open_queue(api.platform.settings) as server:
        asked = {"waiter": f"{worker_prefix(record.id)}w/1", "seconds": PATIENCE_SECONDS}
        waiting = pool.submit(api.client(token=token).post, "/v1/work/waits", json=asked)
        until(lambda: waiting_in(server) == 1)
        with worker(api, tmp_path, token, organisms) as (process, log):
            until(lambda: waiting_in(server) > 1)
            assert api.client().delete(f"/v1/tokens/{record.id}").status_code == 200
            revoked = time.monotonic()
            assert waiting.result().status_code == 401
            told = f"{time.monotonic() - revoked:.1f} (limit {REFUSED_SECONDS})"
            record_property("seconds until a wait of a revoked token was refused", told)
            assert process.wait(PATIENCE_SECONDS) == 1
    assert "refuses the token" in log.read_text()
    assert "Traceback" not in log.read_text()


def waiting_in(server: redis.Redis) -> int:
    """Return how many wait for work in the queue server at this moment."""
    return sum(each["cmd"] == "blpop" and "b" in each["flags"] for each in server.client_list())


def id_of(place: str) -> str:
    """Return the id of the workflow at this place."""
    return place.rpartition("/")[2]


class ByHand:
    """A worker played by the test: registered, holding one job."""

    def __init__(self, api: ApiServer, address: str = ALICE, *, for_all: bool = False) -> None:
        record, token = issue_token(api.platform.records, address, Scope.WORKER, for_all=for_all)
        self.token_id = record.id
        self.client = api.client(token=token)
        self.name = f"{worker_prefix(record.id)}w"
        description = {"host": socket.gethostname(), "owner": "o", "cpus": 1, "memoryMiB": 9000, "gpus": 0}
        description |= {"runtimes": ["command"], "leaseSeconds": 60, "started": "now"}
        told = {"worker": self.name, "leaseSeconds": 60, "description": description}
        assert self.client.post("/v1/work/beats", json=told).status_code == 200

    def claim(self, only: str = "", *, preferred: str = "") -> dict[str, Any]:
        """Take a job: of the one workflow, or rather of the other one than of any."""
        classes = [*self.client.get("/v1/work/classes").json()["classes"]]
        asked = {"worker": self.name, "waiter": self.name, "classes": classes}
        asked |= {"only": id_of(only), "preferred": id_of(preferred)}
        return self.client.post("/v1/work/claims", json=asked).json()

    def report(self, claimed: dict[str, Any], **said: Any) -> httpx.Response:
        """Say what came of it."""
        [job] = claimed["jobs"]
        told = {"owner": claimed["owner"], "job": job, "token": claimed["token"], **said}
        return self.client.post("/v1/work/results", json={"worker": self.name, "reports": [told]})

    def leave(self) -> None:
        """Leave."""
        self.client.post("/v1/work/departures", json={"worker": self.name})


SUCCEEDED = {"verdict": "succeeded", "ended": {"outcome": "succeeded", "exitCode": 0}}


def test_what_came_of_a_job_is_told_and_makes_sense(api: ApiServer) -> None:
    client = api.client()
    place = submit(client, {"name": "a", "command": "true"})
    hand = ByHand(api)
    claimed = hand.claim(place)
    assert hand.report(claimed, verdict="succeeded").status_code == 422
    assert hand.report(claimed, verdict="succeeded", ended={"outcome": "failed"}).status_code == 422
    assert hand.report(claimed, verdict="returned", ended={"outcome": "failed"}).status_code == 422
    assert hand.report(claimed, **SUCCEEDED).status_code == 200
    assert client.get(place).json()["jobs"] == {"completed": 1}
    assert hand.report(claimed, **SUCCEEDED).json() == {"entries": [None]}, "it is not held any more"
    hand.leave()


def test_a_result_that_the_queue_took_before_the_server_died_is_recorded_when_it_is_told_again(api: ApiServer) -> None:
    client = api.client()
    place = submit(
        client, {"name": "a", "command": "true"}, {"name": "z", "command": "true", "priority": -1},
        {"name": "b", "command": "true", "depends_on": ["a"]},
    )  # fmt: skip
    hand = ByHand(api)
    claimed = hand.claim(place)
    payload = Ended.model_validate(SUCCEEDED["ended"]).to_payload(hand.name)
    job, held_by = job_of(claimed["jobs"][0]), claimed["token"].encode()
    report = Report(claimed["owner"], job, held_by, Verdict.SUCCEEDED, 0.0, payload)

    async def take() -> None:
        async with queue_of(api.platform) as queue:
            assert None not in await queue.finish(hand.name, [report])

    asyncio.run(take())
    assert client.get(place).json()["jobs"] == {"blocked": 2, "ready": 1}
    assert hand.report(claimed, **SUCCEEDED).json() == {"entries": [None]}
    assert client.get(place).json()["jobs"] == {"ready": 2, "completed": 1}
    client.post(f"{place}/cancel")
    hand.leave()


def test_an_outcome_that_cannot_be_read_stops_nobody(api: ApiServer) -> None:
    client = api.client()
    place = submit(client, {"name": "a_{i}", "command": "true", "parameters": {"i": "1:2"}})
    hand = ByHand(api)
    readable = Ended.model_validate(SUCCEEDED["ended"]).to_payload(hand.name)
    outcomes = [(hand.claim(place), Verdict.FAILED, b""), (hand.claim(place), Verdict.SUCCEEDED, readable)]
    reports = [
        Report(claimed["owner"], job_of(claimed["jobs"][0]), claimed["token"].encode(), verdict, 0.0, payload)
        for claimed, verdict, payload in outcomes
    ]

    async def take() -> None:
        async with queue_of(api.platform) as queue:
            assert None not in await queue.finish(hand.name, reports)

    asyncio.run(take())
    until(lambda: _reaped(api) and client.get(place).json()["state"] == "completed")
    assert client.get(place).json()["jobs"] == {"completed": 1, "failed": 1}
    hand.leave()


def test_what_a_worker_says_of_its_process_is_not_looked_for_here(api: ApiServer) -> None:
    hand = ByHand(api)
    there = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR).get("/v1/workers").json()["items"]
    [host] = [each["host"] for each in there if each["name"] == hand.name]
    assert host != socket.gethostname()
    hand.leave()


def test_messages_hold_what_a_queue_may_have(api: ApiServer) -> None:
    """Thousands of classes and owners, and counts as large as an organism likes."""
    hand = ByHand(api)
    classes = [f"class-{number}" for number in range(5000)]
    asked = {"worker": hand.name, "waiter": hand.name, "classes": classes, "excluded": [new_id() for _ in range(5000)]}
    assert hand.client.post("/v1/work/claims", json=asked).json()["jobs"] == []
    large = orjson.dumps({"outcome": "succeeded", "counts": [1e13, 5, 5]})
    assert Reported.of(Report("o", job_of(new_id()), b"t", Verdict.SUCCEEDED, 0.0, large)).ended is not None
    odd = orjson.dumps({"outcome": "succeeded", "counts": [-1, 5, 5]})
    told = Reported.of(Report("o", job_of(new_id()), b"t", Verdict.SUCCEEDED, 0.0, odd))
    assert (told.verdict, told.ended and told.ended.outcome) == (Verdict.FAILED, Outcome.BAD_RESULT)
    hand.leave()


def test_many_that_wait_keep_nobody_else_waiting(api: ApiServer) -> None:
    hand = ByHand(api)
    token = hand.client.headers["Authorization"].removeprefix("Bearer ")
    with ThreadPoolExecutor(120) as pool, open_queue(api.platform.settings) as server:
        asked = [{"waiter": f"{hand.name}/{number}", "seconds": PATIENCE_SECONDS} for number in range(120)]
        waiting = [pool.submit(api.client(token=token).post, "/v1/work/waits", json=each) for each in asked]
        until(lambda: waiting_in(server) == MOST_WAITING)
        assert hand.client.post("/v1/work/beats", json={"worker": hand.name, "leaseSeconds": 60}).status_code == 200
        assert sum(not each.done() for each in waiting) >= MOST_WAITING
        hand.leave()
        assert api.client().delete(f"/v1/tokens/{hand.token_id}").status_code == 200
        statuses = [each.result().status_code for each in waiting]
    assert statuses.count(401) == MOST_WAITING


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
