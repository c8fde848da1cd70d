"""The report of a submission: its facts gathered from the record, its page and figures stored with the results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import pandas as pd
from matplotlib.figure import Figure

from knockem_dagster.assay_runs.findings import TABLE_OF
from knockem_dagster.assay_runs.study import findings_of
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.assay_runs.tables import figure_key, read_table, report_key, report_text_key, submission_prefix
from knockem_dagster.assay_runs.truth import tell_truth
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import ContainerError, WorkersAway
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.site_findings import SiteFinding
from knockem_dagster.records.assays import AssayResultRecord
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.record import now
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports import figures
from knockem_dagster.reports.figure_files import to_svg
from knockem_dagster.reports.inputs import (
    FailedAttempt,
    LossFacts,
    NegativeBinomialFit,
    NullFacts,
    ReportInputs,
    SubmissionFacts,
    TruthFacts,
)
from knockem_dagster.reports.page import report_page
from knockem_dagster.reports.skeleton_figures import skeletons_with_residuals
from knockem_dagster.reports.text import report_text
from knockem_dagster.stores.objects import Objects

MOST_EXAMPLES = 5
_TESTING_SITES = frozenset({"screen", "skeletons", "weights", "prefix_skeletons"})
"""The tables of assays that test every site."""


def truth_key(submission_id: str) -> str:
    """Return the key of what the organism says of itself: for reports only, never for an assay."""
    return f"{submission_prefix(submission_id)}truth.json"


def write_report(run: SubmissionRun) -> ReportInputs:
    """Make the report from what is recorded, store it with its figures, and return what it was made from."""
    inputs = gather(run)
    id = run.submission.id
    for name, figure in report_figures(inputs).items():
        run.objects.put(figure_key(id, name), to_svg(figure).encode(), content_type="image/svg+xml")
    run.objects.put(report_text_key(id), report_text(inputs).encode(), content_type="text/plain; charset=utf-8")
    run.objects.put(report_key(id), report_page(inputs).encode(), content_type="text/html; charset=utf-8")
    return inputs


def gather(run: SubmissionRun) -> ReportInputs:
    """Gather everything a report tells of the run's submission."""
    submission, records = run.submission, run.records
    tables = {name: table for name in TABLES if (table := read_table(run.objects, submission.id, name)) is not None}
    evidence = findings_of(run).evidence()
    fit = evidence.dose_response
    results = list(records.assay_results.find({"submissionId": submission.id}))
    screen, weights = evidence.screen, evidence.weights
    null = evidence.null if screen is None else evidence.null.with_unit_from(screen.scores)
    if weights is not None:
        null = evidence.null.with_unit(weights.unit)
    return ReportInputs(
        submission=submission_facts(submission, genome_digest=run.genome.digest),
        tables=tables,
        losses=losses_of(records, submission.id, results, untested_sites(tables)),
        competitions_by_assay={
            result.assay_type.value: result.num_competitions for result in results if result.assay_type in TABLE_OF
        },
        null=null_facts(null),
        truth=ask_truth(run),
        sets_complete=evidence.sets is None or evidence.sets.is_complete,
        dose_fit=None if fit is None else NegativeBinomialFit(r=fit.needed, p=fit.prevalence),
    )


def untested_sites(tables: Mapping[str, pd.DataFrame]) -> list[int]:
    """Return the sites of which no competition tells; none where no assay was to test any."""
    if "sites" not in tables or not _TESTING_SITES & tables.keys():
        return []
    sites = tables["sites"]
    return sites.loc[sites["finding"] == SiteFinding.NOT_TESTED.value, "site"].tolist()


def ask_truth(run: SubmissionRun) -> TruthFacts | None:
    """Ask the organism for its truth and store it beside the report; None where it does not tell."""
    try:
        told = run.call(tell_truth(run.platform, run.submission, run.genome))
    except (ContainerError, WorkersAway):
        return None  # a truth that cannot be read must not cost the user the report
    if told is None:
        return None
    truth = TruthFacts(effects=told.effects, sets=told.sets)
    content = {"effects": {str(site): effect for site, effect in truth.effects.items()}, "sets": truth.sets}
    run.objects.put(truth_key(run.submission.id), orjson.dumps(content), content_type="application/json")
    return truth


def read_truth(objects: Objects, submission_id: str) -> TruthFacts | None:
    """Return the truth stored beside a report, or None."""
    key = truth_key(submission_id)
    if not objects.exists(key):
        return None
    content: dict[str, Any] = orjson.loads(objects.get(key))
    return TruthFacts(effects={int(site): effect for site, effect in content["effects"].items()}, sets=content["sets"])


