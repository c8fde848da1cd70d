"""Users of the platform, and the tokens by which programs speak for them."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from knockem_dagster.records.record import Record, Value
from knockem_dagster.stores.documents import Collection, Index


class Scope(StrEnum):
    """What a token permits: everything, what is one's own, or working on what others ask for and nothing else."""

    ADMINISTRATOR = "administrator"
    USER = "user"
    WORKER = "worker"


class QuotasValue(Value):
    """How much of the platform a user may have; None: no limit."""

    active_jobs: int | None = Field(default=None, ge=0, lt=1 << 53, description="jobs that are not over, at a time")
    cpu_hours: float | None = Field(default=None, ge=0, le=1e12, description="used by jobs and competitions, in all")
    stored_bytes: int | None = Field(default=None, ge=0, lt=1 << 53, description="of what was sent over HTTP, in all")


class UserRecord(Record):
    """Somebody who asks for work. The id is derived from the address."""

    collection: ClassVar[Collection] = Collection("users", (Index(("userEmail",), unique=True),))

    user_email: str
    quotas: QuotasValue = QuotasValue()
    stored_bytes: int = Field(default=0, description="of what was sent over HTTP")


class TokenRecord(Record):
    """A token as the platform knows it: its digest, never itself."""

    collection: ClassVar[Collection] = Collection(
        "tokens",
        (Index(("digest",), unique=True), Index(("userEmail", "datetime")), Index(("userEmail", "revoked"))),
    )

    user_email: str
    scope: Scope
    digest: str = Field(description="SHA-256 of the token, hexadecimal")
    label: str = ""
    for_all: bool = Field(default=False, description="a worker's, for everybody's jobs, not only its user's")
    expires: str = Field(description="ISO 8601, UTC")
    revoked: str | None = Field(default=None, description="when it was revoked")
