"""The assets of a submission, from its genome to its report, and the summary over all submissions.

What belongs here: partitions, dependencies, metadata and checks. What does not: assays, statistics
and storage, which are in knockem_dagster; an asset here is one call of them.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd
from matplotlib.figure import Figure

from assets.checks import accounted_for, interval_contains_estimate, judged, null_is_symmetric, sites_decided, spec
from assets.partitions import submissions
from knockem_dagster.assay_runs.reporting import null_facts, write_report
from knockem_dagster.assay_runs.study import TABLE_OF, Finding, Study
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.assay_runs.tables import read_table, report_key, table_key
from knockem_dagster.errors import KnockemError, SubmissionBusy, SubmissionCanceled
from knockem_dagster.records.assays import AssayType, with_needs
from knockem_dagster.records.submissions import State
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports import figures
from knockem_dagster.reports.previews import figure_markdown, table_markdown
from knockem_dagster.reports.summary import SubmissionSummary, summary_markdown, summary_page
from resources.platform import PlatformResource, SubmissionRuns

GROUP = "knockout"
SUMMARY_KEY = "summary/submissions.html"


@contextmanager
def submission_run(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> Iterator[SubmissionRun]:
    """Give an asset the run of its submission; what goes wrong is stored with the submission and shown in the UI."""
    try:
        run = runs.of(context.partition_key, name=context.run.run_id)
    except KnockemError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    try:
        yield run
    except SubmissionBusy as busy:
        raise dg.Failure(str(busy), allow_retries=False) from busy
    except SubmissionCanceled as canceled:
        raise dg.DagsterExecutionInterruptedError(str(canceled)) from canceled
    except KnockemError as error:
        run.fail(str(error))
        raise dg.Failure(str(error), allow_retries=False) from error
    except Exception as error:
        run.fail(f"an error of the platform itself: {error!r}")
        raise


def find(context: dg.AssetExecutionContext, run: SubmissionRun, assay_type: AssayType) -> Finding:
    """Return what an assay found, with the submission's counters up to date and progress shown while it runs."""
    study = Study(run)
    results = list(run.records.assay_results.find({"submissionId": run.submission.id}))
    wanted = with_needs(frozenset(run.submission.assay_types))
    run.note_assays(
        completed=len(results),
        active=1,
        pending=max(0, len(wanted) - len(results) - 1),
        competitions=sum(result.num_competitions for result in results),
        untestable=sum(result.num_untestable for result in results),
    )
    run.on_progress = lambda text: context.log_event(
        dg.AssetObservation(context.asset_key, partition=context.partition_key, metadata={"progress": text})
    )
    return study.find(assay_type)


def result_of(
    context: dg.AssetExecutionContext, run: SubmissionRun, finding: Finding, *, figure: Figure | None = None
) -> dict[str, Any]:
    """Return the metadata that sums an assay up: numbers, the first rows of its table, a small picture, where it is."""
    name = TABLE_OF[finding.assay_type]
    metadata: dict[str, Any] = {
        **{key: value for key, value in finding.numbers.items() if value is not None},
        "competitions": finding.num_competitions,
        "untestable competitions": finding.num_untestable,
        "dagster/row_count": len(finding.table),
        "dagster/column_schema": column_schema(name),
        "table": table_metadata(finding.table),
        "stored at": run.objects.url(table_key(run.submission.id, name)),
    }
    if figure is not None:
        metadata["plot"] = dg.MetadataValue.md(figure_markdown(figure, description=name.replace("_", " ")))
    return metadata


