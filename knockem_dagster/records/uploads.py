"""Submission files that arrived by upload: what became of each. A refused one is kept with its faults."""

from __future__ import annotations

from typing import ClassVar

from knockem_dagster.errors import Fault
from knockem_dagster.records.record import Record, Value
from knockem_dagster.stores.documents import Collection, Index


class FaultValue(Value):
    """One fault of a refused upload."""

    field: str
    value: str
    allowed: str

    @classmethod
    def of(cls, fault: Fault) -> FaultValue:
        """Return the stored form."""
        return cls(field=fault.field, value=fault.value, allowed=fault.allowed)


class UploadRecord(Record):
    """An upload that was looked at; its id is derived from key and content."""

    collection: ClassVar[Collection] = Collection("uploads", (Index(("datetime",)), Index(("submissionId",))))

    key: str
    content_digest: str
    submission_id: str | None = None
    faults: tuple[FaultValue, ...] = ()
