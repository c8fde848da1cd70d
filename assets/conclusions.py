"""What is made of all results: the estimates and the report of a submission, and the summary over all submissions."""

import math
from datetime import datetime
from typing import Any

import dagster as dg

from assets.checks import interval_contains_estimate, judged
from assets.knockout import null_distribution, prefix_skeletons, sets, weights
from assets.partitions import submissions
from assets.published import calibration, jackknife, screen, skeletons, titration
from assets.submission_steps import GROUP, column_schema, submission_run
from knockem_dagster.assay_runs.reporting import write_report
from knockem_dagster.assay_runs.study import Study
from knockem_dagster.assay_runs.tables import read_table, report_key, table_key
from knockem_dagster.records.submissions import State
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports import figures
from knockem_dagster.reports.previews import figure_markdown, table_markdown
from knockem_dagster.reports.spoken import estimates_of
from knockem_dagster.reports.summary import SubmissionSummary, summary_markdown, summary_page
from resources.platform import PlatformResource, SubmissionRuns

SUMMARY_KEY = "summary/submissions.html"


@dg.asset(
    partitions_def=submissions,
    deps=[
        null_distribution,
        screen,
        calibration,
        titration,
        skeletons,
        jackknife,
        weights,
        sets,
        prefix_skeletons,
    ],
    group_name=GROUP,
    kinds={"python", "parquet"},
    code_version=TABLES["estimates"].version,
    check_specs=[interval_contains_estimate.spec("estimates")],
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
    pool="submission_summary",  # all runs of it write the same page
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
    quoted = {} if table is None else {quantity: found[0] for quantity, found in estimates_of(table).items()}
    return SubmissionSummary(
        submission=submission.id,
        organism=submission.container_image,
        state=submission.state.value,
        sites=submission.num_sites,
        competitions=submission.counters.submission_num_completed_competitions,
        additive_sites=quoted.get("additive sites"),
        epistatic_sites=quoted.get("epistatic sites"),
        functional_sites=quoted.get("functional sites"),
        finished=None if submission.finished is None else datetime.fromisoformat(submission.finished),
    )
