"""What a study comes to so far: there while a stage goes on, surer at the last wave than at the first, then gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from knockem_dagster.assay_runs.extension import Extension, extend
from knockem_dagster.assay_runs.findings import INTERIM_ESTIMATES, Findings
from knockem_dagster.assay_runs.tables import read_table
from knockem_dagster.knockout.estimates import ADDITIVE_SITES, EPISTATIC_SETS
from knockem_dagster.platform import Platform
from tests.services.noisy_organism import GENOME, NAME, carry_through, write_noisy_organisms
from tests.services.platforms import platform_of, study, submitted


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    write_noisy_organisms(tmp_path / "organisms")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    opened = platform_of(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """Return what those who watch may read, one after the other."""
    made: list[pd.DataFrame] = []
    keep = Findings.keep_table

    def keep_and_read(findings: Findings, name: str, table: pd.DataFrame) -> None:
        keep(findings, name, table)
        if name == INTERIM_ESTIMATES:
            made.append(findings.table(name))

    monkeypatch.setattr(Findings, "keep_table", keep_and_read)
    return made


def test_estimates_come_with_the_waves_and_the_assays_and_make_way_for_the_last(
    platform: Platform, seen: list[pd.DataFrame]
) -> None:
    content = study(genome=GENOME, containerImage=NAME, assayTypes=["weighing", "setEnumeration"], resolution=0.14)
    done = carry_through(platform, submitted(platform.settings.home, content))
    assert seen[0].empty, "the null distribution alone tells of no site"
    weighed = [each[each["quantity"] == ADDITIVE_SITES].iloc[0] for each in seen[1:]]
    assert len(weighed) > 3, "waves of weighing, weighing, sets"
    competitions = [row["n"] for row in weighed]
    assert competitions == sorted(competitions) and competitions[0] < competitions[-1]
    widths = [row["high"] - row["low"] for row in weighed]
    assert widths[-1] < widths[0], widths
    estimates = read_table(platform.objects, done.id, "estimates")
    assert estimates is not None
    pd.testing.assert_frame_equal(seen[-1], estimates)
    assert EPISTATIC_SETS in set(estimates["quantity"]) and EPISTATIC_SETS not in set(seen[-2]["quantity"])
    assert read_table(platform.objects, done.id, INTERIM_ESTIMATES) is None


def test_a_stage_tells_of_itself_and_not_of_what_the_stage_before_found(
    platform: Platform, seen: list[pd.DataFrame]
) -> None:
    content = study(genome=GENOME, containerImage=NAME, assayTypes=["weighing", "setEnumeration"], resolution=0.8)
    first = carry_through(platform, submitted(platform.settings.home, content))
    seen.clear()
    second = carry_through(platform, extend(platform, first, Extension(resolution=0.14)).id)
    assert EPISTATIC_SETS not in set(seen[0]["quantity"])
    assert EPISTATIC_SETS in set(seen[-1]["quantity"])
    assert read_table(platform.objects, second.id, INTERIM_ESTIMATES) is None
