"""What whole-system tests need built beforehand."""

from __future__ import annotations

import subprocess

import pytest

from tests.containers.laboratory import BASE_IMAGE, build_base_image
from tests.services.command_line import ROOT


@pytest.fixture(scope="session")
def organism_images() -> None:
    """The images knockem/explicit, knockem/additive and knockem/unruly; skips where they cannot be built."""
    reason = build_base_image()
    if reason is not None:
        pytest.skip(reason)
    subprocess.run([ROOT / "deploy" / "organisms" / "build.sh", BASE_IMAGE], capture_output=True, check=True)
