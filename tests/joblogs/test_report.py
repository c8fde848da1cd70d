"""Archives of job logs are read whole and right, or not at all."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from knockem_dagster.joblogs.archive import Content, Limits
from knockem_dagster.joblogs.archive_fault import ArchiveFault
from knockem_dagster.joblogs.members import MEMBERS, METRIC_NUM
from knockem_dagster.joblogs.report import ReadReport, read_report
from knockem_dagster.joblogs.rows import LONGEST_LINE, Reading, read_rows
from tests.services.joblogs import JOBS, METRICS, REAL, Report, packed, real_report, report_of, table


def read(report: Report, folder: Path, *, limits: Limits | None = None) -> tuple[ReadReport, dict[str, pa.Table]]:
    into = folder / "tables"
    into.mkdir(exist_ok=True)
    for old in into.iterdir():
        old.unlink()
    found = read_report(report.archive, report.metadata, into, limits=limits)
    return found, {path.stem: parquet.read_table(path) for path in into.iterdir()}


def fault_of(report: Report, folder: Path, *, limits: Limits | None = None) -> ArchiveFault:
    with pytest.raises(ArchiveFault) as raised:
        read(report, folder, limits=limits)
    return raised.value


def test_the_real_archives_have_the_rows_that_their_metadata_count(tmp_path: Path) -> None:
    rows = {
        98: {"jobs": 98, "metric_num": 388, "metric_txt": 0, "params": 541},
        1970: {"jobs": 1970, "metric_num": 20152, "datasets": 5553},
    }
    for archive in REAL:
        report = real_report(archive)
        found, tables = read(report, tmp_path)
        assert found.kept == rows[sum(report.metadata.jobs.values())]
        assert (set(found.rejected.values()), found.rejects) == ({0}, ())
        assert {name: content.num_rows for name, content in tables.items()} == found.kept
        states = tables["jobs"]["state"].combine_chunks().value_counts().to_pylist()
        assert {each["values"]: each["counts"] for each in states} == report.metadata.jobs
    assert {report.metadata.version for report in map(real_report, REAL)} == {1, 3}


def test_the_values_of_a_job_are_those_of_the_text(tmp_path: Path) -> None:
    report = next(report for report in map(real_report, REAL) if report.metadata.version == 3)
    _, tables = read(report, tmp_path)
    [job] = [row for row in tables["jobs"].to_pylist() if row["id"] == 3]
    assert job["tool_id"] == "toolshed.g2.bx.psu.edu/repos/iuc/tool_144/tool_144"
    assert (job["tool_version"], job["state"]) == ("0.8.0+galaxy0", "error")
    assert job["create_time"].isoformat() == "2024-01-01T03:23:47.158748+00:00"
    metrics = {row["name"]: row["value"] for row in tables["metric_num"].to_pylist() if row["job_id"] == 1}
    assert (metrics["galaxy_slots"], metrics["galaxy_memory_mb"], metrics["start_epoch"]) == (4, 4096, 1704078124)
    sizes = [row["file_size"] for row in tables["datasets"].to_pylist() if row["job_id"] == 1]
    assert sizes[:3] == [250_000, 1_800_000, 570_000]


def test_numbers_are_read_as_exporters_write_them(tmp_path: Path) -> None:
    values = ["0E-7", "9223372036854771712.0000000", "1.5", "3"]
    sizes = ["-1", "None", "", "0", "250000", "1.8e6"]
    report = report_of(
        tmp_path,
        {
            "metric_num": table("metric_num", [(1, "cgroup", "m", value) for value in values]),
            "datasets": table("datasets", [(1, 5, "txt", size, "input", "input") for size in sizes]),
        },
    )
    found, tables = read(report, tmp_path)
    assert tables["metric_num"]["value"].to_pylist() == [0.0, 2.0**63 - 4096, 1.5, 3.0]
    assert tables["datasets"]["file_size"].to_pylist() == [None, None, None, 0.0, 250000.0, 1.8e6]
    assert not any(found.rejected.values())


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_header_or_a_last_end_of_line_may_be_missing(tmp_path: Path, header: bool, end: bytes) -> None:
    rows = [(number, "cat", "1.0", "ok", "2026-01-01 00:00:00") for number in (1, 2)]
    text = table("jobs", rows, header=header).removesuffix(b"\n").replace(b"\n", end or b"\n") + end
    found, tables = read(report_of(tmp_path, {"jobs": text}), tmp_path)
    assert found.kept == {"jobs": 2}
    assert tables["jobs"]["id"].to_pylist() == [1, 2]
    nothing, _ = read(report_of(tmp_path, {"jobs": table("jobs", [], header=header)}), tmp_path)
    assert nothing.kept == {"jobs": 0}


BAD_ROWS: dict[str, tuple[tuple[object, ...], str]] = {
    "NaN": ((7, "core", "n", "NaN"), "value is 'NaN' and not a number from 0 to 1e+20"),
    "too large": ((7, "core", "n", "1e400"), "value is '1e400' and not a number from 0 to 1e+20"),
    "absurd": ((7, "core", "n", "1e21"), "value is '1e21' and not a number from 0 to 1e+20"),
    "long": ((7, "core", "n" * 4097, "1"), "name is 'nnnn"),
    "negative": ((7, "core", "n", "-1.0"), "value is '-1.0' and not a number from 0 to 1e+20"),
    "no number": ((7, "core", "n", "many"), "value is 'many' and not a number from 0 to 1e+20"),
    "empty": ((7, "core", "n", ""), "value is '' and not a number from 0 to 1e+20"),
    "no id": (("x", "core", "n", "1"), "job_id is 'x' and not a whole number"),
    "hexadecimal": (("0x10", "core", "n", "1"), "job_id is '0x10' and not a whole number"),
    "negative id": ((-7, "core", "n", "1"), "job_id is '-7' and not a whole number"),
    "large id": ((10**18, "core", "n", "1"), "job_id is '1000000000000000000' and not a whole number"),
    "larger id": ((10**30, "core", "n", "1"), "job_id is '1000000000000000000000000000000' and not a whole number"),
    "NUL": ((7, "co\0re", "n", "1"), "plugin is 'co\\x00re' and not text"),
    "too few": ((7, "core", "n"), "its number of columns is 3 instead of 4"),
    "too many": ((7, "core", "n", "1", "2"), "its number of columns is 5 instead of 4"),
    "a line's end": ((7, "co\rre", "n", "1"), "a carriage return is within it"),
    "nothing": ((), "its number of columns is 1 instead of 4"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("place", [0, 3, 60_000, 250_000])
def test_a_bad_row_is_rejected_with_its_line_and_cause_and_all_others_are_kept(
    tmp_path: Path, name: str, place: int
) -> None:
    bad, cause = BAD_ROWS[name]
    good = [(number, "core", "runtime_seconds", f"{number}.0000000") for number in range(max(200, place + 1))]
    lines = [*good[:place], bad, *good[place:]]
    lines.insert(150, (8, "too few before or after it"))
    found, tables = read(report_of(tmp_path, {"metric_num": table("metric_num", lines)}), tmp_path)
    assert found.rejected == {"metric_num": 2}
    [line, _] = sorted([1 + 1 + lines.index(bad), 1 + 1 + 150], key=lambda each: each == 152)
    [reject] = [each for each in found.rejects if each.line == line]
    assert reject.cause.startswith(cause)
    assert reject.text == "\t".join(map(str, bad))[:200]
    assert tables["metric_num"]["job_id"].to_pylist() == [each[0] for each in good]
    assert tables["metric_num"]["value"].to_pylist() == [float(each[0]) for each in good]


def test_bytes_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    good = table("metric_num", [(number, "core", "n", 1) for number in range(200)])
    found, tables = read(report_of(tmp_path, {"metric_num": good + b"7\tco\xffre\tn\t1\n"}), tmp_path)
    [reject] = found.rejects
    assert (reject.line, reject.text) == (202, "7\tco\\xffre\tn\t1")
    assert tables["metric_num"].num_rows == 200


def test_quotes_are_text_like_any_other(tmp_path: Path) -> None:
    jobs = table(
        "jobs", [(1, '"cat', "1.0", "ok", "2026-01-01 00:00:00"), (2, 'd"og', "", "ok", "2026-01-01 00:00:00")]
    )
    _, tables = read(report_of(tmp_path, {"jobs": jobs}), tmp_path)
    assert tables["jobs"]["tool_id"].to_pylist() == ['"cat', 'd"og']


def test_what_people_gave_their_tools_is_in_no_table(tmp_path: Path) -> None:
    params = table("params", [(1, "password", '"a secret"')])
    report = report_of(tmp_path, {"jobs": JOBS, "params": params}, version=1)
    _, tables = read(report, tmp_path)
    assert tables["params"].to_pylist() == [{"job_id": 1, "name": "password"}]
    assert all(b"a secret" not in path.read_bytes() for path in (tmp_path / "tables").iterdir())


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"2\tpassword\thunter2\tmore", "its number of columns is 4 instead of 3"),
        (b"hunter2", "its number of columns is 1 instead of 3"),
        (b"hunter2\tand\tmore", "job_id is not a whole number"),
        (b"1\thunter2\0\tmore", "name is not text"),
    ],
)
def test_what_people_gave_their_tools_is_told_of_no_bad_row(tmp_path: Path, line: bytes, cause: str) -> None:
    good = table("params", [(number, "name", "1") for number in range(200)])
    found, _ = read(report_of(tmp_path, {"params": good + line + b"\n"}, version=1), tmp_path)
    [reject] = found.rejects
    assert (reject.member, reject.line, reject.text) == ("params", 202, "") and reject.cause.startswith(cause)
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("lines", [b"password\thunter2\tx\n1\tname\t1\n", b"1\thunter2\n" * 9, b"hunter2\n" * 9])
def test_what_people_gave_their_tools_is_told_in_no_quarantine(tmp_path: Path, lines: bytes) -> None:
    fault = fault_of(report_of(tmp_path, {"params": lines}, version=1), tmp_path)
    assert fault.quarantine.member == "params" and "hunter2" not in str(fault)


def test_more_than_one_bad_row_in_a_hundred_is_too_much(tmp_path: Path) -> None:
    def metrics(bad: int) -> bytes:
        rows = [(number, "core", "n", 1) for number in range(500 - bad)]
        return table("metric_num", [*rows, *[("x", "core", "n", 1)] * bad])

    assert read(report_of(tmp_path, {"metric_num": metrics(5)}), tmp_path)[0].rejected == {"metric_num": 5}
    fault = fault_of(report_of(tmp_path, {"metric_num": metrics(6)}), tmp_path)
    assert (fault.quarantine.member, fault.quarantine.line) == ("metric_num", 496)
    assert str(fault).startswith("6 of 500 rows are unusable, the first as job_id is 'x'")


def test_a_flood_of_bad_rows_is_not_read_to_its_end(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"metric_num": b"1\t\t\t\n" + b"x\t\t\t\n" * 3_000_000})
    fault = fault_of(report, tmp_path, limits=Limits(ratio=10_000))
    assert int(fault.quarantine.what.split()[0].replace(",", "")) < 2_500_000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"name\tjob_id\n1\ta\n", "The columns are 'name\\tjob_id' instead of job_id, plugin, name, value"),
        (b"<html>not here</html>\n", "The columns are '<html>not here</html>' instead of"),
    ],
)
def test_columns_that_are_others_are_refused(tmp_path: Path, text: bytes, found: str) -> None:
    fault = fault_of(report_of(tmp_path, {"metric_num": text}), tmp_path)
    assert (fault.quarantine.member, fault.quarantine.line) == ("metric_num", 1)
    assert fault.quarantine.what.startswith(found)


@pytest.mark.parametrize("more", [0, 1])
def test_a_line_has_eight_mebibytes_at_most(tmp_path: Path, more: int) -> None:
    rest = len(b"2\tcore\t\t1")
    name = b"n" * (LONGEST_LINE - rest + more)
    text = table("metric_num", [(1, "core", "n", 1)]) + b"2\tcore\t" + name + b"\t1\n3\tcore\tn\t1\n"
    report = report_of(tmp_path, {"metric_num": text})
    if more:
        assert "A line has more than 8,388,608 bytes" in fault_of(report, tmp_path).quarantine.what
    else:
        what = fault_of(report, tmp_path).quarantine.what
        assert "and not text in UTF-8 of at most 4,096 bytes" in what


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    text = (
        table("metric_num", [(1, "core", "n", 1)]) + b"2\tcore\t" + random.Random(1).randbytes(9 << 20).hex().encode()
    )
    fault = fault_of(report_of(tmp_path, {"metric_num": text}), tmp_path)
    assert "A line has more than" in fault.quarantine.what
    assert fault.quarantine.member == "metric_num"


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(header, field, value)
    return header


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ([("jobs", JOBS), ("jobs", JOBS)], "two members of one kind"),
        ([(member("1.jobs.tsv", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")], "which is no plain file"),
        ([(member("1.jobs.tsv", type=tarfile.LNKTYPE, linkname="x"), b"")], "which is no plain file"),
        ([(member("1.jobs.tsv", type=tarfile.FIFOTYPE), b"")], "which is no plain file"),
        ([(member("srv", type=tarfile.DIRTYPE), b"")], "which is no plain file"),
        ([(f"other_{number}", b"") for number in range(101)], "more than 100 members"),
        ([(member("a" * 70_000), b"")], "a header of 70"),
        ([(member("1.jobs.tsv", type=tarfile.GNUTYPE_SPARSE), b"")], "which is no plain file"),
        ([(member("1.jobs.tsv", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), JOBS)], "no plain"),
        ([(member("other", pax_headers={"size": "-1"}), b"")], "a member of -1 bytes"),
        ([("metric_num", METRICS)], "The jobs are not those that the metadata count ('error': 0 instead of 1"),
        ([], "The jobs are not those that the metadata count"),
    ],
)
def test_an_archive_that_holds_something_else_is_refused(
    tmp_path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], what: str
) -> None:
    assert what in str(fault_of(report_of(tmp_path, packed(members)), tmp_path))


@pytest.mark.parametrize(
    "name", ["../../jobs/1.5.jobs.tsv", "/etc/1.5.jobs.tsv", "1.5.jobs.tsv", "é/" * 90 + "1.jobs.tsv"]
)
def test_members_are_known_by_their_last_name_and_written_nowhere_else(tmp_path: Path, name: str) -> None:
    archive = packed([(member(name), JOBS), ("readme", b"ignored"), (member("../../outside.txt"), b"x")])
    found, _ = read(report_of(tmp_path, archive), tmp_path)
    assert found.kept == {"jobs": 3}
    assert {path.name for path in tmp_path.rglob("*")} == {"1.5.tar.gz", "tables", "jobs.parquet"}
    assert not list(tmp_path.parent.glob("outside*"))


@pytest.mark.parametrize(
    ("jobs", "told"), [({"ok": 3}, "'error': 1 instead of 0, 'ok': 2 instead of 3"), ({}, "'ok': 2")]
)
def test_other_jobs_than_the_metadata_count_are_refused(tmp_path: Path, jobs: dict[str, int], told: str) -> None:
    fault = fault_of(report_of(tmp_path, {"jobs": JOBS}, jobs=jobs), tmp_path)
    assert told in fault.quarantine.what
    assert fault.quarantine.member == "jobs"


def test_rejected_jobs_may_be_of_any_state_or_not_counted_at_all(tmp_path: Path) -> None:
    """Exporters of old began a line, and neither ended nor counted it, where a job's tool has no version."""
    rows = [(number, "cat", "1.0", "ok", "2026-01-01 00:00:00") for number in range(200)]
    jobs = table("jobs", [*rows, ("x", "cat", "1.0", "error", "2026-01-01 00:00:00")])
    for counted in ({"ok": 200, "error": 1}, {"ok": 200}, {"ok": 201}):
        found, _ = read(report_of(tmp_path, {"jobs": jobs}, jobs=counted), tmp_path)
        assert (found.kept, found.rejected) == ({"jobs": 200}, {"jobs": 1})
    for counted in ({"ok": 200, "error": 2}, {"ok": 199, "error": 1}):
        fault = fault_of(report_of(tmp_path, {"jobs": jobs}, jobs=counted), tmp_path)
        assert fault.quarantine.member == "jobs"


