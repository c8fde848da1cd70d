"""Workflows as Dagster shows them: a partition each, which workers materialize, not Dagster's runs."""

import dagster as dg

from assets.partitions import workflows

workflow = dg.AssetSpec(
    "workflow",
    partitions_def=workflows,
    group_name="workflows",
    kinds={"bash"},
    description="Jobs that wait for one another, submitted with `./knockem workflow submit` or over HTTP; "
    "each time that one is over, what became of its jobs.",
)
