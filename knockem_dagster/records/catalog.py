"""The collections of the platform, declared once, and the repositories over one documents store."""

from __future__ import annotations

from knockem_dagster.records.accounts import TokenRecord, UserRecord
from knockem_dagster.records.assays import AssayRecord, AssayResultRecord
from knockem_dagster.records.competitions import (
    CompetitionAttemptRecord,
    CompetitionAttemptResultRecord,
    CompetitionRecord,
    CompetitionResultRecord,
)
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.job_graph import (
    BlocksEdge,
    FileRecord,
    NeedsEdge,
    ProducesEdge,
    RequiresEdge,
    ResourceRequirementsRecord,
    ScheduledByEdge,
    SchedulerConfigurationRecord,
    StoresEdge,
    UserDataRecord,
    WorkerActionRecord,
)
from knockem_dagster.records.joblogs import InstanceRecord, MartsRecord, RemovalRecord, ReportRecord
from knockem_dagster.records.jobs import ComputeNodeRecord, EventRecord, JobRecord, ResultRecord, WorkflowRecord
from knockem_dagster.records.nodes import NodeHoursRecord, ScheduledNodeRecord
from knockem_dagster.records.record import Record, Repository
from knockem_dagster.records.submissions import SubmissionRecord, SubmissionRepository
from knockem_dagster.records.uploads import UploadRecord
from knockem_dagster.stores.documents import Collection, Documents

OF_A_SUBMISSION: tuple[type[Record], ...] = (
    CompetitionAttemptResultRecord,
    CompetitionAttemptRecord,
    CompetitionResultRecord,
    CompetitionRecord,
    AssayResultRecord,
    AssayRecord,
    GenomeRecord,
    UploadRecord,
)
"""The models whose documents name their submission in `submissionId`."""

OF_JOBS: tuple[type[Record], ...] = (WorkflowRecord, JobRecord, ResultRecord, ComputeNodeRecord, EventRecord)

OF_A_GRAPH: tuple[type[Record], ...] = (
    FileRecord,
    ResourceRequirementsRecord,
    SchedulerConfigurationRecord,
    UserDataRecord,
    WorkerActionRecord,
    BlocksEdge,
    NeedsEdge,
    ProducesEdge,
    RequiresEdge,
    ScheduledByEdge,
    StoresEdge,
)
"""The nodes and edges of a workflow beside its jobs; each names it in `workflowId`."""

OF_ACCOUNTS: tuple[type[Record], ...] = (UserRecord, TokenRecord)

OF_NODES: tuple[type[Record], ...] = (ScheduledNodeRecord, NodeHoursRecord)

OF_JOB_LOGS: tuple[type[Record], ...] = (InstanceRecord, ReportRecord, MartsRecord, RemovalRecord)

COLLECTIONS: tuple[Collection, ...] = tuple(
    model.collection
    for model in (
        *OF_A_SUBMISSION,
        SubmissionRecord,
        *OF_JOBS,
        *OF_A_GRAPH,
        *OF_ACCOUNTS,
        *OF_NODES,
        *OF_JOB_LOGS,
    )
)


class Records:
    """All repositories over one documents store."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.genomes = Repository(documents, GenomeRecord)
        self.submissions = SubmissionRepository(documents)
        self.assays = Repository(documents, AssayRecord)
        self.assay_results = Repository(documents, AssayResultRecord)
        self.competitions = Repository(documents, CompetitionRecord)
        self.competition_results = Repository(documents, CompetitionResultRecord)
        self.attempts = Repository(documents, CompetitionAttemptRecord)
        self.attempt_results = Repository(documents, CompetitionAttemptResultRecord)
        self.uploads = Repository(documents, UploadRecord)
        self.workflows = Repository(documents, WorkflowRecord)
        self.jobs = Repository(documents, JobRecord)
        self.results = Repository(documents, ResultRecord)
        self.compute_nodes = Repository(documents, ComputeNodeRecord)
        self.events = Repository(documents, EventRecord)
        self.files = Repository(documents, FileRecord)
        self.resource_requirements = Repository(documents, ResourceRequirementsRecord)
        self.scheduler_configurations = Repository(documents, SchedulerConfigurationRecord)
        self.user_data = Repository(documents, UserDataRecord)
        self.worker_actions = Repository(documents, WorkerActionRecord)
        self.blocks = Repository(documents, BlocksEdge)
        self.needs = Repository(documents, NeedsEdge)
        self.produces = Repository(documents, ProducesEdge)
        self.requires = Repository(documents, RequiresEdge)
        self.scheduled_by = Repository(documents, ScheduledByEdge)
        self.stores = Repository(documents, StoresEdge)
        self.users = Repository(documents, UserRecord)
        self.tokens = Repository(documents, TokenRecord)
        self.scheduled_nodes = Repository(documents, ScheduledNodeRecord)
        self.node_hours = Repository(documents, NodeHoursRecord)
        self.job_log_instances = Repository(documents, InstanceRecord)
        self.job_log_reports = Repository(documents, ReportRecord)
        self.job_log_marts = Repository(documents, MartsRecord)
        self.job_log_removals = Repository(documents, RemovalRecord)

    def close(self) -> None:
        """Release the documents store."""
        self.documents.close()
