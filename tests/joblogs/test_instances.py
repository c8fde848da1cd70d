"""Instances: whether one is late, by how often its good reports are made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from knockem_dagster.joblogs.instances import PLATFORM, InstanceView, view_instance
from knockem_dagster.platform import Platform
from knockem_dagster.records.joblogs import InstanceRecord, ReportRecord, ReportState
from tests.services.job_play import record_in

NOW = 1_800_000_000.0


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        monkeypatch.setattr(time, "time", lambda: NOW)
        yield opened


def viewed(platform: Platform, ages: Iterable[float], *, bad: float | None = None, name: str = "i") -> InstanceView:
    """Return an instance with good reports so many seconds old, and perhaps a quarantined one."""
    states = dict.fromkeys(ages, ReportState.LOADED) | ({} if bad is None else {bad: ReportState.QUARANTINED})
    for age, state in states.items():
        told = {"id": f"{age}", "name": f"{age}", "generated": NOW - age, "state": state}
        platform.records.job_log_reports.add(ReportRecord(instance_id="i", archive_digest="", digest="", **told))
    return view_instance(platform.records, InstanceRecord(id="i", name=name))


@pytest.mark.parametrize(("age", "is_late"), [(0, False), (1999, False), (2000, False), (2001, True), (9999, True)])
def test_an_instance_is_late_after_twice_the_usual_interval(platform: Platform, age: float, is_late: bool) -> None:
    seen = viewed(platform, [age, age + 1000, age + 1900, age + 9000])
    assert (seen.usual_interval, seen.last_generated, seen.is_late) == (1000, NOW - age, is_late)


def test_what_is_quarantined_makes_nobody_less_late(platform: Platform) -> None:
    assert viewed(platform, [3000, 4000], bad=-9e8).is_late


def test_who_has_sent_one_report_or_none_is_not_late(platform: Platform) -> None:
    assert not viewed(platform, []).is_late
    assert not viewed(platform, [1e8]).is_late


def test_the_platform_is_never_late(platform: Platform) -> None:
    assert not viewed(platform, [3000, 4000], name=PLATFORM).is_late
