"""Names that resources, assets, sensors and the command line share: the partitions and the tags of runs."""

SUBMISSIONS = "submission"
WORKFLOWS = "workflow"
INSTANCES = "instance"
SUBMISSION_TAG = "knockem/submission"
USER_TAG = "knockem/user"
