"""The benchmark of the HTTP API, a small share: whatever it is asked, its answers are those it specifies."""

from __future__ import annotations

import pytest

from benchmarks import http_api

pytestmark = pytest.mark.slow


def test_answers_are_as_specified_for_every_scope() -> None:
    asked = {each.name: each.value for each in http_api.run(0.1, 1)}
    assert len(asked) == 4
    assert all(number > 100 for number in asked.values())
