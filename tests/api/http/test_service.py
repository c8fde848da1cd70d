"""What the server says of itself: health, numbers, its specification; and what its log may not hold."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.api.http.app import build_app
from knockem_dagster.platform import Platform
from knockem_dagster.records.accounts import Scope
from knockem_dagster.settings import load_settings
from tests.services.api_server import ADMINISTRATOR, ALICE, ApiServer
from tests.services.command_line import TINY_GENOME, environment_of
from tests.services.job_play import record_in
from tests.services.queues import running_queue
from tests.services.waiting import until

ROOT = Path(__file__).parents[3]
SPECIFICATION = ROOT / "docs" / "openapi.json"
FREE = {
    "EventRecord.data",
    "NewData.data",
    "NewEvent.data",
    "Noted.data",
    "UserDataRecord.data",
    "UserDataSpec.data",
}
"""The only JSON that is anything: what users put into events and user data."""


def test_health_and_metrics(api: ApiServer) -> None:
    assert api.client(token="").get("/healthz").json() == {"documents": True, "queue": True}
    root = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    root.post(
        "/v1/workflows", json={"name": "w", "jobs": [{"name": "a_{i}", "command": "x", "parameters": {"i": "1:7"}}]}
    )
    found = {family.name: family for family in text_string_to_metric_families(root.get("/metrics").text)}
    assert found["knockem_queue_ready_jobs"].samples[0].value >= 7
    assert found["knockem_queue_oldest_wait_seconds"].samples[0].value > 0
    assert found["knockem_workers"].samples[0].value == 0
    assert {sample.labels["state"] for sample in found["knockem_submissions"].samples} >= {"running", "failed"}
    workflows = {sample.labels["state"]: sample.value for sample in found["knockem_workflows"].samples}
    assert workflows["running"] >= 1


def test_a_server_without_a_queue_says_so(tmp_path: Path) -> None:
    with record_in(tmp_path / "home") as platform:
        add_user(platform.records, ALICE)
        token = issue_token(platform.records, ALICE, Scope.USER)[1]

        async def asked() -> list[int]:
            app = build_app(platform)
            async with app.router.lifespan_context(app):
                transport = httpx.ASGITransport(app)
                headers = {"Authorization": f"Bearer {token}"}
                async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers) as client:
                    body = {"name": "w", "jobs": [{"name": "a", "command": "true"}]}
                    answers = [
                        await client.get("/healthz"),
                        await client.post("/v1/workflows", json=body),
                        await client.get("/v1/workflows"),
                    ]
                    assert "./knockem up" in answers[1].json()["detail"]
                    return [answer.status_code for answer in answers]

        assert asyncio.run(asked()) == [503, 503, 200]


def test_the_specification_is_the_one_that_is_checked_in(tmp_path: Path) -> None:
    with record_in(tmp_path / "home") as platform:
        made = build_app(platform).openapi()
    assert made["openapi"].startswith("3.1")
    assert json.loads(SPECIFICATION.read_text()) == json.loads(json.dumps(made)), "run `./knockem api --specification`"


def test_no_schema_is_free_but_what_users_fill() -> None:
    specification = json.loads(SPECIFICATION.read_text())
    free: set[str] = set()
    for name, schema in specification["components"]["schemas"].items():
        for field, said in schema.get("properties", {}).items():
            alternatives = said.get("anyOf", [said])
            for each in alternatives:
                typed = {"additionalProperties", "patternProperties"}
                is_object = each.get("type") == "object" and not any(isinstance(each.get(key), dict) for key in typed)
                if is_object or not each.keys() & {"type", "$ref", "enum", "const", "anyOf", "allOf", "oneOf"}:
                    free.add(f"{name}.{field}")
    assert free == FREE


def test_the_log_is_json_and_holds_no_token(tmp_path: Path) -> None:
    with running_queue(tmp_path / "home") as queue:
        platform = Platform(load_settings(home=tmp_path / "home"))
        add_user(platform.records, ALICE)
        token = issue_token(platform.records, ALICE, Scope.USER)[1]
        platform.close()
        log = tmp_path / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                [sys.executable, "-m", "knockem_dagster", "api", "--port", "0"],
                env=environment_of(queue.settings.home),
                cwd=ROOT,
                stdout=out,
                stderr=out,
            )
        try:
            until(lambda: "Uvicorn running" in log.read_text())
            [line] = [line for line in log.read_text().splitlines() if "Uvicorn running" in line]
            url = json.loads(line)["message"].split(" on ")[1].split()[0]
            headers = {"Authorization": f"Bearer {token}"}
            made = httpx.post(
                f"{url}/v1/workflows?folder=/{token}",
                json={"name": "w", "jobs": [{"name": "a", "command": "x"}]},
                headers=headers,
            )
            id = made.json()["id"]
            study = {
                "genome": json.dumps(TINY_GENOME),
                "containerImage": "explicit",
                "containerRuntime": "process",
                "assayTypes": ["nulldist"],
            }
            asked = httpx.post(f"{url}/v1/submissions", json=study, headers=headers, timeout=60).json()["id"]
            httpx.get(f"{url}/v1/workflows/{id}", params={"token": token}, headers=headers)
            httpx.get(f"{url}/v1/self", headers={"Authorization": f"Bearer {token}x"})
            httpx.delete(f"{url}/v1/tokens/{token}", headers=headers)
            until(lambda: log.read_text().count('"status"') == 5)
        finally:
            server.terminate()
            assert server.wait(30) in (0, -15)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["status"], each.get("workflow"), each.get("submission")) for each in lines if "status" in each] == [
        (201, id, None),
        (201, None, asked),
        (200, id, None),
        (401, None, None),
        (404, None, None),
    ]
    assert token not in log.read_text()
    assert token.removeprefix("knockem_") not in log.read_text()


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/workflows/%00", "/v1/workflows/%ff", "/v1/workflows/" + "x" * 200]
)
def test_what_is_not_there_is_a_problem(api: ApiServer, path: str) -> None:
    answer = api.client().get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().keys() == {"type", "title", "status", "detail", "faults"}
