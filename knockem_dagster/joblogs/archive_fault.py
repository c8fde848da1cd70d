"""Why an archive cannot be taken in."""

from __future__ import annotations

from knockem_dagster.errors import KnockemError
from knockem_dagster.records.joblogs import QuarantineValue

SEND_AGAIN = "send the archive again, as the exporter wrote it"
_LONGEST = 500


class ArchiveFault(KnockemError):
    """An archive or its metadata is not to be trusted: what is wrong and where, and what its sender must do.

    `member`: which of members.MEMBERS; "" where it is the archive as a whole. `line`: in the member, from 1.
    """

    def __init__(self, what: str, remedy: str, *, member: str = "", line: int | None = None) -> None:
        shown = what if len(what) <= _LONGEST else f"{what[:_LONGEST]}..."
        self.quarantine = QuarantineValue(what=shown, remedy=remedy, member=member, line=line)
        super().__init__(str(self.quarantine))
