"""The assets of a submission that tell what its organism is and does: from its genome to its skeletons.

What belongs here: dependencies, descriptions, checks and pictures. What does not: assays, statistics and storage, which
are in knockem_dagster; an asset here is one call of them. The published procedures are in `published`, what is made of
all results in `conclusions`.
"""

import dagster as dg

from assets.checks import null_is_symmetric, sites_decided
from assets.partitions import submissions
from assets.submission_steps import GROUP, assay_asset, submission_run
from knockem_dagster.assay_runs.reporting import null_facts
from knockem_dagster.assay_runs.study import findings_of
from knockem_dagster.records.assays import AssayType
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


null_distribution = assay_asset(
    AssayType.NULLDIST,
    deps=[genome],
    description="Wild type against wild type: what no effect looks like, and where detection starts.",
    checks=[null_is_symmetric],
    draw=lambda run, finding: figures.null_distribution(finding.table, null_facts(findings_of(run).null)),
)

weights = assay_asset(
    AssayType.WEIGHING,
    deps=[null_distribution],
    description="The effect of every site, from competitions between random knockouts.",
    draw=lambda _, finding: figures.site_evidence(finding.table),
)

sets = assay_asset(
    AssayType.SET_ENUMERATION, deps=[weights], description="Redundant sets: what can be lost only together."
)

prefix_skeletons = assay_asset(
    AssayType.PREFIX_SKELETONS,
    deps=[null_distribution, weights, sets],  # the latter two, where they are made, come first for what is left to ask
    description="Minimal genomes: what is left when no further site can be deleted at a loss, under noise as well.",
    checks=[sites_decided],
    draw=lambda run, finding: skeletons_with_residuals(
        finding.table, findings_of(run).table("prefix_skeleton_summary")
    ),
)