def column_schema(name: str) -> dg.TableSchema:
    """Return a table's columns with their units, as the UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(column.name, column.dtype, description=f"{column.meaning} [{column.unit or 'no unit'}]")
            for column in TABLES[name].columns
        ]
    )


def table_metadata(table: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """Return the first rows of a table."""
    shown = table.drop(columns=["knockout"], errors="ignore")
    return dg.MetadataValue.md(table_markdown(shown, rows=8))


@dg.asset(
    partitions_def=submissions,
    group_name=GROUP,
    kinds={"python"},
    code_version="1",
    description="The wild type of a submission, as it was accepted: sites counted by its own image.",
)
def genome(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Take the submission's lease and show its wild type."""
    with submission_run(context, runs) as run:
        run.call(run.check_image())
        submission = run.submission
        return dg.MaterializeResult(
            metadata={
                "sites": submission.num_sites,
                "sha256": run.genome.digest,
                "organism": submission.container_image,
                "image digest": submission.image_digest,
                "runtime": submission.container_runtime,
                "assay types": ", ".join(assay_type.value for assay_type in submission.assay_types),
                "seed": submission.seed,
                "begins": dg.MetadataValue.text((run.genome.content or "")[:200]),
            }
        )


@dg.asset(
    partitions_def=submissions,
    deps=[genome],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["null_distribution"].version,
    check_specs=[
        spec("null_distribution", accounted_for),
        spec("null_distribution", null_is_symmetric, blocking=False),
    ],
    description="Wild type against wild type: what no effect looks like, and where detection starts.",
)
def null_distribution(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Measure the null distribution of the score."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.NULLDIST)
        null = null_facts(Study(run).null)
        plot = figures.null_distribution(finding.table, null)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding, figure=plot),
            check_results=judged(run, accounted_for.result(run, finding), null_is_symmetric.result(null)),
        )


@dg.asset(
    partitions_def=submissions,
    deps=[null_distribution],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["screen"].version,
    check_specs=[spec("screen", accounted_for)],
    description="Every site knocked out alone, at a controlled false discovery rate.",
)
def screen(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Screen single sites."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.SCREEN_CRITICAL)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding), check_results=judged(run, accounted_for.result(run, finding))
        )


@dg.asset(
    partitions_def=submissions,
    deps=[null_distribution, screen],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["calibration"].version,
    check_specs=[spec("calibration", accounted_for)],
    description="A smear of doses, to see where knockouts begin to be detected.",
)
def calibration(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Calibrate the doses of the titration."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.DOSE_CALIBRATION)
        plot = figures.dose_response(calibration=finding.table)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding, figure=plot),
            check_results=judged(run, accounted_for.result(run, finding)),
        )


@dg.asset(
    partitions_def=submissions,
    deps=[calibration],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["titration"].version,
    check_specs=[spec("titration", accounted_for)],
    description="Random knockouts at the calibrated doses: the share that is detected.",
)
def titration(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Titrate."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.DOSE_TITRATION)
        plot = figures.dose_response(titration=finding.table)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding, figure=plot),
            check_results=judged(run, accounted_for.result(run, finding)),
        )


@dg.asset(
    partitions_def=submissions,
    deps=[null_distribution],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["skeletons"].version,
    check_specs=[spec("skeletons", accounted_for), spec("skeletons", sites_decided)],
    description="What is left when no further site can be knocked out without a detectable loss, several times.",
)
def skeletons(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Sample skeletons."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.SKELETONIZATION)
        plot = figures.skeleton_composition(finding.table)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding, figure=plot),
            check_results=judged(run, accounted_for.result(run, finding), sites_decided.result(run, finding.table)),
        )


@dg.asset(
    partitions_def=submissions,
    deps=[skeletons],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["jackknife"].version,
    check_specs=[spec("jackknife", accounted_for)],
    description="Each site a skeleton kept, knocked out on top of it.",
)
def jackknife(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Jackknife the skeletons."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.JACKKNIFE_KNOCKOUT)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding), check_results=judged(run, accounted_for.result(run, finding))
        )


@dg.asset(
    partitions_def=submissions,
    deps=[null_distribution],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["weights"].version,
    check_specs=[spec("weights", accounted_for)],
    description="The effect of every site, from competitions between random knockouts.",
)
def weights(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Weigh all sites."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.WEIGHING)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding, figure=figures.site_evidence(finding.table)),
            check_results=judged(run, accounted_for.result(run, finding)),
        )


