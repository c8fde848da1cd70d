"""Estimates from whole submissions on the reference organism, and from parts of them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.reference_organism import Mode, ReferenceGenome, ReferenceOrganism
from knockem_dagster.knockout.assays.published import doses, jackknife, null_distribution, screen, skeletons
from knockem_dagster.knockout.estimates import (
    ADDITIVE_SITES,
    DETECTED_ALONE,
    EPISTATIC_SITES,
    FUNCTIONAL_SITES,
    MEAN_ADDITIVE_EFFECT,
    Evidence,
    capture_frequencies,
    estimate,
)
from knockem_dagster.knockout.sites import describe_sites
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import exact_null, seeded


def evidence_of(genome: ReferenceGenome, *, mode: Mode = "exact", stated: bool = True, count: int = 8) -> Evidence:
    """Run every assay, as a submission does."""

    async def run() -> Evidence:
        organism = ReferenceOrganism(genome, mode=mode)
        asked, rng = (genome.genome, organism.compete), seeded(4)
        null = (
            await null_distribution.measure_null_distribution(*asked, rng, null_distribution.NullSettings())
        ).distribution(stated_unit=organism.stated_unit if stated else None)
        screened = await screen.screen_sites(*asked, rng, screen.ScreenSettings(), null=null)
        candidates = screened.undetected_sites
        calibration = await doses.calibrate_doses(
            *asked, rng, doses.CalibrationSettings(), null=null, candidates=candidates
        )
        titration = await doses.titrate(
            *asked, rng, doses.TitrationSettings(60), null=null, candidates=candidates, doses=calibration.doses()
        )
        made = await skeletons.skeletonize(*asked, rng, skeletons.SkeletonSettings(count), null=null)
        jackknifed = await jackknife.jackknife_skeletons(
            *asked, rng, jackknife.JackknifeSettings(), null=null, skeletons=made
        )
        return Evidence(genome.num_sites, null, screened, calibration, titration, made, jackknifed)

    return asyncio.run(run())


GENOME = replace(
    drawn := ReferenceGenome.draw(seeded(9), num_sites=300, num_additive=30, num_sets=5, penalties=(1.0, 1.6)),
    effects={**drawn.effects, 299: 2.0},
)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return evidence_of(GENOME)


def value_of(table: pd.DataFrame, quantity: str) -> float:
    return float(table.loc[table["quantity"] == quantity, "value"].iloc[0])


def test_all_quantities_are_estimated_in_the_declared_columns(evidence: Evidence) -> None:
    table = estimate(evidence)
    assert table.dtypes.astype(str).to_dict() == {column.name: column.dtype for column in TABLES["estimates"].columns}
    assert set(table["quantity"]) == {
        DETECTED_ALONE,
        ADDITIVE_SITES,
        MEAN_ADDITIVE_EFFECT,
        EPISTATIC_SITES,
        FUNCTIONAL_SITES,
    }
    assert value_of(table, DETECTED_ALONE) == 1
    assert value_of(table, FUNCTIONAL_SITES) == pytest.approx(len(GENOME.functional_sites), rel=0.3)
    assert 0 < value_of(table, ADDITIVE_SITES) < 100
    assert list(table["quantity"]) == sorted(table["quantity"])


def test_only_intervals_have_a_level_and_n_counts_the_competitions(evidence: Evidence) -> None:
    table = estimate(evidence).set_index("quantity")
    with_interval = table["low"].notna()
    assert set(table.index[with_interval]) == {FUNCTIONAL_SITES}
    assert (table["level"].notna() == with_interval).all()
    assert (table.loc[FUNCTIONAL_SITES, "n"] == 100 + 8 * 300).all()
    assert table.loc[DETECTED_ALONE, "n"] == 100 + 300
    assert table.loc[ADDITIVE_SITES, "n"] == 100 + 300 + 250 + 5 * 60
    assert evidence.jackknife is not None
    assert table.loc[EPISTATIC_SITES, "n"] == 100 + 8 * 300 + len(evidence.jackknife.table)


def test_sites_have_their_effect_and_the_share_of_skeletons_keeping_them(evidence: Evidence) -> None:
    table = describe_sites(evidence)
    assert table.dtypes.astype(str).to_dict() == {column.name: column.dtype for column in TABLES["sites"].columns}
    assert table["effect"][299] == pytest.approx(2.0)
    assert table[["low", "high"]].isna().all(axis=None)
    assert table["probability"][299] == 1
    neutral = sorted(set(range(300)) - GENOME.functional_sites)
    assert (table["probability"][neutral] == 0).all()
    assert (table["set"] == -1).all()


def test_tables_read_back_give_the_same_estimates(evidence: Evidence) -> None:
    assert evidence.screen is not None
    assert evidence.calibration is not None
    assert evidence.titration is not None
    assert evidence.skeletons is not None
    assert evidence.jackknife is not None
    again = replace(
        evidence,
        screen=screen.Screen.from_table(evidence.screen.table),
        calibration=doses.Calibration.from_table(evidence.calibration.table, evidence.calibration.num_candidates),
        titration=doses.Titration.from_table(evidence.titration.table, evidence.titration.num_candidates),
        skeletons=skeletons.Skeletons.from_table(evidence.skeletons.table, 300),
        jackknife=jackknife.Jackknife.from_table(evidence.jackknife.table),
    )
    pd.testing.assert_frame_equal(estimate(again), estimate(evidence))
    pd.testing.assert_frame_equal(describe_sites(again), describe_sites(evidence))


def test_missing_assays_leave_their_rows_out(evidence: Evidence) -> None:
    nothing = Evidence(300, exact_null())
    assert estimate(nothing).empty
    assert describe_sites(nothing)[["effect", "low", "high", "probability"]].isna().all(axis=None)
    only_skeletons = Evidence(300, exact_null(), skeletons=evidence.skeletons)
    assert set(estimate(only_skeletons)["quantity"]) == {FUNCTIONAL_SITES}


@pytest.mark.parametrize(
    ("genome", "detected", "functional"),
    [
        (ReferenceGenome(1), 0, 0),
        (ReferenceGenome(1, {0: 2.0}), 1, 1),
        (ReferenceGenome(40), 0, 0),
        (ReferenceGenome(40, dict.fromkeys(range(40), 1.5)), 40, 40),
    ],
    ids=["one neutral site", "one lethal site", "no functional site", "only lethal sites"],
)
@pytest.mark.parametrize("stated", [True, False], ids=["unit stated", "no unit"])
def test_extreme_genomes_have_estimates(genome: ReferenceGenome, detected: int, functional: int, stated: bool) -> None:
    evidence = evidence_of(genome, stated=stated, count=3)
    table = estimate(evidence)
    assert value_of(table, DETECTED_ALONE) == detected
    assert value_of(table, ADDITIVE_SITES) == 0
    assert math.isnan(value_of(table, MEAN_ADDITIVE_EFFECT))
    assert value_of(table, EPISTATIC_SITES) == 0
    assert value_of(table, FUNCTIONAL_SITES) == functional
    assert len(describe_sites(evidence)) == genome.num_sites


def test_a_noisy_organism_gets_intervals_for_its_sites() -> None:
    genome = ReferenceGenome(60, {0: 3.0, 1: 2.0})
    evidence = evidence_of(genome, mode="wright-fisher", count=2)
    sites = describe_sites(evidence)
    assert (sites["low"] < sites["effect"]).all()
    covered = (sites["low"][2:] <= 0.2) & (sites["high"][2:] >= -0.2)
    assert covered.mean() > 0.8
    assert np.isfinite(value_of(estimate(evidence), FUNCTIONAL_SITES))


def test_capture_frequencies_count_sites_by_the_skeletons_keeping_them() -> None:
    kept = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=bool)
    assert capture_frequencies(kept).tolist() == [1, 1, 1]
