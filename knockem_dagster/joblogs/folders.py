"""Folders of reports: `INSTANCE/archives/N.tar.gz` with `N.json`, or the files as Galaxy's exporter names them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from knockem_dagster.errors import NotFound
from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.report_metadata import read_metadata

ARCHIVE = ".tar.gz"
_ARCHIVES = "archives"


@dataclass(frozen=True, slots=True)
class FoundReport:
    """A report in a folder. `instance`: the folder of its instance, or the one that was looked at."""

    instance: Path
    archive: Path

    @property
    def metadata(self) -> bytes:
        """What is said of it; empty where nothing is, which no report's metadata are."""
        path = self.archive.with_name(self.archive.name.removesuffix(ARCHIVE) + ".json")
        return path.read_bytes() if path.is_file() else b""

    @property
    def name(self) -> str:
        """The report's name: that of its file, or when it was made where files are numbered only."""
        stem = self.archive.name.removesuffix(ARCHIVE)
        if not stem.isdigit():
            return stem
        try:
            return read_metadata(self.metadata).generated
        except ArchiveFault:
            return stem


def reports_in(folder: Path) -> Iterator[FoundReport]:
    """Yield the reports below a folder, instance by instance, in the order of their names.

    Raises NotFound where there is no folder, or none in it.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.")
    archives = sorted(folder.rglob(f"*{ARCHIVE}"))
    if not archives:
        raise NotFound(
            f"There is no archive below {folder}: reports are files NAME.tar.gz with NAME.json, or "
            "INSTANCE/archives/N.tar.gz with N.json."
        )
    for archive in archives:
        place = archive.parent
        yield FoundReport(place.parent if place.name == _ARCHIVES else place, archive)
