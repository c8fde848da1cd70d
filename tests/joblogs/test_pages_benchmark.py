"""`bench pages` at its smallest scale: every table and every page is asked for, and has rows."""

from __future__ import annotations

import shutil

from benchmarks import pages
from knockem_dagster.joblogs.questions import QUESTIONS


def test_the_smallest_scale_measures_every_table_and_page() -> None:
    measured = {each.name: each for each in pages.run(0.001, 1)}
    tables = {f"an instance's {name}" for name in QUESTIONS}
    tables |= {f"all instances' {each.name}" for each in QUESTIONS.values() if not each.of_an_instance}
    assert tables < measured.keys()
    if shutil.which("chromium"):
        assert "page of all instances" in measured
    limits = {each.reference_value for each in measured.values() if each.reference == "limit"}
    assert limits == {pages.LIMIT_SECONDS}
