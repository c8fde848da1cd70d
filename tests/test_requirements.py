"""requirements.lock holds what pyproject.toml asks for, on every supported Python, and names no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
LAUNCHER = (ROOT / "knockem").read_text()
NOT_LOCKED = {"spark"}
"""Extras that are too large for everybody."""
PYTHONS = re.findall(r"3\.\d+", re.search(r"^ +(3\.\d+(?: \| 3\.\d+)*)\)", LAUNCHER, re.MULTILINE).group(1))


def asked() -> list[Requirement]:
    extras = [packages for name, packages in PROJECT["optional-dependencies"].items() if name not in NOT_LOCKED]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]]


def locked(python: str) -> dict[str, Version]:
    """The packages and versions the lock gives Linux with this Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    found: dict[str, Version] = {}
    for line in re.findall(r"^([a-z0-9].*?) *\\$", LOCK, re.MULTILINE):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is locked twice for Python {python}"
            (specifier,) = requirement.specifier
            found[name] = Version(specifier.version)
    return found


def test_the_launcher_takes_the_pythons_the_project_supports():
    supported = SpecifierSet(PROJECT["requires-python"])
    wanted = [python for python in (f"3.{minor}" for minor in range(8, 30)) if supported.contains(f"{python}.9")]
    assert wanted == PYTHONS


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_current(python: str):
    versions = locked(python)
    assert len(versions) > len(asked())
    for requirement in asked():
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked; run .ci/lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}; run .ci/lock"


def test_every_locked_package_has_a_hash_and_none_an_address():
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|^-|index-url|find-links|file:", LOCK, re.MULTILINE)
