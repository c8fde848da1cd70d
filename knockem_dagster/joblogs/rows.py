"""The rows of a member: text of tabs and lines, a block at a time, into columns; and which rows are unusable.

A row is either whole and right, or rejected with its line and the cause; nothing is mended or left out silently.
A block is read at once where all of it is right, and else carefully: both take the same rows.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyarrow import csv

from knockem_dagster.joblogs.archive import Content
from knockem_dagster.joblogs.archive_fault import SEND_AGAIN, ArchiveFault
from knockem_dagster.joblogs.columns import Mask, checked, read_as
from knockem_dagster.joblogs.members import Kind, Member
from knockem_dagster.joblogs.pipeline import mapped

BLOCK_BYTES = 2 << 20
LONGEST_LINE = 8 << 20
THREADS = 2
MOST_DESCRIBED = 1000
MOST_REJECTED = 100_000
"""More than so many and MOST_REJECTED_SHARE of what was read end the reading."""
MOST_REJECTED_SHARE = 0.01
_SHOWN = 200
_LONGEST_HEADER = 1000


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is unusable: of which member, its line from 1, why, and how it begins.

    `text`: empty for members of which not all is taken over.
    """

    member: str
    line: int
    cause: str
    text: str


@dataclass(slots=True)
class Reading:
    """How far the reading of a member is: rows taken over, and rejected; the first of these are described, in order."""

    member: Member
    kept: int = 0
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list[Reject])

    @property
    def has_too_many_rejects(self) -> bool:
        """Whether more than MOST_REJECTED_SHARE of the rows are rejected."""
        return self.rejected > MOST_REJECTED_SHARE * (self.kept + self.rejected)


def read_rows(content: Content, reading: Reading) -> Iterator[pa.RecordBatch]:
    """Yield a member's good rows, in order, as batches of its schema; note all others in `reading`.

    Raises ArchiveFault for columns that are not the member's, for endless lines, and where far too much is rejected.
    """
    for found in mapped(_read_block, _blocks(content, reading.member), threads=THREADS):
        reading.kept += found.rows.num_rows
        reading.rejected += found.rejected
        reading.rejects += found.rejects[: MOST_DESCRIBED - len(reading.rejects)]
        yield found.rows
        if reading.rejected > MOST_REJECTED and reading.has_too_many_rejects:
            raise too_many_rejected(reading)


