"""Submissions over HTTP: a study is asked for, carried out by Dagster, and read."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from knockem_dagster.records.accounts import Scope
from tests.services.api_server import ADMINISTRATOR, ALICE, BOB, ApiServer, running_api
from tests.services.organisms import NUM_SITES, serving, write_organism
from tests.services.platforms import run_in_dagster, study
from tests.services.queues import running_queue

OURS = study(userEmail=None)
"""Whose it is, the token tells."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    folder = tmp_path_factory.mktemp("study")
    organisms = folder / "organisms"
    write_organism(organisms / "tiny", {"knockem_serve": serving("pass")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOCKEM_ORGANISMS", str(organisms))
        with running_queue(folder / "home") as queue, running_api(queue.settings) as api:
            yield api


def test_a_study_is_asked_for_carried_out_and_read(api: ApiServer) -> None:
    client = api.client()
    made = client.post("/v1/submissions", json=OURS)
    assert made.status_code == 201, made.text
    id = made.json()["id"]
    assert made.headers["location"] == f"/v1/submissions/{id}"
    place = f"/v1/submissions/{id}"
    seen = client.get(place).json()
    assert (seen["state"], seen["sites"], seen["userEmail"]) == ("accepted", NUM_SITES, ALICE)
    assert client.get(f"{place}/report").status_code == 404
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_in_dagster(api.platform.settings.home, instance, id).success
    over = client.get(place).json()
    assert (over["state"], over["secondsLeft"]) == ("completed", None)
    assert over["done"] == over["total"] > 0
    report = client.get(f"{place}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert "sandbox" in report.headers["content-security-policy"], "its scripts act in nobody's name"
    assert "tiny" in report.text
    tables = client.get(f"{place}/results").json()["items"]
    assert {"screen", "null_distribution"} <= {*tables}
    first = client.get(f"{place}/results", params={"limit": 1}).json()
    later = client.get(f"{place}/results", params={"cursor": first["next"]}).json()
    assert ([*first["items"], *later["items"]], later["next"]) == (tables, None)
    screen = client.get(f"{place}/results/screen", params={"limit": NUM_SITES - 2}).json()
    assert len(screen["rows"]) == NUM_SITES - 2
    rest = client.get(f"{place}/results/screen", params={"cursor": screen["next"]}).json()
    columns = [each["name"] for each in screen["columns"]]
    assert [row[columns.index("site")] for row in screen["rows"] + rest["rows"]] == list(range(NUM_SITES))
    assert rest["next"] is None
    assert client.get(f"{place}/results/nothing").status_code == 404
    assert client.post(f"{place}/cancel").status_code == 409
    assert client.post(f"{place}/resume").status_code == 409


def test_others_see_nothing_of_it(api: ApiServer) -> None:
    made = api.client().post("/v1/submissions", json=OURS | {"seed": 2}).json()
    bob, root = api.client(BOB), api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    for path in ("", "/report", "/results", "/results/screen"):
        assert bob.get(f"/v1/submissions/{made['id']}{path}").status_code == 404
    for path in ("cancel", "resume"):
        assert bob.post(f"/v1/submissions/{made['id']}/{path}").status_code == 404
    assert bob.get("/v1/submissions").json() == {"items": [], "next": None}
    assert made["id"] in [each["id"] for each in root.get("/v1/submissions").json()["items"]]
    refused = bob.post("/v1/submissions", json=OURS | {"userEmail": ALICE})
    assert refused.status_code == 422
    assert refused.json()["faults"][0]["field"] == "userEmail"


def test_the_same_study_is_not_stored_twice_and_a_wrong_one_not_at_all(api: ApiServer) -> None:
    client = api.client()
    assert client.post("/v1/submissions", json=OURS | {"seed": 3}).status_code == 201
    number = len(client.get("/v1/submissions").json()["items"])
    twice = client.post("/v1/submissions", json=OURS | {"seed": 3})
    assert "is there already" in twice.json()["detail"]
    wrong = client.post("/v1/submissions", json=OURS | {"seed": -1, "skeletns": 3, "containerImage": ""})
    assert {each["field"] for each in wrong.json()["faults"]} == {"seed", "skeletns", "containerImage"}
    no_organism = client.post("/v1/submissions", json=OURS | {"containerImage": "tinny"})
    assert no_organism.json()["faults"][0]["field"] == "containerImage"
    assert {each.status_code for each in (twice, wrong, no_organism)} == {422}
    assert len(client.get("/v1/submissions").json()["items"]) == number


def test_a_submission_is_canceled_and_resumed(api: ApiServer) -> None:
    client = api.client()
    id = client.post("/v1/submissions", json=OURS | {"seed": 4}).json()["id"]
    assert client.post(f"/v1/submissions/{id}/cancel").json()["state"] == "canceled"
    assert client.post(f"/v1/submissions/{id}/cancel").status_code == 409
    assert client.post(f"/v1/submissions/{id}/resume").json()["state"] == "accepted"
