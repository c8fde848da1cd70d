"""Folders of reports: `INSTANCE/archives/N.tar.gz` with `N.json`, or the files as Galaxy's exporter names them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from knockem_dagster.errors import NotFound
from knockem_dagster.joblogs.report_metadata import MOST_BYTES
from knockem_dagster.records.record import derived_id

ARCHIVE = ".tar.gz"
MOST_REPORT_BYTES = 4 << 30
"""Of a report that is sent or dropped: an archive of a hundred million jobs has as many."""
_ARCHIVES = "archives"
DROPS = "uploads/joblogs/"
"""Such a folder in the object store: who puts reports there need not send them."""
_DROP = re.compile(rf"{DROPS}([^/]+)/(?:{_ARCHIVES}/)?([^/]+){re.escape(ARCHIVE)}")


@dataclass(frozen=True, slots=True)
class FoundReport:
    """A report in a folder. `instance`: the folder of its instance, or the one that was looked at."""

    instance: Path
    archive: Path

    @property
    def name(self) -> str:
        """The report's name: that of its file."""
        return self.archive.name.removesuffix(ARCHIVE)

    def read_metadata(self) -> bytes:
        """Return what is said of it, up to more than any metadata have; nothing where nothing is."""
        path = self.archive.with_name(f"{self.name}.json")
        if not path.is_file():
            return b""
        with path.open("rb") as content:
            return content.read(MOST_BYTES + 1)


def reports_in(folder: Path) -> Iterator[FoundReport]:
    """Yield the reports below a folder, instance by instance, in the order of their names.

    Raises NotFound where there is no folder, or none in it.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.")
    folder = _named(folder)
    found = folder.rglob(f"*{ARCHIVE}")
    archives = sorted(each for each in found if each.is_file() and not each.name.startswith("."))
    if not archives:
        raise NotFound(
            f"There is no archive below {folder}: reports are files NAME.tar.gz with NAME.json, or "
            "INSTANCE/archives/N.tar.gz with N.json."
        )
    for archive in archives:
        place = archive.parent
        yield FoundReport(place.parent if place.name == _ARCHIVES else place, archive)


def _named(folder: Path) -> Path:
    """Return a folder without `..` in its path, which is no name; a link after that keeps its own."""
    up = next((each for each in (folder, *folder.parents) if each.name == ".."), None)
    return folder if up is None else up.resolve() / folder.relative_to(up)


def dropped(key: str) -> tuple[str, str] | None:
    """Return the names of instance and report of an archive in DROPS; None for what is none."""
    found = _DROP.fullmatch(key)
    return None if found is None else (found[1], found[2])


def metadata_of(key: str) -> str:
    """Return where metadata are, of an archive in DROPS."""
    return f"{key.removesuffix(ARCHIVE)}.json"


def instance_of_drop(key: str) -> str | None:
    """Return the id of the instance below whose folder in DROPS a key is; None for others."""
    return instance_id(key.removeprefix(DROPS).partition("/")[0]) if key.startswith(DROPS) else None


def instance_id(name: str) -> str:
    """Return the id of the instance of this name; a UUID is its own."""
    try:
        return str(UUID(name))
    except ValueError:
        return derived_id("jobLogInstance", name)
