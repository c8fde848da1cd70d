"""`bench ingest_faults`, a small share of it: what it would refuse does not happen."""

from __future__ import annotations

from pathlib import Path

from numpy.random import default_rng

from benchmarks import ingest_faults, killed_ingest


def test_spoiled_archives_are_loaded_whole_or_quarantined(tmp_path: Path) -> None:
    measured = {each.name: each.value for each in ingest_faults.measure_spoiled(tmp_path, default_rng(1), flips=10)}
    sent = measured["spoiled reports, each loaded whole or quarantined"]
    loaded, quarantined = (
        measured[name] for name in ("of these loaded", "of these quarantined, with what is to be done")
    )
    assert sent == loaded + quarantined > 100
    assert loaded >= 17, "members in other places, and rows left out, are no reason to refuse a report"
    assert measured["reports sent again, changed, late or in another order"] == 24


def test_processes_that_are_killed_or_at_work_at_once_leave_what_one_leaves_in_peace(tmp_path: Path) -> None:
    measured = {
        each.name: each.value for each in killed_ingest.measure_killed_ingest(tmp_path, default_rng(1), scale=0)
    }
    assert measured["processes killed at work, after which all marts are right"] == killed_ingest.FEWEST_KILLS
    assert measured["times that 3 processes took in the same"] == 1
    assert measured["looks at marts meanwhile, each with the old or the new totals"] > 0
