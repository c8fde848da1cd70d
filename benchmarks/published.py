"""Do the published procedures, with their defects repaired, behave as published?

Runs them on the paper's three settings with the exact reference organism, and checks the pieces that have
known answers: the Burnham-Overton table, one test a site for a skeleton, and the false-positive rate of detection.

    python -m benchmarks.published [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from benchmarks.measurement import Measurement, command
from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism, wright_fisher
from knockem_dagster.knockout.assays.published.doses import (
    CalibrationSettings,
    TitrationSettings,
    calibrate_doses,
    titrate,
)
from knockem_dagster.knockout.assays.published.jackknife import JackknifeSettings, jackknife_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.published.skeletons import Skeletons, SkeletonSettings, skeletonize
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence, capture_frequencies
from knockem_dagster.knockout.estimators.mark_recapture import (
    PopulationEstimate,
    estimate_population,
    jackknife_coefficients,
)

_PAPER = "Moreno 2024"
_TABLE = "Burnham-Overton 1979"
_NOMINAL = "nominal rate"
_COTTONTAILS = (43, 16, 8, 6, 0, 2, 1, *[0] * 11)
_COTTONTAIL_ORDERS = (116.6, 141.4, 158.5, 170.3, 176.4)
_COTTONTAIL_INTERPOLATED = (142.3, 112.5, 172.0)


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure everything, at `scale` times the full number of genomes (60, 60 and 100) and null sets (1,000)."""
    rng = default_rng(seed)
    return [
        *_measure_additive(rng, _scaled(60, scale)),
        *_measure_epistatic(rng, _scaled(60, scale)),
        *_measure_any_effect(rng, _scaled(100, scale)),
        *_measure_burnham_overton(),
        *_measure_false_positives(rng, _scaled(1000, scale)),
    ]


def _scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))


async def _null_of(organism: ReferenceOrganism, rng: Generator) -> NullDistribution:
    competitions = await measure_null_distribution(
        organism.genome.genome, organism.compete, rng, NullSettings(replicates=2)
    )
    return competitions.distribution(stated_unit=organism.stated_unit)


def _measure_additive(rng: Generator, num_genomes: int) -> list[Measurement]:
    outcomes = np.array([asyncio.run(_additive_errors(child)) for child in rng.spawn(num_genomes)])
    count_error, effect_error, tests = outcomes.T
    return [
        Measurement("additive sites: bias", count_error.mean(), "sites of 50", num_genomes, _PAPER, -11.0),
        Measurement("additive sites: RMSE", _rms(count_error), "sites of 50", num_genomes, _PAPER, 13.9),
        Measurement("additive effect: RMSE", _rms(effect_error), "thresholds", num_genomes, _PAPER, 0.090),
        Measurement("additive: tests", tests.mean(), "competitions", num_genomes, _PAPER, 5250),
    ]


async def _additive_errors(rng: Generator) -> tuple[float, float, int]:
    organism = ReferenceOrganism(ReferenceGenome.additive(rng))
    genome, compete = organism.genome.genome, organism.compete
    null = await _null_of(organism, rng)
    everything = np.arange(genome.num_sites)
    before = organism.num_asked
    settings = CalibrationSettings()
    calibration = await calibrate_doses(genome, compete, rng, settings, null=null, candidates=everything)
    doses = calibration.doses(settings.num_doses)
    titration = await titrate(genome, compete, rng, TitrationSettings(), null=null, candidates=everything, doses=doses)
    fit = Evidence(genome.num_sites, null, titration=titration).dose_response
    assert fit is not None
    effects = list(organism.genome.effects.values())
    return (
        fit.num_additive_sites - len(effects),
        fit.mean_effect - sum(effects) / len(effects),
        organism.num_asked - before,
    )


def _measure_epistatic(rng: Generator, num_genomes: int) -> list[Measurement]:
    outcomes = np.array([asyncio.run(_epistatic_outcome(child)) for child in rng.spawn(num_genomes)])
    recall, precision, recall_of_all, tests, jackknifes, kept = outcomes.T
    return [
        Measurement("epistatic sites: recall", recall.mean(), "share", num_genomes, _PAPER, 0.829),
        Measurement("epistatic sites: precision", precision.mean(), "share", num_genomes, _PAPER, 0.999),
        Measurement("epistatic sites: recall, own effects too", recall_of_all.mean(), "share", num_genomes),
        Measurement("epistatic: skeleton tests", tests.mean(), "competitions", num_genomes, _PAPER, 111_947),
        Measurement("epistatic: jackknife tests", jackknifes.mean(), "competitions", num_genomes, _PAPER, 4_170),
        Measurement(
            "skeleton of 4,000 sites: tests", tests.mean() / 20, "competitions", num_genomes, "one test a site", 4_000
        ),
        Measurement("skeleton of 4,000 sites: kept", kept.mean(), "sites", num_genomes, _PAPER, 208),
    ]


async def _epistatic_outcome(rng: Generator) -> tuple[float, float, float, int, int, float]:
    organism = ReferenceOrganism(ReferenceGenome.epistatic(rng))
    genome, compete = organism.genome.genome, organism.compete
    null = await _null_of(organism, rng)
    before = organism.num_asked
    skeletons = await skeletonize(genome, compete, rng, SkeletonSettings(skeletons=20), null=null)
    between = organism.num_asked
    jackknife = await jackknife_skeletons(genome, compete, rng, JackknifeSettings(), null=null, skeletons=skeletons)
    sample = Evidence(genome.num_sites, null, skeletons=skeletons, jackknife=jackknife).skeleton_sample
    assert sample is not None
    found = set(sample.epistatic.tolist())
    # A site with an effect of its own is kept by nearly every skeleton: the published figures count the others.
    hidden = organism.genome.epistatic_sites - organism.genome.additive_sites
    everything = organism.genome.epistatic_sites
    return (
        len(found & hidden) / len(hidden),
        len(found & hidden) / max(1, len(found)),
        len(found & everything) / len(everything),
        between - before,
        organism.num_asked - between,
        float(skeletons.kept.sum(axis=1).mean()),
    )