@dg.asset(
    partitions_def=submissions,
    deps=[weights],
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["sets"].version,
    check_specs=[spec("sets", accounted_for)],
    description="Redundant sets: what can be lost only together.",
)
def sets(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Enumerate the epistatic sets."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.SET_ENUMERATION)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding), check_results=judged(run, accounted_for.result(run, finding))
        )


@dg.asset(
    partitions_def=submissions,
    deps=[null_distribution, screen, calibration, titration, skeletons, jackknife, weights, sets],
    group_name=GROUP,
    kinds={"python", "parquet"},
    code_version=TABLES["estimates"].version,
    check_specs=[spec("estimates", interval_contains_estimate)],
    description="How many sites matter and of which kind, with intervals where the method has them; evidence per site.",
)
def estimates(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Estimate, with the assay results that are there."""
    with submission_run(context, runs) as run:
        table, sites = Study(run).write_estimates()
        numbers = {
            str(row.quantity): float(row.value) for row in table.itertuples() if not math.isnan(float(row.value))
        }
        metadata: dict[str, Any] = {
            **numbers,
            "estimates": dg.MetadataValue.md(table_markdown(table, rows=20)),
            "plot": dg.MetadataValue.md(figure_markdown(figures.site_evidence(sites), description="evidence per site")),
            "dagster/row_count": len(table),
            "dagster/column_schema": column_schema("estimates"),
            "stored at": run.objects.url(table_key(run.submission.id, "estimates")),
        }
        return dg.MaterializeResult(
            metadata=metadata, check_results=judged(run, interval_contains_estimate.result(table))
        )


@dg.asset(
    partitions_def=submissions,
    deps=[estimates],
    group_name=GROUP,
    kinds={"python", "html"},
    code_version="1",
    description="One self-contained page: estimates, plots, what was lost, and where everything came from.",
)
def report(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Write the report and complete the submission."""
    with submission_run(context, runs) as run:
        inputs = write_report(run)
        run.complete()
        losses = inputs.losses
        url = run.objects.url(report_key(run.submission.id))
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.url(url),
                "competitions": losses.asked,
                "untestable competitions": losses.untestable,
                "failed attempts": losses.failed_attempts,
                "command": dg.MetadataValue.md(f"`./knockem report {run.submission.id[:8]}` tells where it is"),
            }
        )


@dg.asset(
    group_name=GROUP,
    kinds={"python", "html"},
    deps=[dg.AssetDep(estimates, partition_mapping=dg.AllPartitionMapping())],
    description="All submissions side by side.",
)
def submission_summary(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Sum up all submissions, the newest first."""
    opened = platform.open()
    found = opened.records.submissions.find({}, sort=[("datetime", -1)], limit=1000)
    summaries = [_summary(opened.objects, submission) for submission in found]
    opened.objects.put(SUMMARY_KEY, summary_page(summaries).encode(), content_type="text/html; charset=utf-8")
    return dg.MaterializeResult(
        metadata={
            "submissions": len(summaries),
            "completed": sum(each.state == State.COMPLETED.value for each in summaries),
            "competitions": sum(each.competitions for each in summaries),
            "summary": dg.MetadataValue.md(summary_markdown(summaries, rows=50)),
            "page": dg.MetadataValue.url(opened.objects.url(SUMMARY_KEY)),
        }
    )


def _summary(objects: Any, submission: Any) -> SubmissionSummary:
    table = read_table(objects, submission.id, "estimates")
    values: dict[str, float] = {}
    if table is not None:
        for row in table.itertuples():
            values.setdefault(str(row.quantity), float(row.value))
    return SubmissionSummary(
        submission=submission.id,
        organism=submission.container_image,
        state=submission.state.value,
        sites=submission.num_sites,
        competitions=submission.counters.submission_num_completed_competitions,
        additive_sites=values.get("additive sites"),
        epistatic_sites=values.get("epistatic sites"),
        functional_sites=values.get("functional sites"),
        finished=None if submission.finished is None else datetime.fromisoformat(submission.finished),
    )
