"""The ledger: reports are stored as they came, then read into the lake or quarantined, each as often as one likes.

Keys follow from what is stored, and a report counts as loaded only once all its tables are there: whoever dies in
between leaves nothing that is read, and is followed by anybody who does the same again.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from knockem_dagster.errors import Conflict, Fault, InvalidInput
from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.report import PARSER_VERSION, read_report
from knockem_dagster.joblogs.report_metadata import read_metadata
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import QuarantineValue, RejectValue, ReportRecord, ReportState
from knockem_dagster.records.record import derived_id, now
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects

MOST_REJECTS = 20
"""Described in the ledger; all are counted."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ANOTHER = QuarantineValue(
    what="Another archive has arrived as this report before, and is in use",
    remedy="give this one a name of its own if it is another report; else nothing is to be done",
)
_NOT_READ = ("quarantine", "parserVersion", "generated", "galaxyVersion", "kept", "rejected", "rejects")


class Ledger:
    """The reports of all instances, over the record and the object store. Safe to use by several at once."""

    def __init__(self, records: Records, objects: Objects) -> None:
        self._reports = records.job_log_reports
        self._objects = objects

    def receive(self, instance: str, name: str, archive: Path, metadata: bytes) -> ReportRecord:
        """Store a report as it was sent; return what became of it.

        The same once more changes nothing. Something else under the name of a report in use is quarantined, and kept;
        it takes the place of one that is quarantined itself. Raises InvalidInput for a name that is none.
        """
        if not _NAME.fullmatch(name):
            allowed = "up to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
            raise InvalidInput("The report cannot be stored.", [Fault("its name", repr(name[:200]), allowed)])
        digest = _digest_of(archive, metadata)
        sent = ReportRecord(id=_id_of(instance, name), instance_id=instance, name=name, digest=digest)
        self._objects.put(archive_key(sent), archive, create_only=True)
        self._objects.put(metadata_key(sent), metadata, create_only=True)
        if self._reports.add(sent):
            return sent
        there = self._reports.get(sent.id)
        if there.digest == digest:
            return there
        anew = Patch(set={"digest": digest, "state": ReportState.RECEIVED, "datetime": now()}, unset=_NOT_READ)
        taken = self._change(there, anew) if there.state is ReportState.QUARANTINED else None
        return taken or self._keep_beside(sent)

    def read(self, report: ReportRecord) -> ReportRecord:
        """Read a report into the lake, or quarantine it; return what became of it.

        Readers see its tables from the moment on that all are there. Raises Conflict for one that arrived beside
        another of its name.
        """
        if report.id != _id_of(report.instance_id, report.name):
            raise Conflict(str(_ANOTHER))
        with tempfile.TemporaryDirectory(prefix="knockem-joblogs-") as scratch:
            archive, tables = Path(scratch) / "archive", Path(scratch) / "tables"
            self._objects.fetch(archive_key(report), archive)
            tables.mkdir()
            try:
                metadata = read_metadata(self._objects.get(metadata_key(report)))
                found = read_report(archive, metadata, tables)
            except ArchiveFault as fault:
                why = QuarantineValue(what=fault.what, remedy=fault.remedy, member=fault.member, line=fault.line)
                return self._settle(report, ReportState.QUARANTINED, quarantine=why.model_dump(by_alias=True))
            for table in tables.iterdir():
                self._objects.put(table_key(report, table.stem), table)
        return self._settle(
            report,
            ReportState.LOADED,
            generated=float(metadata.generated),
            galaxyVersion=metadata.galaxy_version,
            kept=dict(found.kept),
            rejected=dict(found.rejected),
            rejects=[RejectValue(**asdict(each)).model_dump(by_alias=True) for each in found.rejects[:MOST_REJECTS]],
        )

    def read_all(self, instance: str) -> Iterator[ReportRecord]:
        """Read all reports of an instance that have arrived and were not read; yield what became of each."""
        for report in list(self._reports.find({"instanceId": instance, "state": ReportState.RECEIVED})):
            yield self.read(report)

    def _keep_beside(self, sent: ReportRecord) -> ReportRecord:
        id = derived_id("jobLogReport", sent.instance_id, sent.name, sent.digest)
        beside = sent.model_copy(update={"id": id, "state": ReportState.QUARANTINED, "quarantine": _ANOTHER})
        self._reports.add(beside)
        return self._reports.get(id)

    def _settle(self, report: ReportRecord, state: ReportState, **said: Any) -> ReportRecord:
        fields = {"state": state, "parserVersion": PARSER_VERSION, **said}
        settled = Patch(set=fields, unset=tuple(name for name in _NOT_READ if name not in fields))
        return self._change(report, settled) or self._reports.get(report.id)

    def _change(self, report: ReportRecord, patch: Patch) -> ReportRecord | None:
        """Change a report; None where something else has taken its place meanwhile."""
        found = self._reports.documents.claim(self._reports.name, {"_id": report.id, "digest": report.digest}, patch)
        return None if found is None else ReportRecord.from_document(found)


def archive_key(report: ReportRecord) -> str:
    """Return where an archive is, as it was sent."""
    return f"joblogs/raw/{report.instance_id}/{report.name}/{report.digest}.tar.gz"


def metadata_key(report: ReportRecord) -> str:
    """Return where metadata are, as they were sent."""
    return f"joblogs/raw/{report.instance_id}/{report.name}/{report.digest}.json"


def table_key(report: ReportRecord, member: str) -> str:
    """Return where a member's rows are in the lake, as this parser reads them."""
    return f"joblogs/lake/{PARSER_VERSION}/{member}/{report.instance_id}/{report.name}.{report.digest[:16]}.parquet"


def _id_of(instance: str, name: str) -> str:
    return derived_id("jobLogReport", instance, name)


def _digest_of(archive: Path, metadata: bytes) -> str:
    with archive.open("rb") as content:
        of_archive = hashlib.file_digest(content, "sha256").digest()
    return hashlib.sha256(of_archive + hashlib.sha256(metadata).digest()).hexdigest()