def too_many_rejected(reading: Reading) -> ArchiveFault:
    """Return the fault of a member of which too much is rejected, with its first reject."""
    first = reading.rejects[0]
    return ArchiveFault(
        f"{reading.rejected:,} of {reading.kept + reading.rejected:,} rows are unusable, the first as {first.cause}",
        "correct these rows where they come from, and export the report again",
        member=reading.member.name,
        line=first.line,
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole lines of a member; only its very last one may lack its end. `line`: the number of the first, from 1."""

    member: Member
    line: int
    text: bytes


@dataclass(frozen=True, slots=True)
class _Read:
    """The good rows of a block, and how many others it has, of which the first are described."""

    rows: pa.RecordBatch
    rejected: int = 0
    rejects: Sequence[Reject] = ()


def _blocks(content: Content, member: Member) -> Iterator[_Block]:
    line = 1
    for text in _texts(content, member):
        block = _Block(member, line, text)
        if line == 1 and _has_header(text, member):
            block = _Block(member, 2, text.partition(b"\n")[2])
        if block.text:
            yield block
        line += text.count(b"\n")


def _texts(content: Content, member: Member) -> Iterator[bytes]:
    begun = b""
    while text := content.read(BLOCK_BYTES):
        end = text.rfind(b"\n") + 1
        if len(begun) + (text.find(b"\n") if end else len(text)) > LONGEST_LINE:
            raise ArchiveFault(f"A line has more than {LONGEST_LINE:,} bytes", SEND_AGAIN, member=member.name)
        if end:
            yield b"".join((begun, memoryview(text)[:end]))
            begun = text[end:]
        else:
            begun += text
    if begun:
        yield begun


def _has_header(block: bytes, member: Member) -> bool:
    """Tell whether the first line names the columns; early exporters did not. Raises ArchiveFault for other names."""
    first = block[:_LONGEST_HEADER].split(b"\n", 1)[0].rstrip(b"\r").decode(errors="replace")
    names, expected = first.split("\t"), list(member.columns)
    if not first or names[0].isdigit():
        return False
    if names != expected:
        found = "others" if _is_confidential(member) else repr(first[:_SHOWN])
        raise ArchiveFault(
            f"The columns are {found} instead of {', '.join(expected)}",
            "export again with Galaxy's own exporter",
            member=member.name,
            line=1,
        )
    return True


def _is_confidential(member: Member) -> bool:
    """Tell whether a member's text is told nowhere: where a row is not whole, any part of it may be the value."""
    return Kind.UNREAD in member.columns.values()


def _read_block(block: _Block) -> _Read:
    try:
        if _misleads(block.text):
            return _read_carefully(block)
        rows, wrong = _checked(_parsed(block.text, block.member), block.member)
    except pa.ArrowInvalid:  # no number where one should be, or another number of columns
        return _read_carefully(block)
    return _read_carefully(block) if wrong else _Read(rows)


def _misleads(text: bytes) -> bool:
    """Tell whether the parser would take a carriage return for the end of a line, or leave out a byte order mark."""
    return text.startswith(BOM_UTF8) or (b"\r" in text and text.count(b"\r") > text.count(b"\r\n"))


def _read_carefully(block: _Block) -> _Read:
    """Read a block of which something is wrong: line by line, as far as it is to be told."""
    member = block.member
    whole: list[int] = []
    causes: dict[int, str] = {}
    lines = [line.removesuffix(b"\r") for line in block.text.removesuffix(b"\n").split(b"\n")]
    for place, line in enumerate(lines):
        if (number := line.count(b"\t") + 1) != len(member.columns):
            causes[place] = f"its number of columns is {number} instead of {len(member.columns)}"
        elif b"\r" in line:
            causes[place] = "a carriage return is within it"
        elif line.startswith(BOM_UTF8):
            causes[place] = "a byte order mark is before it"
        else:
            whole.append(place)
    rejected = len(causes)
    rows = pa.RecordBatch.from_pylist([], schema=member.schema)
    if whole:
        parsed = _parsed(b"\n".join(lines[place] for place in whole), member, carefully=True)
        rows, wrong = _checked(parsed, member)
        if wrong:
            is_wrong = np.logical_or.reduce(list(wrong.values()))
            rows = _encoded_anew(rows.filter(pa.array(~is_wrong)))
            at_fault = np.flatnonzero(is_wrong)
            rejected += len(at_fault)
            first = at_fault[:MOST_DESCRIBED].tolist()
            causes |= {whole[row]: _cause(parsed, row, wrong, member) for row in first}
    rejects = [
        Reject(member.name, block.line + place, causes[place], _beginning(lines[place], member))
        for place in sorted(causes)[:MOST_DESCRIBED]
    ]
    return _Read(rows, rejected, rejects)


def _beginning(line: bytes, member: Member) -> str:
    return "" if _is_confidential(member) else line[:_SHOWN].decode(errors="backslashreplace")


def _encoded_anew(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows without words in their dictionaries that no row has any more."""
    columns = [
        column.cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _cause(rows: pa.RecordBatch, row: int, wrong: dict[str, Mask], member: Member) -> str:
    """Tell of a row's first wrong column."""
    name = next(name for name, mask in wrong.items() if mask[row])
    if _is_confidential(member):
        return f"{name} is not {member.columns[name].value}"
    value = rows.column(name)[row].as_py().decode(errors="backslashreplace")
    return f"{name} is {value[:_SHOWN]!r} and not {member.columns[name].value}"


def _parsed(text: bytes, member: Member, *, carefully: bool = False) -> pa.RecordBatch:
    """Split lines into columns. Raises ArrowInvalid where any has too few or too many."""
    types = {name: read_as(kind, carefully=carefully) for name, kind in member.columns.items()}
    found = csv.read_csv(
        pa.BufferReader(text),
        read_options=csv.ReadOptions(column_names=list(member.columns), block_size=len(text) + 1, use_threads=False),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )
    [rows] = found.combine_chunks().to_batches()
    return rows


def _checked(rows: pa.RecordBatch, member: Member) -> tuple[pa.RecordBatch, dict[str, Mask]]:
    """Return rows in the types of the lake, and the columns in which any are wrong."""
    columns = {
        name: checked(rows.column(name), kind) for name, kind in member.columns.items() if kind is not Kind.UNREAD
    }
    found = pa.RecordBatch.from_arrays([column for column, _ in columns.values()], schema=member.schema)
    return found, {name: mask for name, (_, mask) in columns.items() if mask is not None}