def test_a_fault_is_told_in_few_words_whatever_the_archive_holds(tmp_path: Path) -> None:
    rows = [(number, "cat", "1.0", f"{number}" * 20, "2026-01-01 00:00:00") for number in range(200_000)]
    fault = fault_of(report_of(tmp_path, {"jobs": table("jobs", rows)}, jobs={"ok": 200_000}), tmp_path)
    assert len(str(fault)) < 1000


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    bomb = report_of(tmp_path, {"jobs": JOBS, "params": b"1\tname\tvalue\n" * (12 << 20)})
    assert bomb.archive.stat().st_size < 500_000
    assert "more than 100 times as large" in str(fault_of(bomb, tmp_path))
    ignored = report_of(tmp_path, packed([("jobs", JOBS), ("other", bytes(180 << 20))]))
    assert "more than 100 times as large" in str(fault_of(ignored, tmp_path))
    long = report_of(tmp_path, {"jobs": JOBS, "params": table("params", [(1, "name", "value")] * 100_000)})
    assert "more than 1,000,000 bytes" in str(fault_of(long, tmp_path, limits=Limits(unpacked_bytes=1_000_000)))


def small_report(folder: Path) -> Report:
    """All kinds of members, and text that does not pack to nothing."""
    random_numbers = random.Random(1)
    metrics = [
        (1 + number % 3, "core", f"m{number}", f"{random_numbers.randrange(10**9)}.0000000") for number in range(9000)
    ]
    members = {
        "jobs": JOBS,
        "metric_num": table("metric_num", metrics),
        "metric_txt": table("metric_txt", [(1, "core", "host", "a")]),
        "params": table("params", [(1, "n", '"v"')]),
        "datasets": table("datasets", [(1, 1, "txt", 5, "input", "input")]),
    }
    return report_of(folder, members)


