"""A real server over a real queue, shared by the tests of this folder: each has workflows of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from knockem_dagster.joblogs.removal import remove_instance
from knockem_dagster.records.accounts import Scope
from tests.services.api_server import ADMINISTRATOR, ApiServer, running_api
from tests.services.queues import running_queue


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with running_queue(tmp_path_factory.mktemp("home"), lease_seconds=3.0) as queue, running_api(queue.settings) as api:
        yield api


def registered(api: ApiServer, name: str) -> Iterator[dict[str, str]]:
    administrator = api.client(ADMINISTRATOR, Scope.ADMINISTRATOR)
    made = administrator.post("/v1/jobLogs/instances", json={"name": name})
    assert made.status_code == 201
    yield made.json()
    records = api.platform.records
    remove_instance(records, api.platform.objects, records.job_log_instances.get(made.json()["id"]))


@pytest.fixture
def instance(api: ApiServer) -> Iterator[dict[str, str]]:
    """Give an instance that may send job logs; nothing of it is left afterwards."""
    yield from registered(api, "usegalaxy.example.org")


@pytest.fixture
def another(api: ApiServer) -> Iterator[dict[str, str]]:
    yield from registered(api, "another")


@pytest.fixture
def sender(api: ApiServer, instance: dict[str, str]) -> httpx.Client:
    return api.client(token=instance["token"])
