"""A real server over a real queue, shared by the tests of this folder: each has workflows of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from knockem_dagster.joblogs.removal import remove_instance
from knockem_dagster.records.accounts import Scope
from tests.services.api_server import ADMINISTRATOR, ApiServer, running_api
from tests.services.queues import running_queue

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SLOW_MS = 30_000


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give chromium, if there is one."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    expect.set_options(timeout=SLOW_MS)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, api: ApiServer) -> Iterator[Page]:
    """Give a page of which no script may fail."""
    context = browser.new_context(base_url=api.url)
    opened = context.new_page()
    opened.set_default_timeout(SLOW_MS)
    failed: list[str] = []
    opened.on("pageerror", lambda error: failed.append(str(error)))
    yield opened
    context.close()
    assert not failed