def test_a_damaged_archive_is_refused_whatever_its_digest(tmp_path: Path) -> None:
    """Truncated at every 4 kB, and with 500 single bits flipped: the digest is that of the damaged bytes."""
    report = small_report(tmp_path)
    whole = report.archive.read_bytes()
    expected = read(report, tmp_path)
    chance = random.Random(2)
    damaged = [whole[:length] for length in (*range(0, len(whole), 4096), *range(len(whole) - 12, len(whole)))]
    for _ in range(500):
        place = chance.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
    assert len(whole) > 40_000
    refused = 0
    for content in damaged:
        given = report_of(tmp_path, content)
        assert "not the one of its metadata" in str(fault_of(Report(given.archive, report.metadata), tmp_path)), (
            "the digest alone tells"
        )
        try:
            assert read(given, tmp_path) == expected, "what is not refused is what it was: only gzip's header differs"
        except ArchiveFault:
            refused += 1
    assert refused >= len(damaged) - 10


@pytest.mark.parametrize("size", [1 << 44, 1 << 60])
@pytest.mark.parametrize("name", ["other", "1.jobs.tsv"])
def test_a_member_that_only_claims_to_be_large_is_refused_at_once(tmp_path: Path, name: str, size: int) -> None:
    header = member(name)
    header.size = size
    archive = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert f"a member of {size:,} bytes" in str(fault_of(report_of(tmp_path, archive), tmp_path))


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_headers_are_refused(tmp_path: Path, type: bytes) -> None:
    header = member("././@LongLink", type=type)
    archive = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * 2000 + bytes(1024))
    assert str(fault_of(report_of(tmp_path, archive), tmp_path))


