"""Taking a report in: from an archive and its metadata to one Parquet file a member, whole or not at all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from knockem_dagster.joblogs.archive import Limits, open_members
from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.members import JOBS, Kind, Member
from knockem_dagster.joblogs.pipeline import behind
from knockem_dagster.joblogs.report_metadata import ReportMetadata
from knockem_dagster.joblogs.rows import Reading, Reject, read_rows, too_many_rejected

PARSER_VERSION = "5"
"""A parser that reads anything differently has another, and tables of its own beside those of the one before."""

_MOST_STATES = 1000
_MOST_TOLD = 10
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What was read: rows kept and rejected of each member that is there, and the first rejects of each."""

    kept: Mapping[str, int]
    rejected: Mapping[str, int]
    rejects: Sequence[Reject]


def read_report(archive: Path, metadata: ReportMetadata, folder: Path, *, limits: Limits | None = None) -> ReadReport:
    """Read an archive into `folder`, which exists: a file NAME.parquet for each member, with its good rows in order.

    The digest is compared before anything is unpacked, and the rows with the metadata's count of jobs in each state.
    Raises ArchiveFault; what is in the folder then is to be thrown away.
    """
    _check_digest(archive, metadata)
    readings: dict[str, Reading] = {}
    states: Counter[str] = Counter()
    with open_members(archive, limits or Limits()) as members:
        for member, content in members:
            reading = readings[member.name] = Reading(member)
            with _writer(folder, member) as write:
                for batch in read_rows(content, reading):
                    write(batch)
                    if member is JOBS:
                        states.update(_counts(batch.column("state")))
                        if len(states) > _MOST_STATES:  # no metadata count so many
                            _check_states(states, reading, metadata)
            if reading.has_too_many_rejects:
                raise too_many_rejected(reading)
    _check_states(states, readings.get(JOBS.name), metadata)
    return ReadReport(
        kept={name: reading.kept for name, reading in readings.items()},
        rejected={name: reading.rejected for name, reading in readings.items()},
        rejects=tuple(reject for reading in readings.values() for reject in reading.rejects),
    )


@contextmanager
def _writer(folder: Path, member: Member) -> Generator[Callable[[pa.RecordBatch], None]]:
    encodings: dict[str, Any] = {
        "use_dictionary": [name for name, kind in member.columns.items() if kind in (Kind.TEXT, Kind.NAME)],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name, kind in member.columns.items() if kind is Kind.ID},
    }
    path = folder / f"{member.name}.parquet"
    with (
        parquet.ParquetWriter(path, member.schema, compression="zstd", **encodings) as file,
        behind(file.write_batch) as write,
    ):
        yield write


def _counts(states: pa.Array) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in states.value_counts().to_pylist()}


def _check_digest(archive: Path, metadata: ReportMetadata) -> None:
    with archive.open("rb") as packed:
        found = hashlib.file_digest(packed, "sha256").hexdigest()
    if metadata.report_hash != f"sha256:{found}":
        raise ArchiveFault(
            f"The archive is not the one of its metadata: its SHA-256 is {found[:12]}..., "
            f"not {metadata.report_hash[7:19]}...",
            "send archive and metadata of one report, and in binary mode",
        )


def _check_states(states: Counter[str], jobs: Reading | None, metadata: ReportMetadata) -> None:
    """Compare jobs with what the metadata count; rows that were rejected may be of any state, or not counted."""
    expected = Counter(metadata.jobs)
    rejected = jobs.rejected if jobs is not None else 0
    if states - expected or (expected - states).total() > rejected:
        told = [
            f"{name[:_SHOWN]!r}: {states[name]:,} instead of {expected[name]:,}"
            for name in sorted({*states, *expected})
            if states[name] != expected[name]
        ]
        raise ArchiveFault(
            f"The jobs are not those that the metadata count ({', '.join(told[:_MOST_TOLD])})",
            "export the report again; jobs may have changed while it was made",
            member=JOBS.name,
        )
