"""Settings of the whole suite: the testing environment, and hypothesis without deadlines on noisy machines."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

PURE = ("tests/knockout/", "tests/reports/", "tests/docs/", "tests/jobs/specs/")
"""Folders of tests that are the same for every user and with or without a container engine."""

os.environ.setdefault("KNOCKEM_ENVIRONMENT", "testing")
settings.register_profile(
    "knockem", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("knockem")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what CI needs to run only once."""
    for item in items:
        if item.nodeid.startswith(PURE):
            item.add_marker("pure")
