"""Archives of job logs as nobody should send them, each with what must become of it.

Made of a good report, whose rows are then known. What belongs here: making them. Sending them is in ingest_faults.py.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from numpy.random import Generator

EVERY_BYTES = 4096
BOMB_BYTES = 180 << 20
MANY_MEMBERS = 101
_LONGEST_NAME = 300


class Must(Enum):
    """What must become of a report."""

    LOAD = "loaded whole"
    QUARANTINE = "quarantined"
    EITHER = "loaded whole or quarantined"
    NOT_CRASH = "loaded, with whatever rows it has, or quarantined"


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A report: what is wrong with it, archive and metadata as they are sent, and what must become of it."""

    fault: str
    archive: bytes
    metadata: bytes
    must: Must


@dataclass(frozen=True, slots=True)
class GoodReport:
    """A report that nothing is wrong with: its members by their names in the archive."""

    archive: bytes
    metadata: bytes
    members: dict[str, bytes]

    def called(self, name: str) -> str:
        """Return the whole name of a member, as `jobs`."""
        return next(each for each in self.members if each.endswith(f".{name}.tsv"))

    def shifted(self, by: int, *, generated: str) -> GoodReport:
        """Return a report of other jobs, that are as these but for their ids, made at another time."""
        members = {name: _shifted(text, by) for name, text in self.members.items()}
        archive = packed(members.items())
        return GoodReport(archive, said_of(archive, self.metadata, generated=generated), members)


def read_good(archive: Path) -> GoodReport:
    """Read a report: an archive and the metadata beside it."""
    metadata = archive.with_name(archive.name.replace(".tar.gz", ".json")).read_bytes()
    members: dict[str, bytes] = {}
    with tarfile.open(archive) as opened:
        for header in opened:
            content = opened.extractfile(header)
            assert content is not None
            members[header.name] = content.read()
    return GoodReport(archive.read_bytes(), metadata, members)


