"""Settings of the whole suite: the testing environment, and hypothesis without deadlines on noisy machines."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

PURE = (
    *("tests/knockout/", "tests/reports/", "tests/docs/", "tests/jobs/", "tests/nodes/", "tests/sensors/"),
    *("tests/accounts/", "tests/api/", "tests/assets/", "tests/records/", "tests/assay_runs/", "tests/resources/"),
    *("tests/test_house.py", "tests/test_mapping_file.py", "tests/test_requirements.py", "tests/test_definitions.py"),
    *("tests/containers/test_apptainer.py", "tests/deploy/test_compose.py", "tests/deploy/test_dagster_instance.py"),
    *(
        "tests/deploy/test_image.py",
        "tests/cli/test_comparing.py",
        "tests/cli/test_plan.py",
        "tests/cli/test_progress.py",
    ),
)
"""Tests that are the same for every user and with or without a container engine."""
NOT_PURE = (
    "tests/jobs/commands/",
    "tests/assay_runs/test_control_and_removal.py",
    "tests/nodes/test_docker_compose.py",
    "tests/sensors/test_leftovers.py",
)

os.environ.setdefault("KNOCKEM_ENVIRONMENT", "testing")
settings.register_profile(
    "knockem", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("knockem")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what CI needs to run only once."""
    for item in items:
        if item.nodeid.startswith(PURE) and not item.nodeid.startswith(NOT_PURE):
            item.add_marker("pure")
