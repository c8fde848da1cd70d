"""What a test has measured is told, also where it passes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)


def test_what_tests_record_is_in_the_summary(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makepyfile("def test_it(record_property): record_property('seconds until healed', '8.1 (limit 60)')")
    told = pytester.runpytest("-q")
    told.stdout.fnmatch_lines(["*test_it: seconds until healed: 8.1 (limit 60)"])
