"""The partitions of submissions, workflows and instances, and the jobs that materialize one."""

import dagster as dg

from resources.names import INSTANCES, SUBMISSIONS, WORKFLOWS

SUBMISSION_JOB = "submission"
JOB_LOGS_JOB = "job_logs"
submissions = dg.DynamicPartitionsDefinition(name=SUBMISSIONS)
workflows = dg.DynamicPartitionsDefinition(name=WORKFLOWS)
instances = dg.DynamicPartitionsDefinition(name=INSTANCES)
