"""A submission's assays, one after the other: what each asks, what it found, and where that is stored.

An assay whose result is recorded is read back, never run again. Statistics are in knockout/; here
they get their settings, their random numbers and the results of the assays they need.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.assay_runs.tables import read_table, write_table
from knockem_dagster.errors import NotFound
from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.assays.asking import Budget
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings, weigh_exactly
from knockem_dagster.knockout.assays.published.doses import (
    Calibration,
    CalibrationSettings,
    Titration,
    TitrationSettings,
    calibrate_doses,
    titrate,
)
from knockem_dagster.knockout.assays.published.jackknife import Jackknife, JackknifeSettings, jackknife_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import (
    NullCompetitions,
    measure_null_distribution,
)
from knockem_dagster.knockout.assays.published.screen import Screen, ScreenSettings, screen_sites
from knockem_dagster.knockout.assays.published.skeletons import Skeletons, SkeletonSettings, skeletonize
from knockem_dagster.knockout.assays.set_search import FoundSets, SetSearchSettings, find_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence, describe_sites, estimate
from knockem_dagster.knockout.knockouts import Genome
from knockem_dagster.knockout.score_model import ScoreModel
from knockem_dagster.records.assays import AssayResultRecord, AssayType, assay_id

TABLE_OF = {
    AssayType.NULLDIST: "null_distribution",
    AssayType.SCREEN_CRITICAL: "screen",
    AssayType.DOSE_CALIBRATION: "calibration",
    AssayType.DOSE_TITRATION: "titration",
    AssayType.SKELETONIZATION: "skeletons",
    AssayType.JACKKNIFE_KNOCKOUT: "jackknife",
    AssayType.WEIGHING: "weights",
    AssayType.SET_ENUMERATION: "sets",
}
"""The table that holds the result of each assay that runs competitions."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an assay found: its table, the numbers that sum it up, and whether it was read back."""

    assay_type: AssayType
    table: pd.DataFrame
    numbers: dict[str, Any]
    num_competitions: int
    num_untestable: int
    recalled: bool


