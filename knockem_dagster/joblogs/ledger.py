"""The ledger: reports are stored as they came, then read into the lake or quarantined, each as often as one likes.

Keys follow from what is stored, and a report counts as loaded only once all its tables are there: whoever dies in
between leaves nothing that is read, and is followed by anybody who does the same again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from knockem_dagster.errors import Conflict, Fault, InvalidInput, KnockemError, StoreError
from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.job_resources import write_job_resources
from knockem_dagster.joblogs.report import PARSER_VERSION, read_report
from knockem_dagster.joblogs.report_metadata import check_made_by, read_metadata
from knockem_dagster.joblogs.wanted import check_wanted, while_wanted
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.joblogs import QuarantineValue, RejectValue, ReportRecord, ReportState
from knockem_dagster.records.record import derived_id
from knockem_dagster.stores.documents import Patch
from knockem_dagster.stores.objects import Objects

MOST_REJECTS = 20
"""Described in the ledger; all are counted."""
SCRATCH = "knockem-joblogs-"
"""How folders for what is being taken in begin."""
KEPT_SCRATCH = timedelta(days=1)
"""How long these are there at most: a sender has an hour, and nothing is at work on a report for as long."""
_LAKE = "joblogs/lake"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ANOTHER = QuarantineValue(
    what="Something else has arrived as this report before, and is in use",
    remedy="give this one a name of its own if it is another report; else nothing is to be done",
)
_OF_THE_MACHINE = (duckdb.OperationalError, pa.ArrowMemoryError)
"""What is raised where memory or disk are too small, whatever the report."""
_OF_READING = ("quarantine", "parserVersion", "generated", "galaxyVersion", "kept", "rejected", "rejects")


def sweep_scratch(*, older: timedelta = KEPT_SCRATCH) -> None:
    """Remove what processes that were killed had in work on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(FileNotFoundError):  # its owner has just removed it
            if time.time() - folder.stat().st_mtime > older.total_seconds():
                shutil.rmtree(folder, ignore_errors=True)


