"""`bench ingest` at its smallest scale: what it measures is there, its memory within its limit, no process started."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import ingest
from benchmarks.job_logs import ROWS_PER_JOB, write_archive
from benchmarks.postgresql import connect, copy_archive, make_tables, running_server, server_programs
from knockem_dagster.joblogs.report import read_report
from knockem_dagster.joblogs.report_metadata import read_metadata
from tests.services.joblogs import REAL, real_report


def test_the_smallest_scale_measures_speed_and_memory() -> None:
    measured = {each.name: each for each in ingest.run(0.001, 1)}
    assert measured["the same, in a round"].reference_value == ingest.LEAST_RATIO
    assert measured["archive to Parquet, checked"].value > 0
    assert measured["whole ingest"].value > 0
    assert ("whole ingest, in a round" in measured) == (server_programs() is not None)
    assert measured[f"processes started for {ingest.FEWEST_ARCHIVES}"].value == 0
    peaks = {name: each for name, each in measured.items() if "peak memory" in name and each.reference == "limit"}
    names = " ".join(peaks)
    assert "peak memory of reading at" in names and "peak memory of whole ingest at" in names
    assert ("peak memory of whole ingest and copy at" in names) == (server_programs() is not None)
    assert "whole ingest: peak memory" in names
    assert all(each.value < each.reference_value == ingest.MOST_MEMORY_MB for each in peaks.values())


@pytest.mark.skipif(server_programs() is None, reason="no PostgreSQL server on this machine")
def test_the_server_takes_what_the_exporter_writes() -> None:
    programs = server_programs()
    assert programs is not None
    [archive] = [archive for archive in REAL if real_report(archive).metadata.version == 3]
    with running_server(programs) as server, closing(connect(server)) as connection:
        make_tables(server)
        rows = copy_archive(connection, archive)
        with connection.cursor() as cursor:
            numbers: list[int] = []
            for table in ("jobs", "metric_num", "datasets"):
                cursor.execute(f"SELECT count(*) FROM {table}")
                numbers += cursor.fetchone() or ()
    assert numbers[0] == sum(real_report(archive).metadata.jobs.values())
    assert sum(numbers) == rows


def test_archives_of_the_benchmark_are_read_whole(tmp_path: Path) -> None:
    archive, metadata = write_archive(tmp_path, 12_345, seed=1)
    (tmp_path / "tables").mkdir()
    found = read_report(archive, read_metadata(metadata.read_bytes()), tmp_path / "tables")
    assert sum(found.kept.values()) == 12_345 * ROWS_PER_JOB
    assert not any(found.rejected.values())
