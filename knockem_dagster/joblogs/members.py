"""The members of an archive of job logs, and their columns, as Galaxy's exporter writes them.

Source of the formats: scripts/grt/export.py of Galaxy, whose versions 1 and 3 differ in `params` and `datasets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

LARGEST_QUANTITY = 1e20
"""Galaxy's column of metrics holds 19 digits before the point."""
LONGEST_TEXT, LONGEST_NAME = 4096, 1024
"""Bytes. Galaxy's longest columns of such texts have 1,023 characters, those of names, by which is counted, 255."""


class Kind(Enum):
    """What the fields of a column hold."""

    ID = "a whole number from 0 to 999,999,999,999,999,999"
    QUANTITY = f"a number from 0 to {LARGEST_QUANTITY:g}"
    SIZE = "a number; -1 and None where it is unknown"
    TIME = "a time in UTC, like 2017-06-02 19:18:30.059749"
    TEXT = f"text in UTF-8 of at most {LONGEST_TEXT:,} bytes without the character NUL"
    NAME = f"text in UTF-8 of at most {LONGEST_NAME:,} bytes without the character NUL"
    UNREAD = "text that is not taken over"


_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
STORED = {
    Kind.ID: pa.int64(),
    Kind.QUANTITY: pa.float64(),
    Kind.SIZE: pa.float64(),
    Kind.TIME: pa.timestamp("us", "UTC"),
    Kind.TEXT: _DICTIONARY,
    Kind.NAME: _DICTIONARY,
}
"""The types of the lake's columns."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member: its name's last part, and its columns in order."""

    name: str
    columns: dict[str, Kind]

    @property
    def schema(self) -> pa.Schema:
        """The columns of its table in the lake."""
        return pa.schema([(name, STORED[kind]) for name, kind in self.columns.items() if kind is not Kind.UNREAD])


_METRIC = {"job_id": Kind.ID, "plugin": Kind.TEXT, "name": Kind.TEXT}
JOBS = Member(
    "jobs",
    {"id": Kind.ID, "tool_id": Kind.NAME, "tool_version": Kind.NAME, "state": Kind.NAME, "create_time": Kind.TIME},
)
METRIC_NUM = Member("metric_num", {**_METRIC, "value": Kind.QUANTITY})
METRIC_TXT = Member("metric_txt", {**_METRIC, "value": Kind.TEXT})
# What people gave a tool may be anything, names and secrets too: the raw archive keeps it, no table does.
PARAMS = Member("params", {"job_id": Kind.ID, "name": Kind.TEXT, "value": Kind.UNREAD})
DATASETS = Member(
    "datasets",
    {
        "job_id": Kind.ID,
        "dataset_id": Kind.ID,
        "extension": Kind.TEXT,
        "file_size": Kind.SIZE,
        "param_name": Kind.TEXT,
        "type": Kind.TEXT,
    },
)
MEMBERS = {member.name: member for member in (JOBS, METRIC_NUM, METRIC_TXT, PARAMS, DATASETS)}
