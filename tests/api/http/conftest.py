"""A real server over a real queue, shared by the tests of this folder: each has workflows of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.api_server import ApiServer, running_api
from tests.services.queues import running_queue


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with running_queue(tmp_path_factory.mktemp("home"), lease_seconds=3.0) as queue, running_api(queue.settings) as api:
        yield api
