"""Instances that send archives of their job logs, and the ledger: what became of each report."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from knockem_dagster.records.record import Record, Value, derived_id
from knockem_dagster.stores.documents import Collection, Index


class InstanceRecord(Record):
    """A server, or a folder of its reports, whose job logs are taken in."""

    collection: ClassVar[Collection] = Collection("jobLogInstances", (Index(("name",)),))

    name: str
    token_digest: str | None = Field(default=None, description="SHA-256 of the token it uploads with, hexadecimal")
    unwanted: str | None = Field(default=None, description="when its removal began: ISO 8601, UTC")


class RemovalRecord(Record):
    """That an instance was removed: its id is derived from the instance's, which it does not tell."""

    collection: ClassVar[Collection] = Collection("jobLogRemovals")


class ReportState(StrEnum):
    """What became of a report: stored but not read yet, in the lake, not to be trusted, or that and dealt with."""

    RECEIVED = "received"
    LOADED = "loaded"
    QUARANTINED = "quarantined"
    DISMISSED = "dismissed"


class RejectValue(Value):
    """A row that was left out: its member and line, why, and how it begins, unless that is not to be told."""

    member: str
    line: int
    cause: str
    text: str


class QuarantineValue(Value):
    """Why a report is not to be trusted: what is wrong, in which member and line, and what its sender must do."""

    what: str
    remedy: str
    member: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = f" in {self.member}" if self.member else ""
        line = "" if self.line is None else f", line {self.line:,}"
        return f"{self.what}{place}{line}: {self.remedy}."


class ReportRecord(Record):
    """A report of an instance; its id is derived from the instance and the report's name.

    What arrives under the name of a report that is in use, and is not the same, has a record of its own: quarantined,
    its id derived from the content, too.
    """

    collection: ClassVar[Collection] = Collection(
        "jobLogReports",
        (
            Index(("instanceId", "state", "name")),
            Index(("instanceId", "name")),
            Index(("instanceId", "archiveDigest")),
            Index(("state",)),
        ),
    )

    instance_id: str
    name: str = Field(description="the report's id, as its instance gave it")
    archive_digest: str = Field(description="SHA-256 of the archive, hexadecimal")
    digest: str = Field(description="SHA-256 of what was sent: of the digests of archive and metadata, hexadecimal")
    state: ReportState = ReportState.RECEIVED
    generated: float | None = Field(default=None, description="when it was made, seconds since 1970")
    galaxy_version: str = ""
    parser_version: str = Field(default="", description="by which it was read")
    kept: dict[str, int] = Field(default_factory=dict[str, int], description="rows in the lake, by member")
    rejected: dict[str, int] = Field(default_factory=dict[str, int], description="rows left out, by member")
    rejects: tuple[RejectValue, ...] = Field(default=(), description="the first of these")
    quarantine: QuarantineValue | None = None

    @property
    def jobs(self) -> int:
        """How many jobs of it are in the lake."""
        return self.kept.get("jobs", 0)


class MartsRecord(Record):
    """Which generation of marts is in use, by instance: one document, so that all can change in one step."""

    collection: ClassVar[Collection] = Collection("jobLogMarts")

    in_use: dict[str, str] = Field(default_factory=dict[str, str])
    jobs: dict[str, int] = Field(default_factory=dict[str, int], description="how many these are of, by instance")
    left: dict[str, dict[str, str]] = Field(
        default_factory=dict[str, dict[str, str]],
        description="since when others are not in use, by generation",
    )


MARTS_ID = derived_id("jobLogMarts")
"""Of the one document."""
