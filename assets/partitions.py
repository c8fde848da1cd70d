"""Names that assets, sensors and the command line share: the partitions, the groups and the tags."""

import dagster as dg

SUBMISSIONS = "submission"
submissions = dg.DynamicPartitionsDefinition(name=SUBMISSIONS)

SUBMISSION_TAG = "knockem/submission"
USER_TAG = "knockem/user"
SUBMISSION_JOB = "submission"
