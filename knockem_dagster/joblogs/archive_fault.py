"""Why an archive cannot be taken in."""

from __future__ import annotations

from knockem_dagster.errors import KnockemError


class ArchiveFault(KnockemError):
    """An archive or its metadata is not to be trusted: what is wrong and where, and what its sender must do.

    `member`: which of members.MEMBERS; "" where it is the archive as a whole. `line`: in the member, from 1.
    """

    def __init__(self, what: str, remedy: str, *, member: str = "", line: int | None = None) -> None:
        self.what = what
        self.remedy = remedy
        self.member = member
        self.line = line
        place = f" in {member}" if member else ""
        at = "" if line is None else f", line {line:,}"
        super().__init__(f"{what}{place}{at}: {remedy}.")
