"""Walking through an archive of job logs that anybody may have sent: gzip, tar, and nothing else.

No member is written anywhere by its name, and whatever is damaged, cut, or far larger than it looks ends the walk with
an ArchiveFault. Python's tarfile alone would end it silently: it takes a damaged header for the end.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, cast

from isal import igzip, isal_zlib

from knockem_dagster.joblogs.archive_fault import SEND_AGAIN, ArchiveFault
from knockem_dagster.joblogs.members import MEMBERS, Member

if TYPE_CHECKING:
    from io import BufferedReader

_BROKEN = cast("type[Exception]", isal_zlib.error)  # its stub calls the class an instance
_READ_BYTES = 1 << 20
_LONGEST_HEADER = 1 << 16
_DEEPEST = 10
_NUL_BLOCK = bytes(tarfile.BLOCKSIZE)
# These headers say something of the member that follows, and are read whole.
_EXTENSIONS = frozenset(
    (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an archive may be when it is unpacked: in bytes, as a multiple of what it is packed, and in members.

    Real archives unpack to about 7 times their size; the ratio is not looked at below `free_bytes`.
    """

    unpacked_bytes: int = 64 << 30
    ratio: int = 100
    free_bytes: int = 16 << 20
    members: int = 100


class _Unpacked:
    """The unpacked bytes, as far as the limits let them be read."""

    def __init__(self, path: Path, packed: BinaryIO, limits: Limits) -> None:
        self._gzip = cast("IO[bytes]", igzip.open(packed, "rb"))
        self._packed_bytes = path.stat().st_size
        self._limits = limits
        self._count = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end."""
        with _explained():
            data = self._gzip.read(size)
        self._count += len(data)
        if self._count > self._limits.unpacked_bytes:
            most = f"more than {self._limits.unpacked_bytes:,} bytes"
            raise ArchiveFault(f"The archive unpacks to {most}", "export the jobs of a shorter time at once")
        if self._count > max(self._limits.free_bytes, self._limits.ratio * self._packed_bytes):
            larger = f"more than {self._limits.ratio} times as large as it is packed"
            raise ArchiveFault(f"The archive unpacks to something {larger}, which job logs never are", SEND_AGAIN)
        return data


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer only at the end."""
        ...


class Content:
    """The bytes of a member; what is wrong with them is told as of the archive."""

    def __init__(self, content: Readable) -> None:
        self._content = content

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end."""
        with _explained():
            return self._content.read(size)


class _StrictArchive(tarfile.TarFile):
    """An archive whose headers are strict."""

    depth = 0
    """How many headers are being read that say something of the one that follows: each is read within the other."""


class _StrictHeader(tarfile.TarInfo):
    """A header that is an end only where it is one, and of an ordinary file without holes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> _StrictHeader:
        if not buf:
            raise ArchiveFault("The archive has no end: it was cut", SEND_AGAIN)
        try:
            found = super().frombuf(buf, encoding or "utf-8", errors)
        except tarfile.HeaderError as error:
            if bytes(buf) == _NUL_BLOCK:
                raise
            raise ArchiveFault("The archive has a damaged header", SEND_AGAIN) from error
        if found.type in _EXTENSIONS and not 0 <= found.size <= _LONGEST_HEADER:
            raise ArchiveFault(f"The archive has a header of {found.size:,} bytes", SEND_AGAIN)
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise _no_plain_file(found)
        return found

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _StrictHeader:
        assert isinstance(tarfile, _StrictArchive)
        tarfile.depth += 1
        try:
            if tarfile.depth > _DEEPEST:
                raise ArchiveFault("The archive has many headers for one member", SEND_AGAIN)
            return super().fromtarfile(tarfile)
        finally:
            tarfile.depth -= 1

    def _refuse_holes(self, *told: object) -> None:
        raise _no_plain_file(self)

    # The three ways to tell of holes in a file, whose maps would be read whole.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_holes


def _no_plain_file(header: tarfile.TarInfo) -> ArchiveFault:
    return ArchiveFault(f"The archive holds {header.name[:100]!r}, which is no plain file", SEND_AGAIN)


@contextmanager
def open_members(path: Path, limits: Limits) -> Generator[Iterator[tuple[Member, Content]]]:
    """Give the known members of an archive in its order, each with its content, to be read before the next one.

    The iterator ends only after the whole archive was read. It raises ArchiveFault.
    """
    with path.open("rb") as packed:
        yield _members(_Unpacked(path, packed, limits), limits)


def _members(unpacked: _Unpacked, limits: Limits) -> Iterator[tuple[Member, Content]]:
    seen: set[str] = set()
    with _explained():
        stream = cast("IO[bytes]", unpacked)
        archive = _StrictArchive.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader, bufsize=_READ_BYTES)
        for number, header in enumerate(archive):
            if number == limits.members:
                raise ArchiveFault(f"The archive has more than {limits.members} members", SEND_AGAIN)
            if not header.isreg():
                raise _no_plain_file(header)
            if not 0 <= header.size <= limits.unpacked_bytes:
                raise ArchiveFault(f"The archive holds a member of {header.size:,} bytes", SEND_AGAIN)
            file = archive.extractfile(header)
            assert file is not None, "it is a regular file"
            content = Content(cast("BufferedReader", file).raw)  # its buffer would cost a tenth more time
            member = member_of(header.name)
            if member is None:
                while content.read(_READ_BYTES):
                    pass
                continue
            if member.name in seen:
                raise ArchiveFault("The archive holds two members of one kind", SEND_AGAIN, member=member.name)
            seen.add(member.name)
            yield member, content
        assert archive.fileobj is not None, "it was given"
        while rest := archive.fileobj.read(_READ_BYTES):
            if rest.strip(b"\0"):
                raise ArchiveFault("The archive goes on after its end", SEND_AGAIN)


def member_of(name: str) -> Member | None:
    """Return which member this is by its name, whatever folder the exporter was in; None for any other file."""
    parts = name.rsplit("/", 1)[-1].rsplit(".", 2)
    is_table = len(parts) == 3 and parts[-1] == "tsv" and not name.startswith(".", name.rfind("/") + 1)
    return MEMBERS.get(parts[-2]) if is_table else None


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except EOFError as error:
        raise ArchiveFault("The archive has no end: it was cut", SEND_AGAIN) from error
    except (_BROKEN, gzip.BadGzipFile) as error:
        raise ArchiveFault(f"The archive cannot be unpacked ({error})", SEND_AGAIN) from error
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ArchiveFault(f"The archive is not one that tar made ({error})", SEND_AGAIN) from error
