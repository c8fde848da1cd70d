"""What reading job logs costs: an archive of 200,000 jobs to Parquet, beside the fastest pipeline of one library.

Ours is the whole way: the digest of the archive, its unpacking with all limits, the check of every row, the rejects,
the counts of states against the metadata, and one Parquet file a member. The other unpacks with isal and lets polars
go from text to Parquet, and checks nothing. Each runs in a process of its own, imports excluded; rounds are in turns,
and the ratio is the median of those within a round. Then the memory at three sizes: it is not to grow with the rows.

    python -m benchmarks.ingest [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import multiprocessing
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars
from isal import igzip
from numpy.random import default_rng

from benchmarks.job_logs import ROWS_PER_JOB, write_archive
from benchmarks.measurement import Measurement, command
from knockem_dagster.joblogs.report import read_report
from knockem_dagster.joblogs.report_metadata import read_metadata

JOBS = 200_000
FEWEST_JOBS = 5_000
ROUNDS = 7
FEWEST_ROUNDS = 3
LEAST_RATIO = 0.7
MOST_MEMORY_MB = 512
SIZES = (10**5, 10**6, 10**7)
"""Rows of archives whose reading may take no more memory the larger they are."""


@dataclass(frozen=True, slots=True)
class _Taken:
    seconds: float
    peak_mb: float
    rows: int


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure an archive of `scale` times 200,000 jobs, and memory up to `scale` times 10^7 rows."""
    jobs = max(FEWEST_JOBS, round(JOBS * scale))
    rounds = max(FEWEST_ROUNDS, round(ROUNDS * min(1.0, scale)))
    rng = default_rng(seed)
    contestants = (_ours, _polars)
    taken: dict[str, list[_Taken]] = {each.__name__: [] for each in contestants}
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        archive, metadata = write_archive(Path(folder), jobs, seed=seed)
        for _ in range(rounds):
            for place in rng.permutation(len(contestants)):
                contestant = contestants[place]
                taken[contestant.__name__].append(_alone(contestant, archive, metadata))
    ours, theirs = taken["_ours"], taken["_polars"]
    rows = ours[0].rows
    ratio = statistics.median(other.seconds / mine.seconds for mine, other in zip(ours, theirs, strict=True))
    sizes = [size for size in SIZES if size <= max(SIZES[0], scale * SIZES[-1])]
    smallest, *larger = [_alone_at(size, seed) for size in sizes]
    return [
        Measurement("archive to Parquet, checked", rows / _median(ours), "rows/s", rounds, "isal and polars, unchecked",
                    rows / _median(theirs)),
        Measurement("the same, in a round", ratio, "ratio", rounds, "at least", LEAST_RATIO),
        Measurement("peak memory", max(each.peak_mb for each in ours), "MB", rounds, "isal and polars",
                    max(each.peak_mb for each in theirs)),
        *(Measurement(f"peak memory at {each.rows:,} rows", each.peak_mb, "MB", 1, "limit", MOST_MEMORY_MB)
          for each in (smallest, *larger)),
        *(Measurement(f"peak memory at {each.rows:,} rows", each.peak_mb, "MB", 1, f"at {smallest.rows:,}",
                      smallest.peak_mb)
          for each in larger),
    ]  # fmt: skip


def _median(taken: list[_Taken]) -> float:
    return statistics.median(each.seconds for each in taken)


def _alone(contestant: Callable[[Path, Path], _Taken], archive: Path, metadata: Path) -> _Taken:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(contestant, archive, metadata).result()


def _alone_at(rows: int, seed: int) -> _Taken:
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        return _alone(_ours, *write_archive(Path(folder), rows // ROWS_PER_JOB, seed=seed))


def _peak_mb() -> float:
    # The system's other figure, ru_maxrss, begins with what the process had that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _ours(archive: Path, metadata: Path) -> _Taken:
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        began = time.perf_counter()
        found = read_report(archive, read_metadata(metadata.read_bytes()), Path(folder))
        return _Taken(time.perf_counter() - began, _peak_mb(), sum(found.kept.values()))


def _polars(archive: Path, metadata: Path) -> _Taken:
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        began = time.perf_counter()
        members: list[Path] = []
        with igzip.open(archive, "rb") as packed, tarfile.open(fileobj=packed, mode="r|", bufsize=1 << 20) as unpacked:
            for number, header in enumerate(unpacked):
                members.append(Path(folder) / f"{number}.tsv")
                content = unpacked.extractfile(header)
                assert content is not None
                with members[-1].open("wb") as out:
                    while text := content.read(1 << 20):
                        out.write(text)
        for text in members:
            rows = polars.scan_csv(text, separator="\t", quote_char=None)
            rows.sink_parquet(text.with_suffix(".parquet"), compression="zstd")
        return _Taken(time.perf_counter() - began, _peak_mb(), 0)


if __name__ == "__main__":
    command(run, about=__doc__, title="bench ingest")