class Ledger:
    """The reports of all instances, over the record and the object store. Safe to use by several at once."""

    def __init__(self, records: Records, objects: Objects) -> None:
        self._records = records
        self._reports = records.job_log_reports
        self._objects = objects

    def has(self, instance: str, name: str) -> bool:
        """Tell whether anything has arrived as this report."""
        return self._reports.find_one(_id_of(instance, name)) is not None

    def receive(self, instance: str, name: str, archive: Path, metadata: bytes) -> ReportRecord:
        """Store a report as it was sent, from a file that may change meanwhile: `store` tells the rest."""
        check_name(name)
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            copy = Path(scratch) / "archive"
            shutil.copyfile(archive, copy)
            with copy.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            return self.store(instance, name, copy, metadata, digest=digest)

    def store(self, instance: str, name: str, archive: Path, metadata: bytes, *, digest: str) -> ReportRecord:
        """Store a report as it was sent; return what became of it. `digest`: the archive's SHA-256, hexadecimal.

        The same once more changes nothing. Something else under the name of a report in use is quarantined, and kept;
        it takes the place of one that is quarantined itself. Raises InvalidInput for a name that is none.
        """
        check_name(name)
        with while_wanted(self._records, self._objects, instance):
            return self._store(instance, name, archive, metadata, digest)

    def _store(self, instance: str, name: str, archive: Path, metadata: bytes, digest: str) -> ReportRecord:
        sent = ReportRecord(
            id=_id_of(instance, name),
            instance_id=instance,
            name=name,
            archive_digest=digest,
            digest=hashlib.sha256(bytes.fromhex(digest) + hashlib.sha256(metadata).digest()).hexdigest(),
        )
        if not self._objects.exists(archive_key(sent)):
            self._objects.put(archive_key(sent), archive)
        self._objects.put(metadata_key(sent), metadata, create_only=True)
        while not self._reports.add(sent):
            there = self._reports.get(sent.id)
            if there.digest == sent.digest:
                return there
            if there.state is ReportState.LOADED:
                return self._keep_beside(sent)
            if there.state is ReportState.RECEIVED:
                self.read(there)
            elif (taken := self._replace(there, sent)) is not None:
                return taken
        return sent

    def read(self, report: ReportRecord) -> ReportRecord:
        """Read a report into the lake, or quarantine it; return what became of it.

        Readers see its tables from the moment on that all are there. Raises Conflict for one that arrived beside
        another of its name, or did not arrive.
        """
        if not report.digest:
            raise Conflict(f"Report {report.name} was refused before it had arrived: {report.quarantine}")
        if is_beside(report):
            raise Conflict(str(_ANOTHER))
        with while_wanted(self._records, self._objects, report.instance_id):
            return self._read(report)

    def _read(self, report: ReportRecord) -> ReportRecord:
        if (twins := self._in_use(report)) and report.id not in {each.id for each in twins}:
            return self._quarantine_twin(report, twins[0])
        reading = report.model_copy(update={"parser_version": PARSER_VERSION})
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            archive, tables = Path(scratch) / "archive", Path(scratch) / "tables"
            self._objects.fetch(archive_key(report), archive)
            tables.mkdir()
            try:
                metadata = read_metadata(self._objects.get(metadata_key(report)))
                check_made_by(metadata, datetime.fromisoformat(report.datetime))
                found = read_report(archive, metadata, tables)
                write_job_resources(tables)
            except ArchiveFault as fault:
                return self._quarantine(report, fault.quarantine)
            except (duckdb.Error, pa.ArrowException) as error:
                if isinstance(error, _OF_THE_MACHINE):
                    raise
                return self._quarantine(report, _unreadable(error))
            for table in tables.iterdir():
                self._objects.put(table_key(reading, table.stem), table)
        loaded = self._settle(
            report,
            ReportState.LOADED,
            generated=float(metadata.generated),
            galaxyVersion=metadata.galaxy_version,
            kept=dict(found.kept),
            rejected=dict(found.rejected),
            rejects=[RejectValue(**asdict(each)).model_dump(by_alias=True) for each in found.rejects[:MOST_REJECTS]],
        )
        first, *others = self._in_use(loaded) or [loaded]
        for other in others:  # which were read at the same time
            self._quarantine_twin(other, first)
        return self._reports.get(loaded.id) if others else loaded

    def refuse(self, instance: str, name: str, why: QuarantineValue) -> None:
        """Note that a report was refused before it had arrived, unless something has arrived under its name.

        What is dismissed is told once more only where it was refused for something else.
        """
        refused = ReportRecord(
            id=_id_of(instance, name),
            instance_id=instance,
            name=name,
            archive_digest="",
            digest="",
            state=ReportState.QUARANTINED,
            quarantine=why,
        )
        with while_wanted(self._records, self._objects, instance):
            if not self._reports.add(refused):
                before = self._reports.get(refused.id)
                is_told = before.state is ReportState.DISMISSED and before.quarantine == why
                state = ReportState.DISMISSED if is_told else ReportState.QUARANTINED
                said = {"quarantine": why.model_dump(by_alias=True), "datetime": refused.datetime, "state": state}
                self._change(refused, Patch(set=said))

    def dismiss(self, report: ReportRecord) -> ReportRecord:
        """Take a quarantined report off the list; return it. What was sent is kept, and can still be released.

        The same sent again is not told again; something else under its name is. Raises Conflict for one that is not
        quarantined.
        """
        dismissed = Patch(set={"state": ReportState.DISMISSED})
        found = self._change(report, dismissed, state=ReportState.QUARANTINED)
        now = found or self._reports.get(report.id)
        if now.state is not ReportState.DISMISSED:
            raise Conflict(f"Report {now.name} is {now.state}; only what is quarantined can be dismissed.")
        return now

    def read_all(self, instance: str, *, again: bool = False) -> list[ReportRecord]:
        """Read all reports of an instance that were not read yet by this parser; return what became of each.

        `again`: also those that were read. Raises StoreError where any could not be read, once all others are.
        """
        read: list[ReportRecord] = []
        failed: list[tuple[ReportRecord, Exception]] = []
        for report in self._arrived(instance) if again else self.unread(instance):
            try:
                read.append(self.read(report))
            except (KnockemError, OSError, *_OF_THE_MACHINE) as error:
                check_wanted(self._records, instance)
                failed.append((report, error))
        if failed:
            report, error = failed[0]
            told = f"{len(failed):,} of {len(failed) + len(read):,} reports could not be read, the first {report.name}"
            raise StoreError(f"{told}: {error}") from error
        return read

    def unread(self, instance: str) -> list[ReportRecord]:
        """Return the reports of an instance that this parser has not read yet, in the order of their arrival."""
        return [each for each in self._arrived(instance) if each.parser_version != PARSER_VERSION]

    def _arrived(self, instance: str) -> list[ReportRecord]:
        found = self._reports.find({"instanceId": instance})
        arrived = (
            each for each in found if each.digest and not is_beside(each) and each.state is not ReportState.DISMISSED
        )
        return sorted(arrived, key=lambda each: each.datetime)

    def sweep(self, instances: Set[str]) -> None:
        """Remove the tables of these instances that earlier parsers read. No reader is at them any more."""
        read = {(each.instance_id, each.parser_version) for id in instances for each in self.in_use(id)}
        for stored in list(self._objects.list(_LAKE)):
            _, _, parser, _, instance, _ = stored.key.split("/")
            if instance in instances and parser != PARSER_VERSION and (instance, parser) not in read:
                self._objects.delete(stored.key)

    def in_use(self, instance: str) -> list[ReportRecord]:
        """Return the reports of an instance that are in the lake, by name."""
        loaded = self._reports.find({"instanceId": instance, "state": ReportState.LOADED})
        return sorted(loaded, key=lambda each: each.name)

    def _in_use(self, report: ReportRecord) -> list[ReportRecord]:
        """Return the reports in use with this very archive, by whatever name, the first that arrived first."""
        same = self._reports.find({"instanceId": report.instance_id, "archiveDigest": report.archive_digest})
        return sorted((each for each in same if each.state is ReportState.LOADED), key=lambda each: each.datetime)

    def _quarantine_twin(self, report: ReportRecord, first: ReportRecord) -> ReportRecord:
        what = f"The same archive is in use as report {first.name}"
        return self._quarantine(report, QuarantineValue(what=what, remedy="nothing is to be done"))

    def _replace(self, there: ReportRecord, sent: ReportRecord) -> ReportRecord | None:
        """Put what was sent in the place of a report that is not in use; None where it is not what it was any more."""
        fields = {"digest": sent.digest, "archiveDigest": sent.archive_digest, "datetime": sent.datetime}
        anew = Patch(set={**fields, "state": ReportState.RECEIVED}, unset=_OF_READING)
        taken = self._change(there, anew, state=there.state)
        if taken is not None:
            self._reports.documents.delete(self._reports.name, {"_id": _id_beside(sent)})
        return taken

    def _keep_beside(self, sent: ReportRecord) -> ReportRecord:
        id = _id_beside(sent)
        beside = {"id": id, "state": ReportState.QUARANTINED, "quarantine": _ANOTHER}
        self._reports.add(sent.model_copy(update=beside))
        return self._reports.get(id)

    def _quarantine(self, report: ReportRecord, why: QuarantineValue) -> ReportRecord:
        return self._settle(report, ReportState.QUARANTINED, quarantine=why.model_dump(by_alias=True))

    def _settle(self, report: ReportRecord, state: ReportState, **said: Any) -> ReportRecord:
        fields = {"state": state, "parserVersion": PARSER_VERSION, **said}
        settled = Patch(set=fields, unset=tuple(name for name in _OF_READING if name not in fields))
        return self._change(report, settled) or self._reports.get(report.id)

    def _change(self, report: ReportRecord, patch: Patch, **where: str) -> ReportRecord | None:
        """Change a report; None where something else has taken its place meanwhile."""
        now = {"_id": report.id, "digest": report.digest, **where}
        found = self._reports.documents.claim(self._reports.name, now, patch)
        return None if found is None else ReportRecord.from_document(found)


