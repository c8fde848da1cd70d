"""Archives of job logs, made as Galaxy's exporter makes them, or spoiled."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knockem_dagster.joblogs.members import MEMBERS
from knockem_dagster.joblogs.report_metadata import ReportMetadata, read_metadata

ROOT = Path(__file__).parents[2]
REAL = sorted((ROOT / "tests" / "data" / "joblogs").glob("*/archives/*.tar.gz"))
"""One of version 1, one of version 3."""


@dataclass(frozen=True, slots=True)
class Report:
    """An archive, and the metadata that belong to it."""

    archive: Path
    metadata: ReportMetadata


def real_report(archive: Path) -> Report:
    """Return a report of tests/data/joblogs."""
    return Report(archive, read_metadata(archive.with_name(archive.name.replace(".tar.gz", ".json")).read_bytes()))


def table(name: str, rows: Iterable[Iterable[object]], *, header: bool = True) -> bytes:
    """Return a member's text: one line per row, and the line of names."""
    lines = [list(MEMBERS[name].columns)] if header else []
    return "".join("\t".join(map(str, row)) + "\n" for row in [*lines, *rows]).encode()


JOBS = table(
    "jobs",
    [
        (1, "cat", "1.0", "ok", "2026-01-01 00:00:00.5"),
        (2, "cat", "1.0", "error", "2026-01-01 00:00:00"),
        (3, "upload1", "1.1", "ok", "2026-01-02 03:04:05.060708"),
    ],
)
METRICS = table("metric_num", [(1, "core", "galaxy_slots", "4.0000000"), (2, "cgroup", "memory.peak", "0E-7")])


def packed(members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    """Return an archive of these members: for a name, a file in the folder of the exporter."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for given, content in members:
            header = given if isinstance(given, tarfile.TarInfo) else tarfile.TarInfo(f"srv/reports/1.5.{given}.tsv")
            header.size = len(content)
            header.mtime = 1.25  # as the exporter's: it takes a header of its own
            archive.addfile(header, io.BytesIO(content))
    return gzip.compress(out.getvalue(), compresslevel=6, mtime=0)


def report_of(folder: Path, archive: bytes | Mapping[str, bytes], **said: Any) -> Report:
    """Store an archive, or one of these members; with the metadata that fit, but for what is said otherwise."""
    if isinstance(archive, Mapping):
        rows = [line.split(b"\t") for line in archive.get("jobs", b"").splitlines()]
        states = Counter(row[3].decode() for row in rows if len(row) > 3 and row[0].isdigit())
        said = {"jobs": states, **said}
        archive = packed(archive.items())
    path = folder / "1.5.tar.gz"
    path.write_bytes(archive)
    fields: dict[str, Any] = {
        "version": 3,
        "galaxy_version": "26.1",
        "generated": "1795212662.5",
        "report_hash": f"sha256:{hashlib.sha256(archive).hexdigest()}",
        "jobs": {"ok": 2, "error": 1},
        "users": {"active": 1, "total": 2},
        **said,
    }
    return Report(path, read_metadata(json.dumps(fields).encode()))
