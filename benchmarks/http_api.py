"""Whether the HTTP API keeps its own specification, whatever it is asked, with a token of each scope.

Requests are drawn from the OpenAPI document, valid ones and others (schemathesis): for each operation, and as
sequences that use what earlier answers told. No answer may be a fault of the server, nor of another status, type or
shape than the document says.

    python -m benchmarks.http_api [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks

from benchmarks.measurement import Measurement, command
from benchmarks.workplace import Workplace
from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.records.accounts import Scope

EXAMPLES = 100
STEPS = 10
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
_OTHER = "other@example.org"
_WORKFLOW = {
    "name": "w",
    "jobs": [
        {"name": "a", "command": "true", "output_files": ["x"]},
        {"name": "b", "command": "true", "input_files": ["x"]},
    ],
    "files": [{"name": "x", "path": "x"}],
    "user_data": [{"name": "u", "data": {"rate": 0.1}}],
}


def run(scale: float, seed: int) -> list[Measurement]:
    """Ask `scale` times the full number of requests. Raises what schemathesis raises for an answer that is wrong."""
    load_all_checks()
    number = max(3, round(EXAMPLES * scale))
    asked: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="knockem-http-api-") as folder,
        Workplace(Path(folder), lease_seconds=5.0) as workplace,
    ):
        workplace.start_server()
        records = workplace.platform.records
        add_user(records, _OTHER)
        api = workplace.start_api()
        for scope in Scope:  # each as a user of its own: what one revokes or limits is not the others'
            address = f"{scope}@example.org"
            add_user(records, address)
            there = _there(api.url, issue_token(records, address, Scope.USER)[1])
            _Requests(api.url, issue_token(records, address, scope)[1], there, asked).draw(scope, number, seed)
    return [
        Measurement(f"answers as specified, {each}", asked[each], "answers", asked[each])
        for each in (*Scope, "in sequences")
    ]


def _there(url: str, token: str) -> Mapping[str, str]:
    """Make something that path parameters can name; return it by parameter."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        workflow = client.post("/v1/workflows", json=_WORKFLOW).raise_for_status().json()["id"]
        job = client.get(f"/v1/workflows/{workflow}/jobs").json()["items"][0]["job"]["id"]
        data = client.get(f"/v1/workflows/{workflow}/userData").json()["items"][0]["id"]
        made = client.post("/v1/tokens", json={"scope": "worker"}).json()["id"]
    return {"workflow": workflow, "job": job, "data": data, "token": made, "address": _OTHER}


class _Requests:
    """Requests by one token; half of those that name something name what is there."""

    def __init__(self, url: str, token: str, there: Mapping[str, str], asked: Counter[str]) -> None:
        self._schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._checks = [CHECKS.get_one(name) for name in CHECKED]
        self._there = there
        self._asked = asked

    def draw(self, scope: Scope, number: int, seed: int) -> None:
        """Ask so many requests of each operation, then so many sequences of them."""
        choose = random.Random(seed)
        settings = hypothesis.settings(
            max_examples=number,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            stateful_step_count=STEPS,
        )
        for result in self._schema.get_all_operations():
            operation = result.ok()

            @hypothesis.seed(seed)
            @settings
            @hypothesis.given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                if choose.random() < 0.5:
                    named = case.path_parameters.items()
                    case.path_parameters = {name: self._there.get(name, was) for name, was in named}
                self._ask(case)
                self._asked[scope] += 1

            ask()
        self._machine().run(settings=hypothesis.settings(settings, derandomize=True))

    def _machine(self) -> Any:
        requests = self

        class Sequences(self._schema.as_state_machine()):  # type: ignore[misc]
            """Sequences of requests, each of which may use what answers before it told."""

            def get_call_kwargs(self, case: Any) -> dict[str, Any]:
                return {"headers": requests._headers}

            def validate_response(self, response: Any, case: Any, **_: Any) -> None:
                case.validate_response(response, checks=requests._checks)
                requests._asked["in sequences"] += 1

        return Sequences

    def _ask(self, case: Any) -> None:
        case.call_and_validate(headers=self._headers, checks=self._checks, timeout=60)


if __name__ == "__main__":
    command(run, about=__doc__, title="Whether the HTTP API keeps its specification")
