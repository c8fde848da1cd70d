"""The partitions of the submission assets and of workflows, and the job that materializes a submission."""

import dagster as dg

from resources.names import SUBMISSIONS, WORKFLOWS

SUBMISSION_JOB = "submission"
submissions = dg.DynamicPartitionsDefinition(name=SUBMISSIONS)
workflows = dg.DynamicPartitionsDefinition(name=WORKFLOWS)
