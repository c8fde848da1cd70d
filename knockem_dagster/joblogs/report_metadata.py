"""What an instance says of a report: the JSON beside its archive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from knockem_dagster.joblogs.archive_fault import ArchiveFault

MOST_BYTES = 16 << 20
"""Version 1 lists all tools of a server."""
MOST_AHEAD = timedelta(days=1)
"""How long after its arrival a report may say that it was made: clocks differ, and some tell local time."""
_Seconds = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}(\.[0-9]{1,9})?$")]
_State = Annotated[str, StringConstraints(max_length=100)]
_Number = Annotated[int, Field(ge=0, lt=1 << 53)]
_Time = Annotated[float, Field(ge=0, lt=1e12)]
_Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Users(_Part):
    """How many users an instance has: with a job in the report's time, and in all."""

    active: _Number
    total: _Number


class _Timings(_Part):
    times: Annotated[
        tuple[tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")], _Time], ...],
        Field(max_length=1000, alias="_times"),
    ]


class ReportMetadata(_Part):
    """A report: format version, release of Galaxy, time in seconds since 1970, digest, jobs per state, users.

    `report_hash` is of the archive's compressed bytes.
    """

    version: Literal[1, 3]
    galaxy_version: Annotated[str, StringConstraints(max_length=100)]
    generated: _Seconds
    report_hash: _Digest
    jobs: Annotated[dict[_State, _Number], Field(max_length=100)]
    users: Users | None = None
    metrics: Any = None

    @property
    def timings(self) -> dict[str, float]:
        """When the exporter came where, in seconds since it began; empty where it does not say so."""
        try:
            return dict(_Timings.model_validate(self.metrics).times)
        except ValidationError:  # a report is none the worse for it
            return {}


def read_metadata(text: bytes) -> ReportMetadata:
    """Read a report's JSON. Raises ArchiveFault naming all that is wrong."""
    remedy = "export the report again with Galaxy's scripts/grt/export.py and send both files as it wrote them"
    if not text:
        raise ArchiveFault("There are no metadata with the archive", "send NAME.json with NAME.tar.gz")
    if len(text) > MOST_BYTES:
        raise ArchiveFault(f"The metadata have {len(text):,} bytes, more than {MOST_BYTES:,}", remedy)
    try:
        return ReportMetadata.model_validate_json(text)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part)[:40] for part in each['loc']) or 'the JSON'}: {each['msg']}"
            for each in error.errors()[:5]
        ]
        raise ArchiveFault(f"The metadata are not those of a report ({'; '.join(faults)})", remedy) from error


def check_made_by(metadata: ReportMetadata, arrived: datetime) -> None:
    """Raise ArchiveFault for a report that says that it was made after it had arrived: no later one would count."""
    if float(metadata.generated) > (arrived + MOST_AHEAD).timestamp():
        made = datetime.fromtimestamp(float(metadata.generated), UTC)
        raise ArchiveFault(
            f"It says that it was made at {made:%Y-%m-%d %H:%M} UTC, and arrived at {arrived:%Y-%m-%d %H:%M}",
            "correct the clock of the server that makes reports, and export it again",
        )
