"""What a submission's assays have found, read from the record: results, tables, and what later assays make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd

from knockem_dagster.assay_runs.tables import read_table, table_key, write_table
from knockem_dagster.errors import NotFound
from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeletons
from knockem_dagster.knockout.assays.published.doses import Calibration, Titration
from knockem_dagster.knockout.assays.published.jackknife import Jackknife
from knockem_dagster.knockout.assays.published.null_distribution import NullCompetitions
from knockem_dagster.knockout.assays.published.screen import Screen
from knockem_dagster.knockout.assays.published.skeletons import Skeletons
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence, estimate
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayResultRecord, AssayType, assay_id, with_needs
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.documents import Patch

TABLE_OF = {
    AssayType.NULLDIST: "null_distribution",
    AssayType.SCREEN_CRITICAL: "screen",
    AssayType.DOSE_CALIBRATION: "calibration",
    AssayType.DOSE_TITRATION: "titration",
    AssayType.SKELETONIZATION: "skeletons",
    AssayType.JACKKNIFE_KNOCKOUT: "jackknife",
    AssayType.WEIGHING: "weights",
    AssayType.SET_ENUMERATION: "sets",
    AssayType.PREFIX_SKELETONS: "prefix_skeletons",
}
"""The table that holds the result of each assay that runs competitions."""
INTERIM_ESTIMATES = "interim_estimates"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """What an assay found: its table, the numbers that sum it up, and whether it was read back."""

    assay_type: AssayType
    table: pd.DataFrame
    numbers: dict[str, Any]
    num_competitions: int
    num_untestable: int
    recalled: bool


class Findings:
    """The results recorded for one submission. An assay's is written once a stage, by the run that holds the lease."""

    def __init__(self, platform: Platform, submission: SubmissionRecord) -> None:
        self._records = platform.records
        self._objects = platform.objects
        self._submission = submission

    def standing(self, assay_type: AssayType) -> Finding | None:
        """Return what an assay found; None if it has to be run, for the first time or since the study was extended."""
        return self._read(assay_type, outdated=False)

    def latest(self, assay_type: AssayType) -> Finding | None:
        """Return what an assay found last, in whatever stage; None before its first result."""
        return self._read(assay_type, outdated=True)

    def _read(self, assay_type: AssayType, *, outdated: bool) -> Finding | None:
        record = self._records.assay_results.find_one(assay_id(self._submission.id, assay_type))
        if record is None or not (outdated or self._submission.stands(record)):
            return None
        table = self.table(TABLE_OF[assay_type])
        return Finding(assay_type, table, record.result, record.num_competitions, record.num_untestable, recalled=True)

    def keep(self, finding: Finding) -> None:
        """Store what an assay found: its table, then its result, in place of those of an earlier stage."""
        id, assay_type = self._submission.id, finding.assay_type
        self._put(
            AssayResultRecord(
                id=assay_id(id, assay_type),
                submission_id=id,
                assay_type=assay_type,
                result=finding.numbers,
                table_key=write_table(self._objects, id, TABLE_OF[assay_type], finding.table),
                num_competitions=finding.num_competitions,
                num_untestable=finding.num_untestable,
                stage=self._submission.stage,
            )
        )

    def keep_derived(self, assay_type: AssayType, numbers: dict[str, Any]) -> None:
        """Store the result of an assay that runs no competitions and has no table of its own."""
        self._put(
            AssayResultRecord(
                id=assay_id(self._submission.id, assay_type),
                submission_id=self._submission.id,
                assay_type=assay_type,
                result=numbers,
                num_competitions=0,
                num_untestable=0,
                stage=self._submission.stage,
            )
        )

    def _put(self, result: AssayResultRecord) -> None:
        """Store a result, unless there is one of this stage already."""
        results = self._records.assay_results
        known = results.find_one(result.id)
        if known is None:
            results.add(result)
        elif known.stage < result.stage:
            document = result.to_document()
            del document["_id"]
            where = {"_id": known.id, "datetime": known.datetime}
            self._records.documents.claim(results.name, where, Patch(set=document))

    def keep_table(self, name: str, table: pd.DataFrame) -> None:
        """Store a further table of an assay, before what it found is kept."""
        write_table(self._objects, self._submission.id, name, table)

    def needed(self, assay_type: AssayType) -> Finding:
        """Return what an assay found. Raises NotFound when it has to be run first."""
        finding = self.standing(assay_type)
        if finding is None:
            raise self._not_made(TABLE_OF[assay_type])
        return finding

    def table(self, name: str) -> pd.DataFrame:
        """Return a table. Raises NotFound before its asset made it."""
        table = self.table_if_made(name)
        if table is None:
            raise self._not_made(name)
        return table

    def _not_made(self, name: str) -> NotFound:
        return NotFound(
            f"The table {name} of submission {self._submission.id} is not made yet; materialize its asset first."
        )

    def table_if_made(self, name: str) -> pd.DataFrame | None:
        """Return a table; None before its asset made it."""
        return read_table(self._objects, self._submission.id, name)

    @property
    def null(self) -> NullDistribution:
        """The null distribution. Raises NotFound before it was measured."""
        competitions = NullCompetitions.from_table(self.table("null_distribution"))
        return competitions.distribution(stated_unit=self._submission.stated_unit)

    @property
    def weights(self) -> SiteWeights | None:
        """What weighing told of every site, the last time; None before it."""
        return _made_of(self.latest(AssayType.WEIGHING), _weights)

    @property
    def sets(self) -> FoundSets | None:
        """The sets that were enumerated, the last time; None before they were."""
        return _made_of(self.latest(AssayType.SET_ENUMERATION), _sets)

    def evidence(self) -> Evidence:
        """Return what all assays that ran have found, the last time. Raises NotFound before the null distribution."""
        return self._evidence(self.latest)

    def keep_interim_estimates(self, weights: SiteWeights | None = None) -> None:
        """Store, for those who watch, what this stage comes to so far; `weights` are of a weighing under way."""
        evidence = self._evidence(self.standing)
        so_far = evidence if weights is None else replace(evidence, weights=weights)
        self.keep_table(INTERIM_ESTIMATES, estimate(so_far))

    def forget_interim_estimates(self) -> None:
        """Remove them: the stage has its estimates."""
        self._objects.delete(table_key(self._submission.id, INTERIM_ESTIMATES))

    def _evidence(self, find: Callable[[AssayType], Finding | None]) -> Evidence:
        number = self._submission.num_sites
        screen = _made_of(find(AssayType.SCREEN_CRITICAL), lambda found: Screen.from_table(found.table))
        candidates = number if screen is None else len(screen.undetected_sites)
        return Evidence(
            num_sites=number,
            null=self.null,
            screen=screen,
            calibration=_made_of(
                find(AssayType.DOSE_CALIBRATION), lambda found: Calibration.from_table(found.table, candidates)
            ),
            titration=_made_of(
                find(AssayType.DOSE_TITRATION), lambda found: Titration.from_table(found.table, candidates)
            ),
            skeletons=_made_of(
                find(AssayType.SKELETONIZATION), lambda found: Skeletons.from_table(found.table, number)
            ),
            jackknife=_made_of(find(AssayType.JACKKNIFE_KNOCKOUT), lambda found: Jackknife.from_table(found.table)),
            weights=_made_of(find(AssayType.WEIGHING), _weights),
            sets=_made_of(find(AssayType.SET_ENUMERATION), _sets),
            prefix_skeletons=_made_of(find(AssayType.PREFIX_SKELETONS), self._prefix_skeletons),
            resolution=self._submission.resolution,
            error_rate=self._submission.error_rate,
        )

    def _prefix_skeletons(self, found: Finding) -> PrefixSkeletons:
        summary = self.table("prefix_skeleton_summary")
        return PrefixSkeletons.from_tables(found.table, summary, found.numbers, num_sites=self._submission.num_sites)

    def asked(self) -> dict[AssayType, int]:
        """Return how many different competitions each assay has asked for, in all stages."""
        id = self._submission.id
        return {
            each: self._records.documents.count(
                self._records.competitions.name, {"submissionId": id, "assayId": assay_id(id, each)}
            )
            for each in sorted(with_needs(frozenset(self._submission.assay_types)))
        }

    def answered(self, assay_type: AssayType) -> int:
        """Return how many of an assay's competitions have an answer."""
        id = self._submission.id
        where = {"submissionId": id, "assayId": assay_id(id, assay_type)}
        return self._records.documents.count(self._records.competition_results.name, where)


def _made_of(found: Finding | None, make: Callable[[Finding], T]) -> T | None:
    return None if found is None else make(found)


def _weights(found: Finding) -> SiteWeights:
    return SiteWeights.from_table(found.table, found.numbers)


def _sets(found: Finding) -> FoundSets:
    return FoundSets.from_table(found.table, found.numbers)


def plain(value: float) -> float | None:
    """Return a number as JSON has it: missing for NaN."""
    return None if math.isnan(value) else float(value)
