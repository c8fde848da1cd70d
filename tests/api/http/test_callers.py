"""Who may do what: nothing without a token, one's own with one, and what a scope permits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from knockem_dagster.records.accounts import Scope
from tests.services.api_server import ADMINISTRATOR, ALICE, BOB, ApiServer
from tests.services.submissions import a_submission, store_with_competitions

WORKFLOW = {"name": "w", "jobs": [{"name": "a", "command": "true"}]}
OPEN = {"/healthz", "/openapi.json"}


def operations(client: httpx.Client) -> list[tuple[str, str]]:
    """Return method and path of all that the specification tells."""
    paths = client.get("/openapi.json").json()["paths"]
    return [(method, path) for path, found in paths.items() for method in found]


def test_nothing_is_readable_without_a_token(api: ApiServer) -> None:
    nobody = api.client(token="")
    for method, path in operations(nobody):
        answer = nobody.request(method, path.replace("{", "").replace("}", ""))
        if path in OPEN:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("header", ["Bearer nonsense", "Basic YTpi", "Bearer", "Bearer knockem_", "Bearer \xff"])
def test_what_is_no_token_is_refused(api: ApiServer, header: str) -> None:
    answer = httpx.get(f"{api.url}/v1/self", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401


def test_a_revoked_token_is_refused_at_once(api: ApiServer) -> None:
    alice, other = api.client(), api.client()
    made = alice.post("/v1/tokens", json={"scope": "user", "label": "script"}).json()
    script = api.client(token=made["token"])
    itself = {"userEmail": ALICE, "scope": "user", "tokenId": made["id"], "expires": made["expires"]}
    assert script.get("/v1/self").json() == itself
    assert [each["label"] for each in other.get("/v1/tokens", params={"limit": 1}).json()["items"]] == ["script"]
    assert "token" not in other.get("/v1/tokens").text.replace("tokens", "")
    assert api.client(BOB).delete(f"/v1/tokens/{made['id']}").status_code == 404
    assert alice.delete(f"/v1/tokens/{made['id']}").json()["revoked"]
    assert script.get("/v1/self").status_code == 401


def test_what_belongs_to_others_is_not_there(api: ApiServer) -> None:
    alice, bob, root = api.client(), api.client(BOB), api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    id = alice.post("/v1/workflows", json=WORKFLOW).json()["id"]
    job = alice.get(f"/v1/workflows/{id}/jobs").json()["items"][0]["job"]["id"]
    specification = alice.get("/openapi.json").json()
    for path, operations in specification["paths"].items():
        if not path.startswith("/v1/workflows/{workflow}"):
            continue
        for method in operations.keys() & {"get", "post", "put"}:
            place = path.format(workflow=id, job=job, kind="blocks", data="x")
            answer = bob.request(method, place, json={"kind": "k", "data": {}})
            assert answer.status_code == 404, (method, place)
            assert id in answer.json()["detail"]
    assert bob.get("/v1/workflows").json()["items"] == []
    assert root.get(f"/v1/workflows/{id}").json()["userEmail"] == ALICE
    assert id in [each["id"] for each in root.get("/v1/workflows").json()["items"]]


def test_a_worker_may_work_and_nothing_else_even_with_what_is_its_users(api: ApiServer) -> None:
    worker, alice = api.client(scope=Scope.WORKER), api.client()
    submission = a_submission("of a worker's user", user_email=ALICE)
    store_with_competitions(api.platform.records, submission, answered=1, failed=0)
    workflow = alice.post("/v1/workflows", json=WORKFLOW).json()["id"]
    job = alice.get(f"/v1/workflows/{workflow}/jobs").json()["items"][0]["job"]["id"]
    token = alice.post("/v1/tokens", json={"scope": "user"}).json()["id"]
    there = {"submission": submission.id, "workflow": workflow, "job": job, "token": token, "address": ALICE}
    there |= {"kind": "blocks", "table": "competitions", "node": "n", "data": "d", "instance": "i"}
    bodies = {"/v1/workflows": WORKFLOW, "/v1/workflows/check": WORKFLOW, "/v1/tokens": {"scope": "user"}}
    for method, path in operations(worker):
        if path in OPEN | {"/v1/self"} or path.startswith("/v1/work/"):
            continue
        answer = worker.request(method, path.format_map(there), json=bodies.get(path, {}))
        is_of_an_instance = "/{instance}" in path and not path.endswith("/token")  # which has a token of its own
        assert answer.status_code == (401 if is_of_an_instance else 403), (method, path, answer.text)
    assert worker.get("/v1/self").json()["scope"] == "worker"


def test_a_scope_permits_what_it_says(api: ApiServer) -> None:
    alice = api.client()
    for path in ("/v1/users", "/v1/workers", "/metrics"):
        assert alice.get(path).status_code == 403
    assert alice.post("/v1/tokens", json={"scope": "administrator"}).status_code == 403
    assert alice.post("/v1/tokens", json={"scope": "user", "userEmail": BOB}).status_code == 404
    assert alice.post("/v1/tokens", json={"scope": "worker"}).json()["scope"] == "worker"


def test_administrators_keep_users(api: ApiServer) -> None:
    root, alice = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR), api.client()
    assert root.post("/v1/users", json={"userEmail": "carol@lab"}).status_code == 201
    assert root.post("/v1/users", json={"userEmail": "carol@lab"}).status_code == 409
    refused = root.post("/v1/users", json={"userEmail": "carol", "quotas": {"activeJobs": -1}})
    assert refused.status_code == 422
    assert refused.json()["faults"][0]["field"] == "quotas.activeJobs"
    assert "carol@lab" in [each["userEmail"] for each in root.get("/v1/users").json()["items"]]
    assert root.put("/v1/users/carol@lab/quotas", json={"activeJobs": 3}).json()["quotas"] == {
        "activeJobs": 3,
        "cpuHours": None,
        "storedBytes": None,
    }
    assert alice.get(f"/v1/users/{ALICE}").json()["userEmail"] == ALICE
    assert alice.get("/v1/users/carol@lab").status_code == 404
    token = root.post("/v1/tokens", json={"scope": "user", "userEmail": "carol@lab"}).json()["token"]
    assert api.client(token=token).get("/v1/self").json()["userEmail"] == "carol@lab"


@pytest.mark.parametrize(
    ("quotas", "words"),
    [
        ({"activeJobs": 2}, "activeJobs: 0 of 2 are used, and 3 more"),
        ({"storedBytes": 10}, "storedBytes: 0 of 10 are used"),
        ({"cpuHours": 0}, "cpuHours: 0.00 of 0 are used"),
    ],
)
def test_quotas_are_refused_by_name(api: ApiServer, quotas: dict[str, int], words: str) -> None:
    root = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    [name] = quotas
    address = f"{name}@example.org"
    root.post("/v1/users", json={"userEmail": address, "quotas": quotas})
    token = root.post("/v1/tokens", json={"scope": "user", "userEmail": address}).json()["token"]
    client = api.client(token=token)
    three = {"name": "w", "jobs": [{"name": "a_{i}", "command": "true", "parameters": {"i": "1:3"}}]}
    refused = client.post("/v1/workflows", json=three)
    assert refused.status_code == 403
    assert words in refused.json()["detail"]
    assert client.get("/v1/workflows").json()["items"] == []
    root.put(f"/v1/users/{address}/quotas", json={})
    assert client.post("/v1/workflows", json=three).status_code == 201


def test_quotas_hold_for_several_requests_at_once_and_for_restarts(api: ApiServer) -> None:
    root = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    address = "eager@example.org"
    root.post("/v1/users", json={"userEmail": address, "quotas": {"activeJobs": 10}})
    token = root.post("/v1/tokens", json={"scope": "user", "userEmail": address}).json()["token"]
    clients = [api.client(token=token) for _ in range(4)]
    eight = {"name": "w", "jobs": [{"name": "a_{i}", "command": "true", "parameters": {"i": "1:8"}}]}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda each: each.post("/v1/workflows", json=eight), clients))
    assert sorted(each.status_code for each in answers) == [201, 403, 403, 403]
    [made] = [each.json()["id"] for each in answers if each.status_code == 201]
    assert clients[0].post(f"/v1/workflows/{made}/cancel").json()["state"] == "canceled"
    root.put(f"/v1/users/{address}/quotas", json={"activeJobs": 3})
    refused = clients[0].post(f"/v1/workflows/{made}/restart")
    assert (refused.status_code, "activeJobs" in refused.json()["detail"]) == (403, True)