def test_what_macos_adds_is_not_read(tmp_path: Path) -> None:
    archive = packed([(member("srv/._1.5.jobs.tsv"), b"Mac OS X"), ("jobs", JOBS)])
    assert read(report_of(tmp_path, archive), tmp_path)[0].kept == {"jobs": 3}


def test_words_of_rejected_rows_are_in_no_table(tmp_path: Path) -> None:
    rows = [(number, "core", "n", 1) for number in range(200)]
    metrics = table("metric_num", [*rows, (1, "a secret", "n", "NaN")])
    assert read(report_of(tmp_path, {"metric_num": metrics}), tmp_path)[0].rejected == {"metric_num": 1}
    assert b"a secret" not in (tmp_path / "tables" / "metric_num.parquet").read_bytes()


def test_many_days_that_do_not_exist_are_told(tmp_path: Path) -> None:
    rows = [(number, "cat", "1.0", "ok", "2026-02-30 00:00:00") for number in range(120_000)]
    fault = fault_of(report_of(tmp_path, {"jobs": table("jobs", rows)}), tmp_path)
    assert "the first as create_time is '2026-02-30 00:00:00' and not a time" in str(fault)


def test_what_follows_the_end_is_refused(tmp_path: Path) -> None:
    whole = packed([("jobs", JOBS)])
    for more in (b"something else", whole):
        assert str(fault_of(report_of(tmp_path, whole + more), tmp_path))
    zeros = report_of(tmp_path, whole + bytes(100))
    assert read(zeros, tmp_path)[0].kept == {"jobs": 3}, "as tapes are filled up"