class Study:
    """The assays of the submission that a run works on."""

    def __init__(self, run: SubmissionRun) -> None:
        self.run = run
        self.submission = run.submission
        self.genome = Genome(run.genome.id, run.genome.num_sites)

    def find(self, assay_type: AssayType) -> Finding:
        """Return what an assay found, running it if its result is not recorded yet.

        Raises AssayError when no answer is possible, NotFound when an assay it needs has not run.
        """
        recorded = self._recorded(assay_type)
        if recorded is not None:
            return recorded
        table, numbers = self._procedures[assay_type]()
        progress = self.run.progress
        key = write_table(self.run.objects, self.submission.id, TABLE_OF[assay_type], table)
        record = AssayResultRecord(
            id=assay_id(self.submission.id, assay_type),
            submission_id=self.submission.id,
            assay_type=assay_type,
            result=numbers,
            table_key=key,
            num_competitions=progress.answered,
            num_untestable=progress.untestable,
        )
        self.run.records.assay_results.add(record)
        return Finding(assay_type, table, numbers, progress.answered, progress.untestable, recalled=False)

    def _recorded(self, assay_type: AssayType) -> Finding | None:
        record = self.run.records.assay_results.find_one(assay_id(self.submission.id, assay_type))
        if record is None:
            return None
        table = self._table(TABLE_OF[assay_type])
        return Finding(assay_type, table, record.result, record.num_competitions, record.num_untestable, recalled=True)

    @cached_property
    def _procedures(self) -> dict[AssayType, Callable[[], tuple[pd.DataFrame, dict[str, Any]]]]:
        return {
            AssayType.NULLDIST: self._measure_null,
            AssayType.SCREEN_CRITICAL: self._screen_sites,
            AssayType.DOSE_CALIBRATION: self._calibrate,
            AssayType.DOSE_TITRATION: self._titrate,
            AssayType.SKELETONIZATION: self._skeletonize,
            AssayType.JACKKNIFE_KNOCKOUT: self._jackknife,
            AssayType.WEIGHING: self._weigh,
            AssayType.SET_ENUMERATION: self._enumerate_sets,
        }

    @property
    def null(self) -> NullDistribution:
        """The null distribution. Raises NotFound before it was measured."""
        competitions = NullCompetitions.from_table(self._table("null_distribution"))
        return competitions.distribution(stated_unit=self.submission.stated_unit)

    def evidence(self) -> Evidence:
        """Return what all assays that ran have found."""
        tables = {name: read_table(self.run.objects, self.submission.id, name) for name in TABLE_OF.values()}
        screen, calibration, titration = tables["screen"], tables["calibration"], tables["titration"]
        skeletons, jackknife = tables["skeletons"], tables["jackknife"]
        number = self.genome.num_sites
        candidates = number if screen is None else len(Screen.from_table(screen).undetected_sites)
        return Evidence(
            num_sites=number,
            null=self.null,
            screen=None if screen is None else Screen.from_table(screen),
            calibration=None if calibration is None else Calibration.from_table(calibration, candidates),
            titration=None if titration is None else Titration.from_table(titration, candidates),
            skeletons=None if skeletons is None else Skeletons.from_table(skeletons, number),
            jackknife=None if jackknife is None else Jackknife.from_table(jackknife),
            weights=self._weights(),
            sets=self._sets(),
            resolution=self.submission.resolution,
            error_rate=self.submission.error_rate,
        )

    def _weights(self) -> SiteWeights | None:
        recorded = self._recorded(AssayType.WEIGHING)
        return None if recorded is None else SiteWeights.from_table(recorded.table, recorded.numbers)

    def _sets(self) -> FoundSets | None:
        recorded = self._recorded(AssayType.SET_ENUMERATION)
        return None if recorded is None else FoundSets.from_table(recorded.table, recorded.numbers)

    def write_estimates(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Make and store the tables `estimates` and `sites` from what is there; return both."""
        evidence = self.evidence()
        estimates, sites = estimate(evidence), describe_sites(evidence)
        write_table(self.run.objects, self.submission.id, "estimates", estimates)
        write_table(self.run.objects, self.submission.id, "sites", sites)
        for assay_type in (AssayType.SKELETON_SAMPLE_AND_JACKKNIFE, AssayType.SKELETON_MARK_RECAPTURE):
            if assay_type in self.submission.assay_types:
                self.run.records.assay_results.add(
                    AssayResultRecord(
                        id=assay_id(self.submission.id, assay_type),
                        submission_id=self.submission.id,
                        assay_type=assay_type,
                        result={row["quantity"]: _plain(row["value"]) for row in estimates.to_dict("records")},
                        num_competitions=0,
                        num_untestable=0,
                    )
                )
        return estimates, sites

    def _table(self, name: str) -> pd.DataFrame:
        table = read_table(self.run.objects, self.submission.id, name)
        if table is None:
            raise NotFound(
                f"The table {name} of submission {self.submission.id} is not made yet; materialize its asset first."
            )
        return table

    def _rng(self, assay_type: AssayType) -> Generator:
        digest = hashlib.sha256(f"{self.submission.seed}\x1f{assay_type.value}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))

    def _perform(self, assay_type: AssayType, assay: Callable[..., Any], settings: Any, **results: Any) -> Any:
        async def ask(compete: Compete) -> Any:
            return await assay(self.genome, compete, self._rng(assay_type), settings, **results)

        return self.run.perform(assay_type, ask)

    def _measure_null(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = self._allotment.null_settings
        found: NullCompetitions = self._perform(AssayType.NULLDIST, measure_null_distribution, settings)
        null = found.distribution(stated_unit=self.submission.stated_unit)
        return found.table, {
            "mean score": null.mean,
            "sd of score": null.sd,
            "detection threshold": null.threshold,
            "p value of symmetry": null.symmetry_p,
        }

    def _screen_sites(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = ScreenSettings(tolerated_untested=self.submission.tolerated_untested)
        null = self.null
        found: Screen = self._perform(AssayType.SCREEN_CRITICAL, screen_sites, settings, null=null)
        return found.table, {
            "sites": self.genome.num_sites,
            "detected sites": int(found.table["detected"].sum()),
            "untested sites": len(found.untested_sites),
            "beneficial knockouts": found.num_beneficial(null),
        }

    @property
    def _candidates(self) -> NDArray[np.int64]:
        return Screen.from_table(self._table("screen")).undetected_sites

    def _calibrate(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = CalibrationSettings(tolerated_untested=self.submission.tolerated_untested)
        found: Calibration = self._perform(
            AssayType.DOSE_CALIBRATION, calibrate_doses, settings, null=self.null, candidates=self._candidates
        )
        doses = found.doses(settings.num_doses).tolist()
        return found.table, {"smallest dose": min(doses, default=0), "largest dose": max(doses, default=0)}

    def _titrate(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        candidates, null = self._candidates, self.null
        calibration = Calibration.from_table(self._table("calibration"), len(candidates))
        found: Titration = self._perform(
            AssayType.DOSE_TITRATION,
            titrate,
            TitrationSettings(),
            null=null,
            candidates=candidates,
            doses=calibration.doses(CalibrationSettings().num_doses),
        )
        return found.table, {
            "doses": len(found.doses),
            "detected share": _plain(float(found.table["detected"].mean())),
            "beneficial knockouts": found.num_beneficial(null),
        }

    def _skeletonize(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = SkeletonSettings(self.submission.skeletons, self.submission.tolerated_untested)
        found: Skeletons = self._perform(AssayType.SKELETONIZATION, skeletonize, settings, null=self.null)
        kept = found.kept
        return found.table, {
            "skeletons": len(kept),
            "sites kept, mean": _plain(float(kept.sum(axis=1).mean())),
            "sites ever kept": int(kept.any(axis=0).sum()),
            "untested deletions": found.num_untested,
            "beneficial deletions": found.num_beneficial,
        }

    def _jackknife(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        skeletons = Skeletons.from_table(self._table("skeletons"), self.genome.num_sites)
        settings = JackknifeSettings(tolerated_untested=self.submission.tolerated_untested)
        found: Jackknife = self._perform(
            AssayType.JACKKNIFE_KNOCKOUT, jackknife_skeletons, settings, null=self.null, skeletons=skeletons
        )
        return found.table, {
            "knockouts": len(found.table),
            "detected share": _plain(float(found.table["detected"].mean())) if len(found.table) else None,
        }

    def _weigh(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        model, allotment = ScoreModel.fit(self.null), self._allotment
        most = allotment.for_weighing(self._spent_before(AssayType.WEIGHING), sets_follow=self._wants_sets)
        tolerated = self.submission.tolerated_untested
        found: SiteWeights
        if model.is_exact:
            exact = ExactWeighingSettings(most_competitions=most, tolerated_untested=tolerated)
            found = self._perform(AssayType.WEIGHING, weigh_exactly, exact, model=model)
        else:
            settings = WeighingSettings(allotment.weighing_error, most, tolerated_untested=tolerated)
            found = self._perform(AssayType.WEIGHING, weigh_sites, settings, null=self.null)
        return found.table, {
            "additive sites named": len(found.additive(self.submission.error_rate)),
            "untested sites": int((~found.table["tested"]).sum()),
            "standard error": _plain(found.error),
            **found.numbers,
        }

    @property
    def _allotment(self) -> Allotment:
        asked = self.submission
        return Allotment(self.genome.num_sites, asked.resolution, asked.error_rate, asked.budget)

    def _spent_before(self, assay_type: AssayType) -> int:
        """Return how many competitions the submission's other assays have asked for."""
        results = self.run.records.assay_results.find({"submissionId": self.submission.id})
        return sum(each.num_competitions for each in results if each.assay_type is not assay_type)

    @property
    def _wants_sets(self) -> bool:
        return AssayType.SET_ENUMERATION in self.submission.assay_types

    def _enumerate_sets(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        weights = self._weights()
        if weights is None:
            raise NotFound(f"Submission {self.submission.id} is not weighed yet; materialize the asset weights first.")
        found: FoundSets = self._perform(
            AssayType.SET_ENUMERATION,
            find_sets,
            SetSearchSettings(error_rate=self.submission.error_rate),
            model=ScoreModel.fit(self.null.with_unit(weights.unit)),
            weights=weights,
            budget=Budget(self._allotment.left(self._spent_before(AssayType.SET_ENUMERATION))),
        )
        return found.table, {
            "sets": len(found.sets),
            "sites in sets": len({site for each in found.sets for site in each}),
            "sites without mates": len(found.lone),
            **found.numbers,
        }


def _plain(value: float) -> float | None:
    """Return a number as JSON has it: missing for NaN."""
    return None if math.isnan(value) else float(value)
