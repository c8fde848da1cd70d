"""deploy/compose.yaml starts, does what it is there for, keeps it, heals, and lets nobody in who may not.

The tests are one story, told in this order about one deployment: starting it is what takes time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from assets.partitions import SUBMISSION_JOB
from tests.containers.laboratory import build_organism_images
from tests.services.command_line import ROOT, TINY_GENOME
from tests.services.deployment import (
    ADDRESS,
    IMAGE,
    Deployment,
    containers_there,
    image_id,
    running_deployment,
    until,
    watched_containers,
    why_not_here,
)

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.timeout(2400)]
STUDY_SECONDS = 600.0
STUDY_GENOME = json.dumps({**TINY_GENOME, "sites": 300})
KILLED_TOGETHER = (
    ("worker_1", "commands_1", "front_1", "webserver_1"),
    ("documents_1", "postgres_1"),
    ("queue_1", "daemon_1"),
    ("code_1", "api_1", "objects_1"),
)
"""Every service, a few at a time; the run is in `code`, and another one takes its time to come."""
HEALED_SECONDS = 60
"""What a service may take after its kill on a machine that is not busy. It is told, not held: a machine may be busy."""
MANY_LEFT = 30
COUNT_RECORDED = """
import json, sys
from collections import Counter
from knockem_dagster.platform import Platform
from knockem_dagster.settings import load_settings
records, of = Platform(load_settings()).records, {"submissionId": sys.argv[1]}
ended = {each.id: each for each in records.attempt_results.find(of)}
succeeded = Counter(each.competition_id for each in ended.values() if each.outcome == "succeeded")
print(json.dumps({
    "asked": records.documents.count("competitions", of),
    "answered": records.documents.count("competitionResults", of),
    "succeeded": len(succeeded),
    "succeeded again": succeeded.total() - len(succeeded),
    "without an end": sum(each.id not in ended for each in records.attempts.find(of)),
}))
"""
LIST_LOGS = """
import boto3
for page in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="knockem", Prefix="compute-logs/"):
    for found in page.get("Contents", []):
        print(found["Key"])