NUMBERS = st.text(st.sampled_from("0123456789+-.eE xnaifNI"), max_size=12)


@given(value=NUMBERS, id=NUMBERS, time=st.text(st.sampled_from("0123456789-: .TZ"), max_size=27))
@example(value="1e400", id="0x10", time="2026-02-30 00:00:00")
@example(value=" 5", id=" 5", time="2026-01-01")
@example(value="+5", id="+5", time="2026-01-01T00:00:00")
@example(value="5.", id="007", time="2026-13-01 00:00:00")
@example(value="-0", id="-0", time="2026-01-01 00:00:00.1234567")
def test_a_row_is_taken_or_not_whatever_stands_beside_it(value: str, id: str, time: str) -> None:
    """What is beside a bad row is read another way, for that way tells what is bad."""
    for name, row in (("metric_num", (id, "core", "n", value)), ("jobs", (id, "cat", "1.0", "ok", time))):
        text = table(name, [row])
        alone = Reading(MEMBERS[name])
        [first] = read_rows(Content(io.BytesIO(text)), alone)
        for bad in (b"too few\t\n", table(name, [["bad"] * len(row)], header=False)):
            beside = Reading(MEMBERS[name])
            [second] = read_rows(Content(io.BytesIO(text + bad)), beside)
            assert second.to_pylist() == first.to_pylist()
            assert (beside.kept, beside.rejected) == (alone.kept, alone.rejected + 1)
        if name == "metric_num" and alone.kept:
            assert first.to_pylist()[0]["value"] == float(value) >= 0
            assert first.to_pylist()[0]["job_id"] == int(id)


@given(text=st.binary(max_size=200))
@example(text=b"1\t\xff\n")
@example(text=b"1\t2\t3\t4\r5\n")
@example(text=b"\n\n")
@example(text=b"\xef\xbb\xbf7\tcore\tn\t1\n")
@example(text=b"\xef\xbb\xbfjob_id\tplugin\tname\tvalue\n")
def test_any_bytes_are_read_or_refused_and_no_line_is_lost(text: bytes) -> None:
    for start in (b"", b"job_id\tplugin\tname\tvalue\n"):
        reading = Reading(METRIC_NUM)
        with suppress(ArchiveFault):
            batches = list(read_rows(Content(io.BytesIO(start + text)), reading))
            lines = text.split(b"\n")
            assert reading.kept + reading.rejected == len(lines) - (not lines[-1])
            assert sum(batch.num_rows for batch in batches) == reading.kept
