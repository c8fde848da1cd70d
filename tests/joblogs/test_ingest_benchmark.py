"""`bench ingest` at its smallest scale: what it measures is there, and the memory is within its limit."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ingest
from benchmarks.job_logs import ROWS_PER_JOB, write_archive
from knockem_dagster.joblogs.report import read_report
from knockem_dagster.joblogs.report_metadata import read_metadata


def test_the_smallest_scale_measures_speed_and_memory() -> None:
    measured = {each.name: each for each in ingest.run(0.001, 1)}
    assert measured["the same, in a round"].reference_value == ingest.LEAST_RATIO
    assert measured["archive to Parquet, checked"].value > 0
    [name] = [name for name in measured if name.startswith("peak memory at")]
    assert measured[name].value < ingest.MOST_MEMORY_MB
    assert measured[name].reference_value == ingest.MOST_MEMORY_MB


def test_archives_of_the_benchmark_are_read_whole(tmp_path: Path) -> None:
    archive, metadata = write_archive(tmp_path, 12_345, seed=1)
    (tmp_path / "tables").mkdir()
    found = read_report(archive, read_metadata(metadata.read_bytes()), tmp_path / "tables")
    assert sum(found.kept.values()) == 12_345 * ROWS_PER_JOB
    assert not any(found.rejected.values())