def is_beside(report: ReportRecord) -> bool:
    """Tell whether something else was in use under the name of a report when it arrived."""
    return report.id != _id_of(report.instance_id, report.name)


def archive_key(report: ReportRecord) -> str:
    """Return where an archive is, as it was sent."""
    return f"joblogs/raw/{report.instance_id}/{report.name}/{report.digest}.tar.gz"


def metadata_key(report: ReportRecord) -> str:
    """Return where metadata are, as they were sent."""
    return f"joblogs/raw/{report.instance_id}/{report.name}/{report.digest}.json"


def table_key(report: ReportRecord, member: str) -> str:
    """Return where a member's rows are in the lake, as the parser read them that the report names."""
    file = f"{report.name}.{report.digest[:16]}.parquet"
    return f"{_LAKE}/{report.parser_version}/{member}/{report.instance_id}/{file}"


def _unreadable(error: Exception) -> QuarantineValue:
    """Tell of an error that comes again whenever the report is read. Its own text may hold anything of the report."""
    what = f"knockem itself cannot read it ({type(error).__name__})"
    return QuarantineValue(what=what, remedy="report this, and release it with a newer version")


def check_name(name: str) -> None:
    """Raise InvalidInput for what is no name of a report."""
    if not _NAME.fullmatch(name):
        allowed = "up to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise InvalidInput("The report cannot be stored.", [Fault("its name", repr(name[:200]), allowed)])


def _id_of(instance: str, name: str) -> str:
    return derived_id("jobLogReport", instance, name)


def _id_beside(sent: ReportRecord) -> str:
    return derived_id("jobLogReport", sent.instance_id, sent.name, sent.digest)
