"""The checks of a submission's assets: each can fail, and a blocking one stops what would rest on a wrong result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import dagster as dg
import numpy as np
import pandas as pd

from knockem_dagster.assay_runs.findings import Finding
from knockem_dagster.assay_runs.reporting import null_facts
from knockem_dagster.assay_runs.study import findings_of
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.records.assays import assay_id


@dataclass(frozen=True)
class Check:
    """A check's name, what it says, and whether what would rest on a wrong result is stopped."""

    name: str
    description: str
    blocks: bool = True

    def spec(self, asset: str) -> dg.AssetCheckSpec:
        """Return the declaration of the check on an asset."""
        return dg.AssetCheckSpec(self.name, asset=asset, description=self.description, blocking=self.blocks)


class FindingCheck(Check, ABC):
    """A check of what an assay found."""

    @abstractmethod
    def result(self, run: SubmissionRun, finding: Finding) -> dg.AssetCheckResult:
        """Judge a finding of the submission that the run works on."""


def judged(run: SubmissionRun, *results: dg.AssetCheckResult) -> list[dg.AssetCheckResult]:
    """Return the results of an asset's checks; the first failed one that blocks is why the submission failed.

    A blocking check stops the Dagster run without an error in the asset, so nothing else would tell the submission.
    """
    for result in results:
        if not result.passed and result.severity is dg.AssetCheckSeverity.ERROR:
            found = ", ".join(f"{name}: {value.value}" for name, value in result.metadata.items())
            run.fail(
                f"the check {result.check_name} failed ({found}), so nothing was built on this result. "
                "What is recorded is incomplete or was changed: purge the submission and submit its file again."
            )
            break
    return list(results)


class _AccountedFor(FindingCheck):
    def result(self, run: SubmissionRun, finding: Finding) -> dg.AssetCheckResult:
        """Compare what the assay counted with what the record holds."""
        where = {"submissionId": run.submission.id, "assayId": assay_id(run.submission.id, finding.assay_type)}
        documents = run.records.documents
        asked = documents.count("competitions", where)
        answered = documents.count("competitionResults", where)
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=asked == answered + finding.num_untestable == finding.num_competitions,
            metadata={"asked": asked, "answered": answered, "untestable": finding.num_untestable},
        )


class _NullIsSymmetric(FindingCheck):
    def result(self, run: SubmissionRun, finding: Finding) -> dg.AssetCheckResult:
        """Test that the wild type does not beat itself."""
        del finding
        null = null_facts(findings_of(run).null)
        asymmetric = null.symmetry_p < 0.001 if null.sd > 0 else null.mean != 0
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=not asymmetric,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "mean score": null.mean,
                "sd of score": null.sd,
                "p value": float(np.nan_to_num(null.symmetry_p, nan=1.0)),
            },
        )


class _SitesDecided(FindingCheck):
    def result(self, run: SubmissionRun, finding: Finding) -> dg.AssetCheckResult:
        """Count the sites of each skeleton."""
        skeletons = finding.table
        sites = skeletons.groupby("skeleton")["site"].nunique()
        wrong = int((sites != run.submission.num_sites).sum()) + int(skeletons.duplicated(["skeleton", "site"]).sum())
        return dg.AssetCheckResult(
            check_name=self.name, passed=wrong == 0, metadata={"skeletons": len(sites), "incomplete or doubled": wrong}
        )


class _IntervalContainsEstimate(Check):
    def result(self, estimates: pd.DataFrame) -> dg.AssetCheckResult:
        """Look for an estimate outside its own interval."""
        bounded = estimates.dropna(subset=["low", "high"])
        outside = bounded[(bounded["value"] < bounded["low"]) | (bounded["value"] > bounded["high"])]
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=outside.empty,
            metadata={"intervals": len(bounded), "outside": ", ".join(outside["quantity"]) or "none"},
        )


accounted_for = _AccountedFor(
    "every_competition_accounted_for", "Competitions asked = answered + untestable, in the assay and in the record."
)
null_is_symmetric = _NullIsSymmetric(
    "null_is_symmetric", "The wild type does not win or lose against itself.", blocks=False
)
sites_decided = _SitesDecided("every_site_decided", "Each skeleton keeps or deletes each site exactly once.")
interval_contains_estimate = _IntervalContainsEstimate(
    "interval_contains_estimate", "Every estimate lies within its own interval."
)
