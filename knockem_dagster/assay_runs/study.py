"""A submission's study: its assays one after the other, and what all of them together say.

An assay whose result is recorded is read back, never run again. Statistics are in knockout/.
"""

from __future__ import annotations

import pandas as pd

from knockem_dagster.assay_runs.findings import Finding, Findings, plain
from knockem_dagster.assay_runs.procedures import Procedures
from knockem_dagster.assay_runs.study_table import describe_study
from knockem_dagster.assay_runs.submission_run import SubmissionRun
from knockem_dagster.assay_runs.tables import write_table
from knockem_dagster.knockout.estimates import estimate
from knockem_dagster.knockout.sites import describe_sites
from knockem_dagster.records.assays import AssayType


def findings_of(run: SubmissionRun) -> Findings:
    """Return the results recorded for the submission that a run works on."""
    return Findings(run.platform, run.submission)


class Study:
    """The assays of the submission that a run works on."""

    def __init__(self, run: SubmissionRun) -> None:
        self.run = run
        self.submission = run.submission
        self._findings = findings_of(run)
        self._procedures = Procedures(run, self._findings)

    def find(self, assay_type: AssayType) -> Finding:
        """Return what an assay found, running it if it has no result yet, or none since the study was extended.

        Raises AssayError when no answer is possible, NotFound when an assay it needs has not run.
        """
        standing = self._findings.standing(assay_type)
        if standing is not None:
            return standing
        table, numbers = self._procedures.run(assay_type)
        progress = self.run.progress
        competitions, untestable = progress.num_competitions, progress.untestable
        if progress.answered < competitions:  # others were asked in an earlier stage only
            untestable = competitions - self._findings.answered(assay_type)
        found = Finding(assay_type, table, numbers, competitions, untestable, recalled=False)
        self._findings.keep(found)
        self._findings.keep_interim_estimates()
        return found

    def write_estimates(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Make and store the tables `estimates`, `sites` and `study` from what is there; return the first two."""
        evidence = self._findings.evidence()
        estimates, sites = estimate(evidence), describe_sites(evidence)
        write_table(self.run.objects, self.submission.id, "estimates", estimates)
        write_table(self.run.objects, self.submission.id, "sites", sites)
        self._findings.forget_interim_estimates()
        for assay_type in (AssayType.SKELETON_SAMPLE_AND_JACKKNIFE, AssayType.SKELETON_MARK_RECAPTURE):
            if assay_type in self.submission.assay_types:
                numbers = {row["quantity"]: plain(row["value"]) for row in estimates.to_dict("records")}
                self._findings.keep_derived(assay_type, numbers)
        study = describe_study(
            self.submission,
            evidence,
            genome_digest=self.run.genome.digest,
            results=self.run.records.assay_results.find({"submissionId": self.submission.id}),
            estimates=estimates,
            sites=sites,
        )
        write_table(self.run.objects, self.submission.id, "study", study)
        return estimates, sites
