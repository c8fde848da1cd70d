"""The metadata of a report say what they must, or are refused with all that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.report_metadata import MOST_BYTES, read_metadata
from tests.services.joblogs import REAL, real_report

FIELDS: dict[str, Any] = {
    "version": 3,
    "galaxy_version": "26.1",
    "generated": "1795212662.9137752",
    "report_hash": "sha256:" + "0" * 64,
    "jobs": {"ok": 3},
}


def test_the_real_metadata_are_read() -> None:
    first, second = sorted((real_report(archive).metadata for archive in REAL), key=lambda each: each.version)
    assert (first.version, first.galaxy_version, first.generated) == (1, "17.09", "1501836597.08")
    assert first.jobs == {"ok": 76, "error": 22}
    assert first.users is not None and (first.users.active, first.users.total) == (1, 1)
    assert sum(second.jobs.values()) == 1970


def test_what_is_not_needed_may_be_missing_or_more() -> None:
    found = read_metadata(json.dumps({**FIELDS, "tools": [["x", None]], "new": {}, "metrics": None}).encode())
    assert found.users is None


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"version": 2}, "version"),
        ({"version": 4}, "version"),
        ({"version": None}, "version"),
        ({"generated": "yesterday"}, "generated"),
        ({"generated": "NaN"}, "generated"),
        ({"generated": "999999999999.5"}, "generated"),
        ({"jobs": {"x" * 10_000_000: -1}}, "jobs.x{40}"),
        ({"jobs": {str(number): 1 for number in range(101)}}, "jobs"),
        ({"jobs": {"ok": 10**30}}, "jobs.ok"),
        ({"report_hash": "md5:5"}, "report_hash"),
        ({"jobs": {"ok": -1}}, "jobs.ok"),
        ({"jobs": [3]}, "jobs"),
        ({"users": {"active": 1}}, "users.total"),
        ({"galaxy_version": 26}, "galaxy_version"),
    ],
)
def test_what_is_wrong_is_named(said: dict[str, Any], named: str) -> None:
    with pytest.raises(ArchiveFault, match=rf"not those of a report \({named}.*: export the report again") as raised:
        read_metadata(json.dumps(FIELDS | said).encode())
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b"[" * 100_000, b"null", b'{"version": NaN}'])
def test_what_is_no_json_of_a_report_is_refused(text: bytes) -> None:
    with pytest.raises(ArchiveFault, match="not those of a report"):
        read_metadata(text)


def test_missing_or_endless_metadata_are_not_read() -> None:
    with pytest.raises(ArchiveFault, match=r"no metadata with the archive: send NAME\.json"):
        read_metadata(b"")
    with pytest.raises(ArchiveFault, match="more than 16,777,216"):
        read_metadata(b" " * (MOST_BYTES + 1))