def _measure_any_effect(rng: Generator, num_genomes: int) -> list[Measurement]:
    outcomes = [asyncio.run(_any_effect_outcome(child)) for child in rng.spawn(num_genomes)]
    truth = np.array([each.truth for each in outcomes], dtype=np.float64)
    tests = float(np.mean([each.tests for each in outcomes]))
    kept = float(np.mean([each.kept for each in outcomes]))
    selected = _Intervals.of([each.selected for each in outcomes], truth)
    interpolated = _Intervals.of([each.interpolated for each in outcomes], truth)
    one = "one test a site"
    return [
        Measurement("functional sites: true number", truth.mean(), "sites", num_genomes, _PAPER, 554),
        Measurement("functional sites: bias", selected.bias, "sites", num_genomes, _PAPER, 12.1),
        Measurement("functional sites: RMSE", selected.rmse, "sites", num_genomes, _PAPER, 21.6),
        Measurement("functional sites: 95% coverage", selected.coverage, "share", num_genomes, _PAPER, 0.80),
        Measurement("functional sites: interval width", selected.width, "sites", num_genomes, _PAPER, 54),
        Measurement("functional, interpolated: bias", interpolated.bias, "sites", num_genomes),
        Measurement("functional, interpolated: RMSE", interpolated.rmse, "sites", num_genomes),
        Measurement("functional, interpolated: 95% coverage", interpolated.coverage, "share", num_genomes),
        Measurement("functional, interpolated: interval width", interpolated.width, "sites", num_genomes),
        Measurement("functional: tests", tests, "competitions", num_genomes, _PAPER, 68_424),
        Measurement("skeleton of 10,000 sites: tests", tests / 5, "competitions", num_genomes, one, 10_000),
        Measurement("skeleton of 10,000 sites: kept", kept, "sites", num_genomes, _PAPER, 426),
    ]


@dataclass(frozen=True, slots=True)
class _AnyEffectOutcome:
    truth: int
    tests: int
    kept: float
    selected: PopulationEstimate
    interpolated: PopulationEstimate


@dataclass(frozen=True, slots=True)
class _Intervals:
    bias: float
    rmse: float
    coverage: float
    width: float

    @classmethod
    def of(cls, estimates: Sequence[PopulationEstimate], truth: NDArray[np.float64]) -> _Intervals:
        value = np.array([each.value for each in estimates])
        low = np.array([each.low for each in estimates])
        high = np.array([each.high for each in estimates])
        covered = (low <= truth) & (truth <= high)
        return cls(
            float((value - truth).mean()), _rms(value - truth), float(covered.mean()), float((high - low).mean())
        )


async def _any_effect_outcome(rng: Generator) -> _AnyEffectOutcome:
    organism = ReferenceOrganism(ReferenceGenome.any_effect(rng))
    null = await _null_of(organism, rng)
    before = organism.num_asked
    skeletons: Skeletons = await skeletonize(
        organism.genome.genome, organism.compete, rng, SkeletonSettings(skeletons=5), null=null
    )
    result = estimate_population(capture_frequencies(skeletons.kept))
    return _AnyEffectOutcome(
        truth=len(organism.genome.functional_sites),
        tests=organism.num_asked - before,
        kept=float(skeletons.kept.sum(axis=1).mean()),
        selected=result.selected,
        interpolated=result.interpolated,
    )


def _measure_burnham_overton() -> list[Measurement]:
    captures = np.array(_COTTONTAILS)
    orders = [
        Measurement(
            f"cottontails: jackknife of order {order}",
            float(jackknife_coefficients(order, len(captures)) @ captures),
            "cottontails",
            1,
            _TABLE,
            expected,
        )
        for order, expected in enumerate(_COTTONTAIL_ORDERS, start=1)
    ]
    found = estimate_population(captures).interpolated
    interpolated = [
        Measurement(f"cottontails: interpolated{what}", value, "cottontails", 1, _TABLE, expected)
        for what, value, expected in zip(
            ("", ", low", ", high"), (found.value, found.low, found.high), _COTTONTAIL_INTERPOLATED, strict=True
        )
    ]
    return orders + interpolated


def _measure_false_positives(
    rng: Generator, num_sets: int, *, num_null: int = 100, num_tests: int = 1000
) -> list[Measurement]:
    rates = false_positive_rates(rng, num_sets=num_sets, num_null=num_null, num_tests=num_tests)
    return [
        Measurement(
            "null threshold: false positives", float(rates.mean()), "share of tests", rates.size, _NOMINAL, 0.01
        )
    ]


def false_positive_rates(rng: Generator, *, num_sets: int, num_null: int, num_tests: int) -> NDArray[np.float64]:
    """Return the false-positive rate of each of `num_sets` Wright-Fisher nulls on fresh tests of no effect.

    Every set is `num_null` competitions for the threshold and `num_tests` others to try it on; shape (num_sets,).
    """
    rates = np.empty(num_sets)
    for number in range(num_sets):
        survivors = wright_fisher(np.zeros(num_null + num_tests), rng)
        scores = (2 * survivors / 1000 - 1) / 100
        null = NullDistribution.from_scores(scores[:num_null], bound=1 / 100, level=0.01)
        rates[number] = np.mean(scores[num_null:] >= null.threshold)
    return rates


def _rms(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


if __name__ == "__main__":
    command(run, about=__doc__, title="The published procedures, exact mode")
