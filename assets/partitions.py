"""The partitions of the submission assets, and the job that materializes one."""

import dagster as dg

from resources.names import SUBMISSIONS

SUBMISSION_JOB = "submission"
submissions = dg.DynamicPartitionsDefinition(name=SUBMISSIONS)
