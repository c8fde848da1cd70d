"""How each assay is run: its settings, its random numbers and the results of the assays it needs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.assay_runs.findings import Findings, plain
from knockem_dagster.assay_runs.shares import (
    allotment_of,
    left_for_sets,
    left_for_skeletons,
    search_start,
    weighing_goal,
)
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.knockout.assays.asking import Budget
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings, weigh_exactly
from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeletons
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeletons
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
from knockem_dagster.knockout.assays.set_search import SetSearchSettings, find_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingGoal, WeighingSettings, weigh_sites
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.knockouts import Genome
from knockem_dagster.knockout.score_model import ScoreModel
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.stages import WeighingGoalValue
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.documents import Patch


def skeleton_settings(submission: SubmissionRecord) -> PrefixSkeletonSettings:
    """Return what a submission's options make of prefix search; its error rate is that of each skeleton."""
    return PrefixSkeletonSettings(
        skeletons=submission.skeletons,
        search=SearchSettings(resolution=submission.skeleton_resolution, error_rate=submission.error_rate),
        tolerated_untested=submission.tolerated_untested,
    )


class Procedures:
    """The assays of the submission that a run works on, each with what the submission's options make of it."""

    def __init__(self, run: SubmissionRun, findings: Findings) -> None:
        self._run = run
        self._findings = findings
        self._submission = run.submission
        self._genome = Genome(run.genome.id, run.genome.num_sites)

    def run(self, assay_type: AssayType) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Run an assay to its end and return its table and the numbers that sum it up.

        Raises AssayError when no answer is possible, NotFound when an assay it needs has not run.
        """
        return self._procedures[assay_type]()

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
            AssayType.PREFIX_SKELETONS: self._search_skeletons,
        }

    def _rng(self, assay_type: AssayType) -> Generator:
        digest = hashlib.sha256(f"{self._submission.seed}\x1f{assay_type.value}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))

    def _perform(self, assay_type: AssayType, assay: Callable[..., Any], settings: Any, **results: Any) -> Any:
        async def ask(compete: Compete) -> Any:
            return await assay(self._genome, compete, self._rng(assay_type), settings, **results)

        return self._run.perform(assay_type, ask)

    def _measure_null(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = allotment_of(self._submission).null_settings
        found: NullCompetitions = self._perform(AssayType.NULLDIST, measure_null_distribution, settings)
        null = found.distribution(stated_unit=self._submission.stated_unit)
        return found.table, {
            "mean score": null.mean,
            "sd of score": null.sd,
            "detection threshold": null.threshold,
            "p value of symmetry": null.symmetry_p,
        }

    def _screen_sites(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = ScreenSettings(tolerated_untested=self._submission.tolerated_untested)
        null = self._findings.null
        found: Screen = self._perform(AssayType.SCREEN_CRITICAL, screen_sites, settings, null=null)
        return found.table, {
            "sites": self._genome.num_sites,
            "detected sites": int(found.table["detected"].sum()),
            "untested sites": len(found.untested_sites),
            "beneficial knockouts": found.num_beneficial(null),
        }

    @property
    def _candidates(self) -> NDArray[np.int64]:
        return Screen.from_table(self._findings.needed(AssayType.SCREEN_CRITICAL).table).undetected_sites

    def _calibrate(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = CalibrationSettings(tolerated_untested=self._submission.tolerated_untested)
        found: Calibration = self._perform(
            AssayType.DOSE_CALIBRATION, calibrate_doses, settings, null=self._findings.null, candidates=self._candidates
        )
        doses = found.doses(settings.num_doses).tolist()
        return found.table, {"smallest dose": min(doses, default=0), "largest dose": max(doses, default=0)}

    def _titrate(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        candidates, null = self._candidates, self._findings.null
        calibration = Calibration.from_table(self._findings.needed(AssayType.DOSE_CALIBRATION).table, len(candidates))
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
            "detected share": plain(float(found.table["detected"].mean())),
            "beneficial knockouts": found.num_beneficial(null),
        }

    def _skeletonize(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        settings = SkeletonSettings(self._submission.skeletons, self._submission.tolerated_untested)
        found: Skeletons = self._perform(AssayType.SKELETONIZATION, skeletonize, settings, null=self._findings.null)
        kept = found.kept
        return found.table, {
            "skeletons": len(kept),
            "sites kept, mean": plain(float(kept.sum(axis=1).mean())),
            "sites ever kept": int(kept.any(axis=0).sum()),
            "untested deletions": found.num_untested,
            "beneficial deletions": found.num_beneficial,
        }

    def _jackknife(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        skeletons = Skeletons.from_table(self._findings.needed(AssayType.SKELETONIZATION).table, self._genome.num_sites)
        settings = JackknifeSettings(tolerated_untested=self._submission.tolerated_untested)
        found: Jackknife = self._perform(
            AssayType.JACKKNIFE_KNOCKOUT, jackknife_skeletons, settings, null=self._findings.null, skeletons=skeletons
        )
        return found.table, {
            "knockouts": len(found.table),
            "detected share": plain(float(found.table["detected"].mean())) if len(found.table) else None,
        }

    def _weigh(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        model, goal = ScoreModel.fit(self._findings.null), self._weighing_goal()
        tolerated = self._submission.tolerated_untested
        found: SiteWeights
        if model.is_exact:
            exact = ExactWeighingSettings(most_competitions=goal.most_competitions, tolerated_untested=tolerated)
            found = self._perform(AssayType.WEIGHING, weigh_exactly, exact, model=model)
        else:
            settings = WeighingSettings(goal.error, goal.most_competitions, tolerated_untested=tolerated)
            stages = [stage.weighing for stage in self._submission.stages if stage.weighing is not None]
            earlier = [WeighingGoal(each.error, each.most_competitions) for each in stages]
            found = self._perform(
                AssayType.WEIGHING,
                weigh_sites,
                settings,
                null=self._findings.null,
                earlier=earlier,
                told=self._tell_weights,
            )
        return found.table, {
            "additive sites named": len(found.additive(self._submission.error_rate)),
            "untested sites": found.num_untested,
            "standard error": plain(found.error),
            **found.numbers,
        }

    async def _tell_weights(self, weights: SiteWeights) -> None:
        await asyncio.to_thread(self._findings.keep_interim_estimates, weights)

    def _weighing_goal(self) -> WeighingGoalValue:
        """Return what weighing aims at, the same in every run of a stage: it is recorded before anything is asked."""
        submission = self._submission
        if submission.weighing is not None:
            return submission.weighing
        goal = weighing_goal(submission, self._findings.asked())
        changes = {"weighing": goal.model_dump(by_alias=True)}
        self._run.records.submissions.patch(submission.id, Patch(set=changes))
        return goal

    def _enumerate_sets(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        weighed = self._findings.needed(AssayType.WEIGHING)
        weights = SiteWeights.from_table(weighed.table, weighed.numbers)
        start = search_start(self._submission.stages, weighed=weights.num_competitions)
        found: FoundSets = self._perform(
            AssayType.SET_ENUMERATION,
            find_sets,
            SetSearchSettings(error_rate=self._submission.error_rate),
            model=ScoreModel.fit(self._findings.null.with_unit(weights.unit)),
            weights=weights,
            budget=Budget(left_for_sets(self._submission, self._findings.asked(), start)),
            known=start.known,
        )
        found = replace(found, num_competitions=self._run.progress.num_competitions)
        return found.table, {
            "sets": len(found.sets),
            "sites in sets": len({site for each in found.sets for site in each}),
            "sites without mates": len(found.lone),
            **found.numbers,
        }

    def _search_skeletons(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        asked, assay_type = self._submission, AssayType.PREFIX_SKELETONS
        found: PrefixSkeletons = self._perform(
            assay_type,
            search_skeletons,
            skeleton_settings(asked),
            model=ScoreModel.fit(self._findings.null),
            budget=Budget(left_for_skeletons(asked, self._findings.asked())),
        )
        self._findings.keep_table("prefix_skeleton_summary", found.summary)
        made, kept = found.skeletons, found.kept
        return found.table, {
            "skeletons": len(made),
            "sites kept, mean": float(kept.sum(axis=1).mean()) if made else None,
            "sites ever kept": int(kept.any(axis=0).sum()),
            "untested deletions": sum(int((~each.tested).sum()) for each in made),
            "beneficial deletions": sum(each.num_beneficial for each in made),
            **found.numbers,
        }
