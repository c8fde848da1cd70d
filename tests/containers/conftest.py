"""Every runtime this machine has, so that one suite runs on all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.containers import podman_service
from knockem_dagster.containers.apptainer import has_apptainer
from knockem_dagster.containers.runtimes import has_engine
from tests.containers.laboratory import (
    Laboratory,
    apptainer_laboratory,
    build_base_image,
    docker_laboratory,
    podman_laboratory,
    process_laboratory,
    why_no_podman,
)


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine with the base image; skips where there is none."""
    if not has_engine():
        pytest.skip("no container engine answers here")
    reason = build_base_image()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def podman() -> None:
    """Podman with the base image; skips where it does not work."""
    reason = why_no_podman()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(
    params=["process", *(pytest.param(name, marks=pytest.mark.docker) for name in ("docker", "podman", "apptainer"))]
)
def laboratory(request: pytest.FixtureRequest, tmp_path: Path) -> Laboratory:
    """A laboratory of each runtime. Tests marked isolation run only where the runtime isolates."""
    if request.param == "process":
        if request.node.get_closest_marker("isolation") is not None:
            pytest.skip("the process runtime does not isolate")
        return process_laboratory(tmp_path)
    if request.param == "apptainer":
        image = os.environ.get("KNOCKEM_TEST_APPTAINER_IMAGE")
        if image is None or not has_apptainer():
            pytest.skip("apptainer, or an image for it in KNOCKEM_TEST_APPTAINER_IMAGE, is not here")
        return apptainer_laboratory(tmp_path, image)
    if request.param == "podman":
        request.getfixturevalue("podman")
        return podman_laboratory(tmp_path)
    request.getfixturevalue("engine")
    return docker_laboratory(tmp_path)


@pytest.fixture
def processes(tmp_path: Path) -> Laboratory:
    return process_laboratory(tmp_path)


@pytest.fixture
def containers(engine: None, tmp_path: Path) -> Laboratory:
    return docker_laboratory(tmp_path)


@pytest.fixture
def nothing_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without podman and apptainer."""
    monkeypatch.setenv("PATH", str(tmp_path))
    _forget_podman()
    yield
    _forget_podman()


def _forget_podman() -> None:
    podman_service._told_by_podman.cache_clear()
    podman_service._refusal.clear()
