"""A real queue server for the tests of this folder, emptied before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.queues import QueueServer, running_queue


@pytest.fixture(scope="session")
def shared_queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    with running_queue(tmp_path_factory.mktemp("queue")) as server:
        yield server


@pytest.fixture
def queue_server(shared_queue_server: QueueServer) -> QueueServer:
    shared_queue_server.client().flushall()
    return shared_queue_server