def packed(members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    """Return an archive of members: a name is that of a plain file."""
    return gzip.compress(_tar(members), compresslevel=6, mtime=0)


def said_of(archive: bytes, metadata: bytes, **otherwise: object) -> bytes:
    """Return metadata with the digest of this archive."""
    digest = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    return json.dumps({**json.loads(metadata), "report_hash": digest, **otherwise}).encode()


def spoiled(good: GoodReport, rng: Generator, *, flips: int) -> Iterator[Spoiled]:
    """Yield each fault by itself, then cuts, and so many archives with a random bit flipped.

    Damaged bytes come twice: with the digest of the whole archive, and with their own.
    """
    yield from _known_faults(good)
    yield from _bombs(good)
    yield from _bad_rows(good)
    for fault, archive, must in (*_damaged_ends(good.archive), *_cut(good.archive, rng, flips // 5)):
        yield from _with_either_digest(good, fault, archive, must)
    for _ in range(flips):
        yield from _with_either_digest(good, "a flipped bit", _flipped(good.archive, rng), Must.EITHER)
    unpacked = _tar(good.members.items())
    for _ in range(flips // 2):
        archive = gzip.compress(_flipped(unpacked, rng), compresslevel=1, mtime=0)
        yield Spoiled("a bit flipped before it was packed", archive, said_of(archive, good.metadata), Must.NOT_CRASH)
    for _ in range(flips // 2):
        metadata = _flipped(good.metadata, rng)
        yield Spoiled("a bit flipped in the metadata", good.archive, metadata, Must.EITHER)
    for length in rng.integers(0, len(good.metadata), flips // 10).tolist():
        yield Spoiled("metadata that are cut", good.archive, good.metadata[:length], Must.QUARANTINE)


def _with_either_digest(good: GoodReport, fault: str, archive: bytes, must: Must) -> Iterator[Spoiled]:
    yield Spoiled(f"{fault}, told by the digest", archive, good.metadata, Must.QUARANTINE)
    yield Spoiled(fault, archive, said_of(archive, good.metadata), must)


def _damaged_ends(whole: bytes) -> Iterator[tuple[str, bytes, Must]]:
    yield "a wrong CRC", whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:], Must.QUARANTINE
    yield "a wrong length", whole[:-1] + bytes([whole[-1] ^ 1]), Must.QUARANTINE
    for missing in range(1, 13):
        yield "a cut trailer", whole[:-missing], Must.QUARANTINE
    yield "bytes after its end", whole + b"more", Must.QUARANTINE
    yield "two archives in one", whole + whole, Must.QUARANTINE


def _cut(whole: bytes, rng: Generator, number: int) -> Iterator[tuple[str, bytes, Must]]:
    anywhere = rng.integers(0, len(whole), number).tolist()
    for length in (*range(0, len(whole), EVERY_BYTES), *anywhere):
        yield "cut", whole[:length], Must.QUARANTINE


def _known_faults(good: GoodReport) -> Iterator[Spoiled]:
    jobs = good.called("jobs")
    files = list(good.members.items())
    others = [each for each in files if each[0] != jobs]
    places = {
        f"members of {folder}": [(f"{folder}{name.rsplit('/', 1)[-1]}", text) for name, text in files]
        for folder in ("../../../../", "/etc/", "/", "a/../../", "x/" * (_LONGEST_NAME // 2))
    }
    links = {
        f"a link of type {kind!r} to {target}": [*others, (_header(jobs, kind, target), b"")]
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
        for target in ("/etc/passwd", "../../../etc/passwd", others[0][0], "")
    }
    kinds = {
        f"a member of type {kind!r}": [*files, (_header("other", kind), b"")]
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE)
    }
    refused: dict[str, list[tuple[str | tarfile.TarInfo, bytes]]] = {
        **links,
        **kinds,
        **{f"{name.split('.')[-2]} twice": [*files, (f"again/{name}", text)] for name, text in files},
        "no jobs": list(others),
        "nothing in it": [],
        "too many members": [*files, *((f"other_{number}", b"") for number in range(MANY_MEMBERS))],
    }
    for fault, members in places.items():
        yield _of(good, fault, members, Must.LOAD)
    for fault, members in refused.items():
        yield _of(good, fault, members, Must.QUARANTINE)
    yield Spoiled("no gzip", b"not a gzip", said_of(b"not a gzip", good.metadata), Must.QUARANTINE)
    yield Spoiled("no metadata", good.archive, b"", Must.QUARANTINE)


def _bombs(good: GoodReport) -> Iterator[Spoiled]:
    params = good.called("params")
    members = {**good.members, params: good.members[params] + b"1\tname\tvalue\n" * (BOMB_BYTES // 13)}
    yield _of(good, "a bomb", members.items(), Must.QUARANTINE)
    members = {**good.members, "other": bytes(BOMB_BYTES)}
    yield _of(good, "a bomb beside its members", members.items(), Must.QUARANTINE)


def _bad_rows(good: GoodReport) -> Iterator[Spoiled]:
    metrics = good.called("metric_num")
    rows = {
        "NaN": b"1\tcore\tn\tNaN\n",
        "infinity": b"1\tcore\tn\tinf\n",
        "1e400": b"1\tcore\tn\t1e400\n",
        "a negative number": b"1\tcore\tmemory.peak\t-1\n",
        "NUL": b"1\tco\0re\tn\t1\n",
        "no UTF-8": b"1\tco\xffre\tn\t1\n",
        "too few columns": b"1\tcore\tn\n",
        "too many columns": b"1\tcore\tn\t1\t1\n",
        "no id": b"x\tcore\tn\t1\n",
        "a negative id": b"-1\tcore\tn\t1\n",
        "a carriage return": b"1\tco\rre\tn\t1\n",
        "nothing": b"\n",
    }
    for name, row in rows.items():
        members = {**good.members, metrics: good.members[metrics] + row}
        yield _of(good, f"a row with {name}", members.items(), Must.LOAD)
        members[metrics] += 5 * row
        yield _of(good, f"many rows with {name}", members.items(), Must.QUARANTINE)


def _of(good: GoodReport, fault: str, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], must: Must) -> Spoiled:
    archive = packed(members)
    return Spoiled(fault, archive, said_of(archive, good.metadata), must)


def _header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def _tar(members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for given, content in members:
            header = given if isinstance(given, tarfile.TarInfo) else tarfile.TarInfo(given)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return out.getvalue()


def _flipped(whole: bytes, rng: Generator) -> bytes:
    place, bit = int(rng.integers(len(whole))), int(rng.integers(8))
    return whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def _shifted(text: bytes, by: int) -> bytes:
    rows = (line.partition(b"\t") for line in text.splitlines(keepends=True))
    return b"".join(b"%d\t%s" % (int(id) + by, rest) if id.isdigit() else id + tab + rest for id, tab, rest in rows)
