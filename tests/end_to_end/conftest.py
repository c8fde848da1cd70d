"""What whole-system tests need built beforehand."""

from __future__ import annotations

import pytest

from tests.containers.laboratory import build_organism_images


@pytest.fixture(scope="session")
def organism_images() -> None:
    """The images knockem/explicit, knockem/additive and knockem/unruly; skips where they cannot be built."""
    reason = build_organism_images()
    if reason is not None:
        pytest.skip(reason)
