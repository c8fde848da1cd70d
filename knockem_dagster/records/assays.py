"""Assays and their results: the `assays` and `assayResults` collections, and the assay types."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from knockem_dagster.records.record import Record, derived_id
from knockem_dagster.stores.documents import Collection, Index


class AssayType(StrEnum):
    """What a submission can ask for: the seed's four, four that later versions of it name, and three of our own."""

    NULLDIST = "nulldist"
    SKELETONIZATION = "skeletonization"
    DOSE_CALIBRATION = "doseCalibration"
    DOSE_TITRATION = "doseTitration"
    SCREEN_CRITICAL = "screenCritical"
    JACKKNIFE_KNOCKOUT = "jackknifeKnockout"
    SKELETON_SAMPLE_AND_JACKKNIFE = "skeletonSampleAndJackknife"
    SKELETON_MARK_RECAPTURE = "skeletonMarkRecapture"
    WEIGHING = "weighing"
    SET_ENUMERATION = "setEnumeration"
    PREFIX_SKELETONS = "prefixSkeletons"


DEFAULT_ASSAYS = (AssayType.NULLDIST, AssayType.WEIGHING, AssayType.SET_ENUMERATION)
"""What a submission asks for that names no assay types."""
PUBLISHED_ASSAYS = tuple(each for each in AssayType if each not in (*DEFAULT_ASSAYS[1:], AssayType.PREFIX_SKELETONS))
"""The procedures of Moreno 2024 (arXiv 2404.10854), for comparison with published results."""

NEEDS: dict[AssayType, tuple[AssayType, ...]] = {
    AssayType.NULLDIST: (),
    AssayType.SCREEN_CRITICAL: (AssayType.NULLDIST,),
    AssayType.DOSE_CALIBRATION: (AssayType.NULLDIST, AssayType.SCREEN_CRITICAL),
    AssayType.DOSE_TITRATION: (AssayType.DOSE_CALIBRATION,),
    AssayType.SKELETONIZATION: (AssayType.NULLDIST,),
    AssayType.JACKKNIFE_KNOCKOUT: (AssayType.SKELETONIZATION,),
    AssayType.SKELETON_SAMPLE_AND_JACKKNIFE: (AssayType.SKELETONIZATION, AssayType.JACKKNIFE_KNOCKOUT),
    AssayType.SKELETON_MARK_RECAPTURE: (AssayType.SKELETONIZATION, AssayType.JACKKNIFE_KNOCKOUT),
    AssayType.WEIGHING: (AssayType.NULLDIST,),
    AssayType.SET_ENUMERATION: (AssayType.WEIGHING,),
    AssayType.PREFIX_SKELETONS: (AssayType.NULLDIST,),
}
"""The assays whose results each assay type needs."""


def with_needs(requested: frozenset[AssayType] | set[AssayType]) -> frozenset[AssayType]:
    """Return the requested assay types with all they need."""
    closed = set(requested)
    while added := {needed for assay_type in closed for needed in NEEDS[assay_type]} - closed:
        closed |= added
    return frozenset(closed)


class AssayRecord(Record):
    """An assay of a submission. Its competitions are found by its id; their number is with its result."""

    collection: ClassVar[Collection] = Collection("assays", (Index(("submissionId",)),))

    submission_id: str
    assay_type: AssayType
    container_image: str
    container_env: dict[str, str]
    user_email: str


class AssayResultRecord(Record):
    """The result of an assay; its id is the assay's. The table itself is an object, named in `table_key`."""

    collection: ClassVar[Collection] = Collection("assayResults", (Index(("submissionId",)),))

    submission_id: str
    assay_type: AssayType
    result: dict[str, Any] = Field(description="the numbers that sum the assay up")
    table_key: str | None = Field(default=None, description="key of its Parquet table in the object store")
    num_competitions: int
    num_untestable: int
    stage: int = Field(default=0, description="stage of the submission in which it was found")


def assay_id(submission_id: str, assay_type: AssayType) -> str:
    """Return the id of a submission's assay of this type."""
    return derived_id(submission_id, "assay", assay_type.value)
