"""The assets of a submission that tell what its organism is and does: from its genome to its skeletons.

What belongs here: partitions, dependencies, metadata and checks. What does not: assays, statistics
and storage, which are in knockem_dagster; an asset here is one call of them. The published procedures are in
`published`, what is made of all results in `conclusions`.
"""

import dagster as dg

from assets.checks import accounted_for, judged, null_is_symmetric, sites_decided, spec
from assets.partitions import submissions
from assets.submission_steps import GROUP, find, result_of, submission_run
from knockem_dagster.assay_runs.reporting import null_facts
from knockem_dagster.assay_runs.study import Study
from knockem_dagster.assay_runs.tables import read_table
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports import figures
from knockem_dagster.reports.skeleton_figures import skeletons_with_residuals
from resources.platform import SubmissionRuns


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
    deps=[null_distribution, weights, sets],  # the latter two, where they are made, come first for what is left to ask
    group_name=GROUP,
    kinds={"parquet"},
    code_version=TABLES["prefix_skeletons"].version,
    check_specs=[spec("prefix_skeletons", accounted_for), spec("prefix_skeletons", sites_decided)],
    description="Minimal genomes: what is left when no further site can be deleted at a loss, under noise as well.",
)
def prefix_skeletons(context: dg.AssetExecutionContext, runs: SubmissionRuns) -> dg.MaterializeResult:
    """Search for skeletons."""
    with submission_run(context, runs) as run:
        finding = find(context, run, AssayType.PREFIX_SKELETONS)
        summary = read_table(run.objects, run.submission.id, "prefix_skeleton_summary")
        plot = skeletons_with_residuals(finding.table, summary)
        return dg.MaterializeResult(
            metadata=result_of(context, run, finding, figure=plot),
            check_results=judged(run, accounted_for.result(run, finding), sites_decided.result(run, finding.table)),
        )