def submission_facts(submission: SubmissionRecord, *, genome_digest: str) -> SubmissionFacts:
    """Return where a submission came from and what it ran."""
    settings = {
        "maxActive": submission.max_active,
        "maxFail": submission.max_fail,
        "timeoutSeconds": submission.timeout_seconds,
        "limits.cpus": submission.limits.cpus,
        "limits.memoryMiB": submission.limits.memory_mib,
        "skeletons": submission.skeletons,
        "skeletonResolution": submission.skeleton_resolution,
        "toleratedUntested": submission.tolerated_untested,
        "resolution": submission.resolution,
        "budget": "no limit" if submission.budget is None else submission.budget,
        "errorRate": submission.error_rate,
        **{f"stage {number}": stage.asked_for for number, stage in enumerate(submission.stages, start=1)},
        **{f"containerEnv.{name}": value for name, value in sorted(submission.container_env.items())},
    }
    return SubmissionFacts(
        id=submission.id,
        organism=submission.container_image,
        digest=submission.image_digest,
        runtime=submission.container_runtime,
        num_sites=submission.num_sites,
        genome_digest=genome_digest,
        assay_types=[assay_type.value for assay_type in submission.assay_types],
        seed=submission.seed,
        submitted=datetime.fromisoformat(submission.datetime),
        finished=datetime.fromisoformat(submission.finished or now()),
        revision=submission.revision_knockem,
        user_email=submission.user_email,
        resolution=submission.resolution,
        settings=settings,
    )


def null_facts(null: NullDistribution) -> NullFacts:
    """Return what a report tells of the null distribution."""
    return NullFacts(
        mean=null.mean,
        sd=null.sd,
        threshold=null.threshold,
        unit=null.unit,
        symmetry_p=null.symmetry_p if null.sd > 0 else math.nan,
    )


def losses_of(records: Records, submission_id: str, results: list[AssayResultRecord], untested: list[int]) -> LossFacts:
    """Count what was asked, what failed, and what that cost in slot time."""
    attempts: Counter[str] = Counter()
    seconds = {True: 0.0, False: 0.0}
    examples: dict[str, FailedAttempt] = {}
    for ended in records.attempt_results.find({"submissionId": submission_id}):
        succeeded = ended.outcome is Outcome.SUCCEEDED
        attempts[ended.outcome.value] += 1
        seconds[succeeded] += ended.wall_seconds or 0.0
        if not succeeded and not ended.blameless:
            last_line = ended.tail.strip().rsplit("\n", 1)[-1]
            kind = f"{ended.outcome.value}: {last_line[:40]}"
            if len(examples) < MOST_EXAMPLES:
                examples.setdefault(kind, FailedAttempt(ended.outcome.value, ended.exit_code, ended.tail))
    asked = sum(result.num_competitions for result in results)
    untestable = sum(result.num_untestable for result in results)
    return LossFacts(
        asked=asked,
        answered=asked - untestable,
        untestable=untestable,
        attempts=dict(attempts),
        slot_seconds=seconds[True] + seconds[False],
        failed_slot_seconds=seconds[False],
        examples=list(examples.values()),
        untested_sites=untested,
    )


def report_figures(inputs: ReportInputs) -> dict[str, Figure]:
    """Return the figures that the tables at hand allow, by name."""
    made: dict[str, Figure] = {}
    null, screen_sites = inputs.table("null_distribution"), inputs.table("sites")
    titration, skeletons, jackknife = inputs.table("titration"), inputs.table("skeletons"), inputs.table("jackknife")
    if null is not None:
        made["null_distribution"] = figures.null_distribution(null, inputs.null)
    if titration is not None:
        made["dose_response"] = figures.dose_response(
            calibration=inputs.table("calibration"), titration=titration, fit=inputs.dose_fit
        )
    if skeletons is not None:
        made["skeleton_composition"] = figures.skeleton_composition(skeletons)
    if screen_sites is not None:
        weighed = inputs.table("weights") is not None
        made["site_evidence"] = figures.site_evidence(screen_sites, inputs.truth, weighed=weighed)
    if (sets := inputs.table("sets")) is not None:
        made["set_penalties"] = figures.set_penalties(sets)
    if (searched := inputs.table("prefix_skeletons")) is not None:
        made["prefix_skeletons"] = skeletons_with_residuals(searched, inputs.table("prefix_skeleton_summary"))
    if jackknife is not None and skeletons is not None:
        made["jackknife_severity"] = figures.jackknife_severity(
            skeletons=skeletons, jackknife=jackknife, null=inputs.null, truth=inputs.truth
        )
    return made