"""


@dataclass
class Site:
    """A deployment, and somebody who may use it."""

    deployment: Deployment
    api: httpx.Client

    def submit(self, **study: Any) -> str:
        answer = self.api.post("/v1/submissions", content=json.dumps({"userEmail": ADDRESS, **study}))
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def view(self, id: str) -> dict[str, Any]:
        """A submission, as soon as the API tells."""

        def ask() -> dict[str, Any] | None:
            try:
                answer = self.api.get(f"/v1/submissions/{id}")
            except httpx.TransportError:
                return None
            return answer.json() if answer.status_code == 200 else None

        found = until(ask, "the API")
        assert found is not None
        return found

    def finished(self, id: str) -> dict[str, Any]:
        until(lambda: self.view(id)["state"] in ("completed", "failed"), "the study's end", seconds=STUDY_SECONDS)
        view = self.view(id)
        assert view["state"] == "completed", view["reason"]
        return view

    def report(self, id: str) -> bytes:
        answer = self.api.get(f"/v1/submissions/{id}/report")
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lacking = why_not_here() or build_organism_images()
    if lacking:
        pytest.skip(lacking)
    with (
        running_deployment(tmp_path_factory.mktemp("deployment")) as deployment,
        deployment.client(deployment.token()) as api,
    ):
        yield Site(deployment, api)


@pytest.fixture(scope="module")
def study(site: Site) -> tuple[str, list[dict[str, str]]]:
    """A finished study, and the containers that were made for it."""
    with watched_containers(label="knockem.submission") as made:
        id = site.submit(
            genome=STUDY_GENOME, containerImage="knockem/explicit", assayTypes=["nulldist", "screenCritical"]
        )
        site.finished(id)
        return id, [each for each in made() if each["knockem.submission"] == id]


def test_nothing_starts_without_secrets(tmp_path: Path) -> None:
    if lacking := why_not_here():
        pytest.skip(lacking)
    (tmp_path / ".env").touch()
    said = Deployment(tmp_path).compose("up", "--detach", check=False)
    assert "run ./knockem deploy init" in said
    assert not Deployment(tmp_path).containers()


def test_without_credentials_every_path_answers_401(site: Site) -> None:
    paths = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    dagster = ("/dagster", "/dagster/", "/dagster/graphql", "/dagster/server_info", "/dagster/runs", "/dagster/logs/x")
    others = (
        "/",
        "/pages.js",
        "/openapi.json",
        "/v1",
        "/v1/",
        "/v1/nothing",
        "//v1/workers",
        "/nothing",
        "/submissions/x",
    )
    wrong = {"none": {}, "basic": {"auth": ("knockem", "knockem")}, "token": {"headers": {"Authorization": "Bearer x"}}}
    with httpx.Client(base_url=site.deployment.url) as anybody:
        for name, credentials in wrong.items():
            asked = [(method, path) for path, operations in paths.items() for method in operations]
            asked += [("GET", path) for path in (*dagster, *others)] if name != "token" else []
            for method, path in asked:
                answer = anybody.request(method.upper(), path, **credentials)  # type: ignore[arg-type]
                assert answer.status_code == 401, (name, method, path, answer.status_code)


def test_one_login_opens_the_pages_and_the_dagster_ui(site: Site) -> None:
    with httpx.Client(base_url=site.deployment.url, auth=site.deployment.login) as client:
        assert "knockem" in client.get("/").text
        assert client.get("/healthz").json() == {"documents": True, "queue": True}
        assert client.get("/dagster/", follow_redirects=True).status_code == 200
        query = {"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"}
        found = client.post("/dagster/graphql", json=query).json()["data"]["repositoriesOrError"]["nodes"]
        assert found == [{"location": {"name": "knockem"}}]


def test_a_study_is_worked_on_by_three_workers_in_containers_of_its_own(
    site: Site, study: tuple[str, list[dict[str, str]]]
) -> None:
    id, made = study
    view = site.view(id)
    assert view["attempts"] == {"succeeded": view["done"]}
    assert view["runtime"] == "docker"
    workers = [each for each in site.api.get("/v1/workers").json()["items"] if each["host"] == "worker"]
    assert len(workers) == 3
    assert all(worker["done"] for worker in workers)
    assert sum(worker["done"] for worker in workers) == view["done"]
    assert len({each["knockem.owner"] for each in made}) == 3
    assert {each["image"] for each in made} == {image_id("knockem/explicit")}


def test_commands_of_workflows_run_and_find_no_password(site: Site) -> None:
    command = (
        "test -r /proc/$PPID/environ && ! env | grep PASSWORD && ! tr '\\0' '\\n' < /proc/$PPID/environ | grep :.*@"
    )
    made = site.api.post("/v1/workflows", json={"name": "w", "jobs": [{"name": "look", "command": command}]})
    assert made.status_code == 201, made.text
    place = f"/v1/workflows/{made.json()['id']}"
    until(lambda: site.api.get(place).json()["state"] == "completed", "the workflow's end", seconds=STUDY_SECONDS)
    [result] = site.api.get(f"{place}/results").json()["items"]
    assert result["exitCode"] == 0, result["tail"]


def test_killing_any_container_heals_and_loses_no_job(
    site: Site, record_property: Callable[[str, object], None]
) -> None:
    killed = [service_of(name) for names in KILLED_TOGETHER for name in names]
    assert sorted(killed) == sorted({service_of(name) for name in site.deployment.containers()})
    studies = [submit_many_competitions(site, "nulldist", "screenCritical", seed=1)]
    for names in KILLED_TOGETHER:
        until(lambda: are_in_work(site, studies), "competitions in work")
        for name, seconds in site.deployment.kill(*names).items():
            told = f"{seconds:.1f} (limit {HEALED_SECONDS})"
            record_property(f"seconds until healed after kill of {service_of(name)}", told)
    for id in studies:
        view = site.finished(id)
        assert view["untestable"] == 0
        assert Counter(view["attempts"]).keys() <= {"succeeded", "lost"}
        recorded = json.loads(site.deployment.compose("exec", "-T", "api", "python", "-c", COUNT_RECORDED, id))
        once = dict.fromkeys(("asked", "answered", "succeeded"), view["done"])
        assert recorded == once | {"succeeded again": 0, "without an end": 0}
        assert not containers_there(label=f"knockem.submission={id}")
    record_property("studies that were in work meanwhile", len(studies))


def service_of(container: str) -> str:
    return container.rpartition("_")[0]


def submit_many_competitions(site: Site, *assays: str, seed: int) -> str:
    genome = (ROOT / "deploy/organisms/additive/genome.txt").read_text()
    return site.submit(genome=genome, containerImage="knockem/additive", assayTypes=assays, maxFail=1, seed=seed)


def are_in_work(site: Site, studies: list[str]) -> bool:
    """Tell whether competitions are in work, with many to come; another study is submitted after one that is over."""
    view = site.view(studies[-1])
    assert view["state"] != "failed", view["reason"]
    if view["state"] == "completed":
        studies.append(submit_many_competitions(site, "nulldist", seed=len(studies) + 1))
        return False
    return view["active"] > 0 and view["total"] - view["done"] >= MANY_LEFT


def test_down_and_up_show_the_same_report_and_runs_may_be_launched_in_containers(
    site: Site, study: tuple[str, list[dict[str, str]]]
) -> None:
    id, _ = study
    before = site.report(id)
    site.deployment.compose("down", "--timeout", "10")
    site.deployment.up(files=["compose.run-containers.yaml"])
    assert site.report(id) == before
    genome = json.dumps(TINY_GENOME)
    with watched_containers(label="knockem.part=run") as made:
        site.finished(site.submit(genome=genome, containerImage="knockem/explicit", assayTypes=["nulldist"], seed=2))
        runs = made()
    assert {run["image"] for run in runs} == {IMAGE}
    [id] = [run["dagster/run_id"] for run in runs if run["dagster/job_name"] == SUBMISSION_JOB]
    until(lambda: id in site.deployment.compose("exec", "-T", "api", "python", "-c", LIST_LOGS), "its logs in S3")
