"""Workflows over HTTP, with a real worker beside the server."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.jobs.workflows import Submitter, store_workflow
from knockem_dagster.records.accounts import Scope
from tests.services.api_server import ALICE, BOB, ApiServer, running_api
from tests.services.job_play import worker_on
from tests.services.queues import running_queue
from tests.services.waiting import until

EXAMPLES = Path(__file__).parents[3] / "docs" / "workflows"


@contextmanager
def a_worker(api: ApiServer) -> Iterator[None]:
    """Let a worker be at work for as long as the block lasts."""
    over, there = threading.Event(), threading.Event()

    async def work() -> None:
        async with queue_of(api.platform) as queue, worker_on(api.platform, queue):
            there.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert there.wait(30)
        yield
    finally:
        over.set()
        thread.join()


def submit(client: httpx.Client, *jobs: dict[str, Any], folder: Path, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/workflows", json={"name": "w", "jobs": jobs, **fields}, params={"folder": str(folder)})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/workflows/{answer.json()['id']}"
    return answer.json()


def test_a_workflow_is_submitted_run_and_looked_at(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    made = submit(
        client,
        {"name": "begin", "command": "echo hello | tee ${files.output.x}"},
        {"name": "end", "command": "cat ${files.input.x}; exit 3", "resource_requirements": "small"},
        folder=tmp_path,
        files=[{"name": "x", "path": str(tmp_path / "x")}],
        resource_requirements=[{"name": "small", "num_cpus": 1, "memory": "100m"}],
    )
    place = f"/v1/workflows/{made['id']}"
    assert (made["state"], made["jobs"]) == ("running", {"blocked": 1, "ready": 1})
    with a_worker(api):
        until(lambda: client.get(place).json()["state"] == "completed")
    over = client.get(place).json()
    assert (over["jobs"], over["hasFailed"], over["number"]) == ({"completed": 1, "failed": 1}, True, 2)
    begin, end = client.get(f"{place}/jobs").json()["items"]
    assert (begin["job"]["name"], begin["state"], begin["result"]["tail"]) == ("begin", "completed", "hello")
    assert (end["state"], end["result"]["exitCode"]) == ("failed", 3)
    assert client.get(f"{place}/jobs/{end['job']['id']}").json() == end
    assert [each["exitCode"] for each in client.get(f"{place}/jobs/{end['job']['id']}/tries").json()["items"]] == [3]
    names = {f"jobs/{begin['job']['id']}": "begin", f"jobs/{end['job']['id']}": "end"}
    [blocks] = client.get(f"{place}/edges/blocks").json()["items"]
    assert (names[blocks["_from"]], names[blocks["_to"]]) == ("begin", "end")
    [produces] = client.get(f"{place}/edges/produces").json()["items"]
    [file] = client.get(f"{place}/files").json()["items"]
    assert produces["_to"] == f"files/{file['id']}"
    assert len(client.get(f"{place}/edges/returned").json()["items"]) == 2
    assert {each["_to"] for each in client.get(f"{place}/edges/executed").json()["items"]} == names.keys()
    [needs] = client.get(f"{place}/resourceRequirements").json()["items"]
    assert needs["memoryMiB"] == 100
    ended = client.get(f"{place}/events", params={"where": "$[?@ == 'failed']"}).json()["items"]
    assert [(each["kind"], each["data"]["job"]) for each in ended] == [("jobEnded", end["job"]["id"])]


def test_a_workflow_is_defined_by_nodes_and_edges(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    body: dict[str, Any] = {
        "name": "direct",
        "jobs": [{"name": "make", "command": "echo 3 > x"}, {"name": "use", "command": "cat x; cat x >> y"}],
        "files": [{"name": "x", "path": "x"}],
        "edges": [
            {"kind": "needs", "from": "jobs/use", "to": "files/x"},
            {"kind": "produces", "from": "jobs/make", "to": "files/x"},
        ],
    }
    made = client.post("/v1/workflows", json=body, params={"folder": str(tmp_path)}).json()
    with a_worker(api):
        until(lambda: client.get(f"/v1/workflows/{made['id']}").json()["state"] == "completed")
    assert (tmp_path / "y").read_text() == "3\n"
    body["edges"] = [{"kind": "needs", "from": "jobs/no", "to": "files/x"}]
    wrong = client.post("/v1/workflows", json=body)
    assert (wrong.status_code, wrong.json()["faults"][0]["field"]) == (422, "edges[0]")


def test_what_failed_is_run_again(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    made = submit(client, {"name": "a", "command": "test -e there"}, folder=tmp_path)
    place = f"/v1/workflows/{made['id']}"
    assert client.post(f"{place}/restart").status_code == 409
    with a_worker(api):
        until(lambda: client.get(place).json()["state"] == "completed")
        (tmp_path / "there").touch()
        assert client.post(f"{place}/restart").json()["state"] == "running"
        until(lambda: client.get(place).json()["state"] == "completed")
    assert client.get(place).json()["jobs"] == {"completed": 1}
    over = client.post(f"{place}/cancel")
    assert (over.status_code, client.get(place).json()["state"]) == (409, "completed")
    assert client.post(f"{place}/restart", params={"memoryFactor": 0.5}).status_code == 422


def test_the_tries_at_a_job_come_in_pages(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    handlers = [{"name": "h", "rules": [{"match_all_exit_codes": True, "max_retries": 2}]}]
    made = submit(
        client,
        {"name": "a_{i}", "command": "exit 1", "failure_handler": "h", "parameters": {"i": "1:3"}},
        folder=tmp_path,
        failure_handlers=handlers,
    )
    place = f"/v1/workflows/{made['id']}"
    with a_worker(api):
        until(lambda: client.get(place).json()["state"] == "completed")
    for each in client.get(f"{place}/jobs").json()["items"]:
        path, cursor, found = f"{place}/jobs/{each['job']['id']}/tries", "", list[str]()
        while cursor is not None:
            page = client.get(path, params={"limit": 1, "cursor": cursor}).json()
            found += [one["jobId"] for one in page["items"]]
            cursor = page["next"]
        assert found == [each["job"]["id"]] * 3
    half = base64.urlsafe_b64encode(b'["\\ud800", "x"]').decode()
    assert client.get(f"{place}/files", params={"cursor": half}).status_code == 422


def test_nothing_is_stored_while_the_queue_is_away(tmp_path: Path) -> None:
    with running_queue(tmp_path / "home") as queue, running_api(queue.settings) as api:
        client = api.client()
        first = submit(client, {"name": "a", "command": "true"}, folder=tmp_path)
        queue.kill()
        body = {"name": "w", "jobs": [{"name": "a", "command": "true"}]}
        assert client.post("/v1/workflows", json=body).status_code == 503
        assert [each["id"] for each in client.get("/v1/workflows").json()["items"]] == [first["id"]]
        assert client.get(f"/v1/workflows/{first['id']}").json()["jobs"] == {"blocked": 1}
        assert client.get(f"/v1/workflows/{first['id']}/jobs").status_code == 200


def test_a_graph_that_is_still_being_stored_is_not_drawn(api: ApiServer, tmp_path: Path) -> None:
    graph = graph_of(spec_of({"name": "w", "jobs": [{"name": "a", "command": "true"}]}))
    half = store_workflow(api.platform.records, graph, Submitter(user_email=ALICE, folder=str(tmp_path)))
    assert api.client().get(f"/v1/workflows/{half.id}/graph").status_code == 409


def test_a_workflow_is_canceled(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    made = submit(client, {"name": "a_{i}", "command": "true", "parameters": {"i": "1:3"}}, folder=tmp_path)
    for _ in range(2):
        canceled = client.post(f"/v1/workflows/{made['id']}/cancel").json()
        assert (canceled["state"], canceled["jobs"]) == ("canceled", {"canceled": 3})


def test_nodes_that_nobody_acquires_are_named_as_without_effect(api: ApiServer) -> None:
    action = {"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler": "s"}
    file = {"name": "w", "jobs": [{"name": "a", "command": "true"}], "actions": [action]}
    answer = api.client().post("/v1/workflows/check", json={**file, "slurm_schedulers": [{"name": "s"}]})
    assert answer.json()["withoutEffect"] == ["schedule_nodes on_workflow_start"]


@pytest.mark.parametrize("kind", ["json", "yaml", "json5"])
def test_the_formats_of_an_example_are_accepted(api: ApiServer, kind: str) -> None:
    def checked(kind: str) -> dict[str, Any]:
        data, headers = (EXAMPLES / f"files.{kind}").read_bytes(), {"Content-Type": f"application/{kind}"}
        answer = api.client().post("/v1/workflows/check", content=data, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert checked(kind)["jobs"] > 1
    assert checked(kind) == checked("json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"name": "w", "jobs": [{"name": "a", "comand": "x"}]}', "jobs[0].comand"),
        (b'{"name": "w", "jobs": [{"name": "a", "command": "x", "depends_on": ["a"]}]}', "depends_on"),
        (
            b'{"name": "w", "jobs": [{"name": "a_{i}", "command": "x", "parameters": {"i": "1:1000000"}}]}',
            "jobs[0].parameters.i",
        ),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "(file)"),
        (b"\xff", "(file)"),
        (b"", "(file)"),
    ],
)
def test_a_wrong_file_is_refused_with_its_faults(api: ApiServer, body: bytes, words: str) -> None:
    client = api.client()
    before = client.get("/v1/workflows").json()
    refused = client.post("/v1/workflows", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert words in [each["field"] for each in refused.json()["faults"]]
    assert client.get("/v1/workflows").json() == before


def test_files_that_would_not_be_found_on_another_machine_are_refused(tmp_path: Path) -> None:
    def files(*paths: str) -> dict[str, Any]:
        jobs = [
            {"name": "make", "command": " && ".join(f"touch ${{files.output.{path}}}" for path in paths)},
            *({"name": f"use {path}", "command": f"cat ${{files.input.{path}}}"} for path in paths),
        ]
        return {"name": "w", "jobs": jobs, "files": [{"name": path, "path": path} for path in paths]}

    async def join(*hosts: str, prefix: str = "") -> None:
        async with queue_of(api.platform) as queue:
            for host in hosts:
                said = {"host": host, "runtimes": ["command"], "only": ""}
                await queue.beat(f"{prefix}{host.split()[0]}", lease_seconds=600, description=orjson.dumps(said))

    with running_queue(tmp_path / "home") as queue_server, running_api(queue_server.settings) as api:
        client = api.client()
        asyncio.run(join("one", "one (over HTTP)"))
        assert client.post("/v1/workflows", json=files("a")).status_code == 201
        bobs, _ = issue_token(api.platform.records, BOB, Scope.WORKER)
        asyncio.run(join("elsewhere (over HTTP)", prefix=worker_prefix(bobs.id)))
        assert client.post("/v1/workflows", json=files("a")).status_code == 201, "it does nothing of Alice's"
        asyncio.run(join("two (over HTTP)"))
        number = len(client.get("/v1/workflows").json()["items"])
        assert client.post("/v1/workflows/check", json=files("a")).status_code == 422
        refused = client.post("/v1/workflows", json=files("a", "b"))
        assert refused.status_code == 422
        faults = {fault["field"]: fault for fault in refused.json()["faults"]}
        assert faults.keys() == {"files.a", "files.b"}
        assert (
            "one, two" in faults["files.a"]["allowed"] and faults["files.a"]["value"] == "made by make, read by use a"
        )
        assert len(client.get("/v1/workflows").json()["items"]) == number
        assert client.post(f"/v1/workflows?folder={tmp_path}", json=files("a")).status_code == 201
        assert client.post("/v1/workflows", json={"name": "w", "jobs": [{"name": "a", "command": "b"}]}).is_success


def test_a_body_that_is_too_large_is_not_read(api: ApiServer) -> None:
    client = api.client()
    large = b"x" * (50 << 20)
    assert client.post("/v1/workflows", content=large).status_code == 413
    assert client.post("/v1/workflows", content=iter([large])).status_code == 413, "nor when nobody says how large"


def test_lists_come_in_pages(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    sweep = {"i": "1:25"}
    made = submit(
        client,
        {"name": "a_{i:02d}", "command": "true", "parameters": sweep, "output_files": ["f_{i:02d}"]},
        {"name": "b_{i:02d}", "command": "true", "parameters": sweep, "input_files": ["f_{i:02d}"]},
        folder=tmp_path,
        files=[{"name": "f_{i:02d}", "path": "f_{i}", "parameters": sweep}],
    )
    place = f"/v1/workflows/{made['id']}"

    def all_of(path: str, **parameters: Any) -> list[Any]:
        items: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            page = client.get(f"{place}/{path}", params={"limit": 7, "cursor": cursor, **parameters}).json()
            assert len(page["items"]) == 7 or page["next"] is None
            items += page["items"]
            cursor = page["next"]
        return items

    jobs = all_of("jobs")
    assert [each["job"]["name"] for each in jobs] == [f"{letter}_{i:02d}" for letter in "ab" for i in range(1, 26)]
    assert {each["state"] for each in all_of("jobs", state="ready")} == {"ready"}
    assert len(all_of("jobs", state=["ready", "blocked"])) == 50
    assert len(all_of("jobs", state="blocked", name="b_1")) == 10
    assert len({each["id"] for each in all_of("files")}) == 25
    assert len({each["_from"] for each in all_of("edges/blocks")}) == 25
    assert client.get(f"{place}/files", params={"cursor": "nonsense"}).status_code == 422
    assert client.get(f"{place}/files", params={"limit": 0}).status_code == 422


def test_events_and_user_data_are_found_by_what_is_in_them(api: ApiServer, tmp_path: Path) -> None:
    client = api.client()
    made = submit(
        client,
        {"name": "a", "command": "true", "output_user_data": ["u"]},
        folder=tmp_path,
        user_data=[{"name": "u", "data": {"rate": 0.1}}, {"name": "v", "data": [1, 2]}],
    )
    place = f"/v1/workflows/{made['id']}"
    for number in range(3):
        posted = client.post(f"{place}/events", json={"kind": "measured", "data": {"deep": [{"number": number}]}})
        assert posted.status_code == 201
        assert posted.json()["source"] == "alice@example.org"
    found = client.get(f"{place}/events", params={"where": "$.deep[?@.number > 0]"}).json()["items"]
    assert [each["data"]["deep"][0]["number"] for each in found] == [1, 2]
    [rated] = client.get(f"{place}/userData", params={"where": "$.rate"}).json()["items"]
    changed = client.put(f"{place}/userData/{rated['id']}", json={"data": {"speed": 3}}).json()
    assert changed["data"] == {"speed": 3}
    assert client.put(f"{place}/userData/{rated['id']}", json={"data": {"speed": 3}}).json() == changed
    assert changed["changed"] > changed["datetime"]
    assert client.get(f"{place}/userData", params={"where": "$.rate"}).json()["items"] == []
    assert client.get(f"{place}/edges/stores").json()["items"][0]["_to"] == f"userData/{rated['id']}"
    slow = ("$..rate", "$.a[?@.b[?@.c > 1]]", "$.a[?count($.a) > 1]")
    for wrong in ("$.[", "$[?match(@.a, '(a+)+$')]", "rate", *slow):
        assert client.get(f"{place}/events", params={"where": wrong}).status_code == 422
    for wrong in ({"kind": ""}, {"kind": "k", "data": {"n": 10**30}}, {"kind": "k", "data": [1]}, {"data": {}}, []):
        assert client.post(f"{place}/events", content=json.dumps(wrong)).status_code == 422
    assert client.post(f"{place}/events", content=b'{"kind": "\\ud800"}').status_code == 422
    assert client.put(f"{place}/userData/nothing", json={"data": 1}).status_code == 404
