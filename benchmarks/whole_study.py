"""A study as a submission runs it: null, weighing, sets, and what its report would say."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from numpy.random import Generator

from benchmarks.reference_organism import ReferenceOrganism
from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.assays.asking import Budget
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings, weigh_exactly
from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.set_search import SetSearchSettings, find_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence, estimate
from knockem_dagster.knockout.score_model import ScoreModel

RESOLUTION = 0.1
ERROR_RATE = 0.02
"""A submission's default options."""


@dataclass(frozen=True, slots=True)
class Studied:
    """What a study found, in so many `competitions`."""

    num_sites: int
    null: NullDistribution
    weights: SiteWeights
    found: FoundSets
    competitions: int

    @property
    def estimates(self) -> pd.DataFrame:
        """Return the table `estimates` of its report."""
        return estimate(
            Evidence(
                self.num_sites,
                self.null,
                weights=self.weights,
                sets=self.found,
                resolution=RESOLUTION,
                error_rate=ERROR_RATE,
            )
        )

    @property
    def named(self) -> frozenset[int]:
        """Return the sites of which the report says that they matter."""
        members = {site for each in self.found.sets for site in each}
        return frozenset({*self.weights.additive(ERROR_RATE), *members, *self.found.lone})


async def study(organism: ReferenceOrganism, rng: Generator, *, budget: int | None = None) -> Studied:
    """Study an organism with a submission's default options. Raises AssayError where the study would fail."""
    genome, compete = organism.genome.genome, organism.compete
    allotment = Allotment(genome.num_sites, RESOLUTION, ERROR_RATE, budget)
    settings = NullSettings(2) if organism.mode == "exact" else allotment.null_settings
    measured = await measure_null_distribution(genome, compete, rng, settings)
    null = measured.distribution(stated_unit=organism.stated_unit)
    model, most = ScoreModel.fit(null), allotment.for_weighing(organism.num_asked, sets_follow=True)
    if model.is_exact:
        weights = await weigh_exactly(genome, compete, rng, ExactWeighingSettings(most), model=model)
    else:
        goal = WeighingSettings(allotment.weighing_error, most)
        weights = await weigh_sites(genome, compete, rng, goal, null=null)
    found = await find_sets(
        genome,
        compete,
        rng,
        SetSearchSettings(error_rate=ERROR_RATE),
        model=ScoreModel.fit(null.with_unit(weights.unit)),
        weights=weights,
        budget=Budget(allotment.for_sets(organism.num_asked)),
    )
    return Studied(genome.num_sites, null, weights, found, organism.num_asked)
