"""The `genomes` collection: wild types with their content, and knocked-out genomes as parent and bitset."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import Field

from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.record import Record, derived_id
from knockem_dagster.stores.documents import Collection, Index


class GenomeRecord(Record):
    """A genome. A knocked-out one is ephemeral: its content is made by the container and never stored."""

    collection: ClassVar[Collection] = Collection("genomes", (Index(("submissionId",)),))

    submission_id: str
    content: str | None = Field(default=None, description="wild types only")
    digest: str = Field(description="SHA-256 of the content, or of the parent's digest and the bitset")
    is_ephemeral: bool
    num_sites: int
    parent_id: str | None = None
    knockout_bitset: str | None = Field(default=None, description="base64, little-endian bits, site 0 lowest")
    user_email: str

    @property
    def knockout(self) -> KnockoutSet:
        """The sites knocked out of the wild type."""
        return KnockoutSet.from_bitset(self.knockout_bitset or "", self.num_sites)

    def variant(self, knockout: KnockoutSet) -> GenomeRecord:
        """Return the record of this wild type with sites knocked out; itself when there are none."""
        if knockout.is_wild_type:
            return self
        bits = knockout.to_bytes()
        return GenomeRecord(
            id=variant_id(self.submission_id, bits),
            submission_id=self.submission_id,
            digest=hashlib.sha256(self.digest.encode() + bits).hexdigest(),
            is_ephemeral=True,
            num_sites=self.num_sites,
            parent_id=self.id,
            knockout_bitset=knockout.bitset,
            user_email=self.user_email,
        )


def wild_type_id(submission_id: str) -> str:
    """Return the id of a submission's wild type."""
    return derived_id(submission_id, "genome")


def variant_id(submission_id: str, knockout_bits: bytes) -> str:
    """Return the id of a submission's genome with these sites knocked out."""
    return derived_id(submission_id, "genome", knockout_bits)


def wild_type(submission_id: str, content: str, *, num_sites: int, user_email: str) -> GenomeRecord:
    """Return the record of a submission's wild type."""
    return GenomeRecord(
        id=wild_type_id(submission_id),
        submission_id=submission_id,
        content=content,
        digest=hashlib.sha256(content.encode()).hexdigest(),
        is_ephemeral=False,
        num_sites=num_sites,
        user_email=user_email,
    )
