"""The assets of the published procedures (Moreno 2024): as in `knockout`, each is one call of an assay."""

import dagster as dg

from assets.checks import accounted_for, judged, sites_decided, spec
from assets.knockout import null_distribution
from assets.partitions import submissions
from assets.submission_steps import GROUP, find, result_of, submission_run
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports import figures
from resources.platform import SubmissionRuns


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
