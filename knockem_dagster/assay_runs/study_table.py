"""The table `study` of a submission: what was studied, with which settings, and what it came to.

It holds no time and nothing that depends on how the work went: a study that was interrupted has the same table.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy
from scipy import stats

from knockem_dagster.assay_runs.findings import TABLE_OF
from knockem_dagster.assay_runs.versions import version
from knockem_dagster.knockout.assays.published.doses import CalibrationSettings
from knockem_dagster.knockout.assays.published.screen import ScreenSettings
from knockem_dagster.knockout.assays.set_search import SetSearchSettings
from knockem_dagster.knockout.assays.site_weights import POWER_DEVIATES, SURE
from knockem_dagster.knockout.assays.weighing import WeighingSettings
from knockem_dagster.knockout.estimates import SITES_OF_MINIMAL_GENOME, Evidence
from knockem_dagster.knockout.resolving_power import effect_surely_named
from knockem_dagster.knockout.site_findings import SiteFinding
from knockem_dagster.records.assays import AssayResultRecord
from knockem_dagster.records.record import revision
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.reports import study_facts as fact
from knockem_dagster.reports.study_facts import Fact, study_table

Facts = dict[Fact, str | float | None]


def describe_study(
    submission: SubmissionRecord,
    evidence: Evidence,
    *,
    genome_digest: str,
    results: Iterable[AssayResultRecord],
    estimates: pd.DataFrame,
    sites: pd.DataFrame,
) -> pd.DataFrame:
    """Return the table `study` of a submission, from its record, what its assays found, and its other tables."""
    ran = [result for result in results if result.assay_type in TABLE_OF]
    levels = estimates.loc[estimates["quantity"] != SITES_OF_MINIMAL_GENOME, "level"].dropna()
    return study_table(
        {
            **_submission(submission, genome_digest),
            **_software(submission),
            **_null(evidence),
            **_weighing(evidence, submission),
            **_sets(evidence),
            **_skeletons(evidence, submission),
            **_published(evidence),
            **_competitions(ran),
            fact.LEVEL: float(levels.max()) if len(levels) else None,
            fact.UNTESTED: _count(sites, SiteFinding.NOT_TESTED),
            fact.NOT_RESOLVED: _count(sites, SiteFinding.NOT_RESOLVED),
        }
    )


def _count(sites: pd.DataFrame, finding: SiteFinding) -> int:
    return int((sites["finding"] == finding.value).sum())


def _submission(submission: SubmissionRecord, genome_digest: str) -> Facts:
    return {
        fact.SUBMISSION: submission.id,
        fact.ORGANISM: submission.container_image,
        fact.IMAGE_DIGEST: submission.image_digest,
        fact.RUNTIME: submission.container_runtime,
        fact.GENOME_DIGEST: genome_digest,
        fact.SITES: submission.num_sites,
        fact.SEED: submission.seed,
        fact.ASSAY_TYPES: ", ".join(assay_type.value for assay_type in submission.assay_types),
        fact.RESOLUTION: submission.resolution,
        fact.ERROR_RATE: submission.error_rate,
        fact.BUDGET: submission.budget,
        fact.TOLERATED: submission.tolerated_untested,
        fact.SKELETONS: submission.skeletons,
        **{fact.stage(number): stage.asked_for for number, stage in enumerate(submission.stages, start=1)},
    }


def _software(submission: SubmissionRecord) -> Facts:
    return {
        fact.VERSION: version(),
        fact.REVISION: revision(),
        fact.ACCEPTED_BY: submission.revision_knockem,
        fact.PYTHON: platform.python_version(),
        fact.NUMPY: np.__version__,
        fact.SCIPY: scipy.__version__,
    }


def _null(evidence: Evidence) -> Facts:
    null, weights, screen = evidence.null, evidence.weights, evidence.screen
    if weights is not None:
        null = null.with_unit(weights.unit)
    elif screen is not None:
        null = null.with_unit_from(screen.scores)
    return {
        fact.NULL_COMPETITIONS: null.n,
        fact.NULL_MEAN: null.mean,
        fact.NULL_SD: null.sd,
        fact.NULL_P: null.symmetry_p if null.sd > 0 else None,
        fact.NULL_LEVEL: null.level,
        fact.THRESHOLD: null.threshold,
        fact.UNIT: null.unit,
    }


def _weighing(evidence: Evidence, submission: SubmissionRecord) -> Facts:
    weights = evidence.weights
    if weights is None:
        return {}
    designed: Facts = {} if weights.is_exact else _design(WeighingSettings())
    return {
        **designed,
        fact.STANDARD_ERROR: weights.error,
        fact.SURELY_NAMED: effect_surely_named(weights, submission.error_rate),
        fact.NAMED: len(weights.additive(submission.error_rate)),
    }


def _design(settings: WeighingSettings) -> Facts:
    return {
        fact.DOSE_TESTS: settings.dose_tests,
        fact.LARGEST_SHARE: settings.largest_share,
        fact.POWER: float(stats.norm.cdf(POWER_DEVIATES)),
        fact.SURE: SURE,
    }


def _sets(evidence: Evidence) -> Facts:
    found = evidence.sets
    if found is None:
        return {}
    is_exact = evidence.weights is not None and evidence.weights.is_exact
    return {
        fact.SET_RESOLUTION: None if is_exact else found.resolution or None,
        fact.SET_COMPETITIONS: None if is_exact else SetSearchSettings().penalty_competitions,
        fact.SETS_FOUND: len(found.sets),
        fact.SETS_COMPLETE: "yes" if found.is_complete else "no",
    }


def _skeletons(evidence: Evidence, submission: SubmissionRecord) -> Facts:
    found = evidence.prefix_skeletons
    if found is None:
        return {}
    return {
        fact.PREFIX_MADE: len(found.skeletons),
        fact.PREFIX_RESOLUTION: submission.skeleton_resolution if evidence.null.sd > 0 else None,
    }


def _published(evidence: Evidence) -> Facts:
    titration, skeletons = evidence.titration, evidence.skeletons
    return {
        fact.DISCOVERY_RATE: None if evidence.screen is None else ScreenSettings().false_discovery_rate,
        fact.SMEAR: None if evidence.calibration is None else CalibrationSettings().smear,
        fact.TITRATION_DOSES: None if titration is None else len(titration.doses),
        fact.TITRATION_REPLICATES: None if titration is None else _replicates(titration.table),
        fact.SKELETONS_MADE: None if skeletons is None else len(skeletons.kept),
    }


def _replicates(titration: pd.DataFrame) -> int:
    return int(titration.groupby("dose").size().max()) if len(titration) else 0


def _competitions(ran: Sequence[AssayResultRecord]) -> Facts:
    values: Facts = {
        fact.ASKED: sum(result.num_competitions for result in ran),
        fact.UNTESTABLE: sum(result.num_untestable for result in ran),
    }
    for result in ran:
        values[fact.asked_by(result.assay_type.value)] = result.num_competitions
        values[fact.untestable_of(result.assay_type.value)] = result.num_untestable
    return values
