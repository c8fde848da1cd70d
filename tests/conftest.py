"""What the whole suite shares: its environment, hypothesis without deadlines, what is measured, and a queue server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.services.queues import QueueServer, running_queue

NOT_PURE = (
    *("tests/containers/", "tests/jobs/commands/", "tests/assay_runs/test_control_and_removal.py"),
    *("tests/cli/test_installation.py", "tests/cli/test_launcher.py", "tests/sensors/test_leftovers.py"),
    *("tests/stores/test_queue_server.py", "tests/stores/test_sqlite_documents.py"),
    "tests/end_to_end/test_faults.py::test_a_full_disk",
)
"""Tests that may go otherwise for root, or where there is a container engine; as may all that are marked so."""

os.environ.setdefault("KNOCKEM_ENVIRONMENT", "testing")
settings.register_profile(
    "knockem", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("knockem")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what CI needs to run only once."""
    for item in items:
        if not item.nodeid.startswith(NOT_PURE) and item.get_closest_marker("docker") is None:
            item.add_marker("pure")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what tests have measured, also where they pass: a log of CI is where it is read."""
    told = [
        f"{report.nodeid}: {name}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
    ]
    if told:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(told))


@pytest.fixture(scope="module")
def shared_queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueServer]:
    with running_queue(tmp_path_factory.mktemp("queue")) as server:
        yield server


@pytest.fixture
def queue_server(shared_queue_server: QueueServer) -> QueueServer:
    """Return a queue server, emptied before each test."""
    shared_queue_server.client().flushall()
    return shared_queue_server
