"""What taking job logs in costs: an archive of 200,000 jobs, beside the fastest pipelines of one library.

The first half is reading, to Parquet: the digest of the archive, its unpacking with all limits, the check of every row,
the rejects, the counts of states against the metadata, and one Parquet file a member. Its peer unpacks with isal and
lets polars go from text to Parquet, and checks nothing.

The second is all that `knockem joblogs upload` does in a home of its own: the archive is stored, read as above, a row
for each job is made of it, and the marts, which are then copied to PostgreSQL, too. Its peer unpacks with isal and
copies the members as they are (psycopg2) into tables of the same server, one of this machine, without indices, its
durability as it comes; where none is installed, peer and copy are left out.

Each runs in a process of its own, imports excluded; rounds are in turns, and the ratio is the median of those within a
round. Then many small archives in one process, which starts no other; and the memory at three sizes, of reading, of all
of it, and with the copy: it is not to grow with the rows.

    python -m benchmarks.ingest [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import ParamSpec, TypeVar

import polars
import psutil
from isal import igzip
from numpy.random import Generator, default_rng

from benchmarks.job_logs import ROWS_PER_JOB, write_archive
from benchmarks.measurement import Measurement, command
from benchmarks.platforms import platform_in
from benchmarks.postgresql import address, connect, copy_archive, make_tables, running_server, server_programs
from knockem_dagster.joblogs.instances import local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.report import read_report
from knockem_dagster.joblogs.report_metadata import read_metadata
from knockem_dagster.joblogs.served import ServedMarts
from knockem_dagster.platform import Platform

JOBS = 200_000
FEWEST_JOBS = 5_000
ROUNDS = 7
ROUNDS_OF_SMALLER = 30
"""Times the scale, while those are fewer."""
LEAST_RATIO = 0.7
LEAST_WHOLE_RATIO = 0.6
ARCHIVES = 50
FEWEST_ARCHIVES = 3
JOBS_OF_SMALL = 2_000
MOST_MEMORY_MB = 512
SIZES = (10**5, 10**6, 10**7)
"""Rows of archives that may take no more memory the larger they are."""


Report = tuple[Path, Path]
"""An archive and its metadata."""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Taken:
    seconds: float
    peak_mb: float
    rows: int


@dataclass(frozen=True, slots=True)
class _Many:
    """What many archives took in one process, and the seconds of one of them alone.

    `started`: processes that were started for them; those that ended meanwhile count as one.
    """

    taken: _Taken
    of_one: float
    started: int


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure an archive of `scale` times 200,000 jobs, and memory up to `scale` times 10^7 rows."""
    jobs = max(FEWEST_JOBS, round(JOBS * scale))
    rounds = max(1, min(ROUNDS, round(ROUNDS_OF_SMALLER * scale)))
    rng = default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        archive = write_archive(Path(folder), jobs, seed=seed)
        read, sent = _in_turns([_read, _polars], archive, rounds=rounds, rng=rng)
        whole = _measure_whole(archive, rounds=rounds, rng=rng)
    ratio = _ratio(read, sent)
    sizes = [size for size in SIZES if size <= max(SIZES[0], scale * SIZES[-1])]
    peaks = _measure_peaks(sizes, seed)
    return [
        Measurement("archive to Parquet, checked", _rate(read), "rows/s", rounds, "isal and polars, unchecked",
                    read[0].rows / _median(sent)),
        Measurement("the same, in a round", ratio, "ratio", rounds, "at least", LEAST_RATIO),
        Measurement("peak memory", max(each.peak_mb for each in read), "MB", rounds, "isal and polars",
                    max(each.peak_mb for each in sent)),
        *whole,
        *_measure_many(max(FEWEST_ARCHIVES, round(ARCHIVES * min(1.0, scale))), seed),
        *peaks,
    ]  # fmt: skip


def _measure_peaks(sizes: Sequence[int], seed: int) -> list[Measurement]:
    """Measure the memory at these sizes, beside the limit, and of the larger ones beside that of the smallest."""
    programs = server_programs()
    with ExitStack() as open_till_then:
        contestants: dict[str, Callable[[Path, Path], _Taken]] = {"reading": _read, "whole ingest": _whole}
        if programs is not None:
            server = open_till_then.enter_context(running_server(programs))
            contestants["whole ingest and copy"] = partial(_whole, server=server)
        taken: dict[str, list[_Taken]] = {name: [] for name in contestants}
        for size in sizes:
            folder = open_till_then.enter_context(tempfile.TemporaryDirectory(prefix="knockem-bench-"))
            archive = write_archive(Path(folder), size // ROWS_PER_JOB, seed=seed)
            for name, contestant in contestants.items():
                taken[name].append(_alone(contestant, *archive))
    named = [(f"peak memory of {name}", each, of) for name, of in taken.items() for each in of]
    return [
        *(Measurement(f"{name} at {each.rows:,} rows", each.peak_mb, "MB", 1, "limit", MOST_MEMORY_MB)
          for name, each, _ in named),
        *(Measurement(f"{name} at {each.rows:,} rows", each.peak_mb, "MB", 1, f"at {of[0].rows:,}", of[0].peak_mb)
          for name, each, of in named if each is not of[0]),
    ]  # fmt: skip


def _measure_whole(archive: Report, *, rounds: int, rng: Generator) -> list[Measurement]:
    programs = server_programs()
    if programs is None:
        [whole] = _in_turns([_whole], archive, rounds=rounds, rng=rng)
        return [Measurement("whole ingest", _rate(whole), "rows/s", rounds), _peak("whole ingest", whole)]
    with running_server(programs) as server:
        contestants = [_whole, partial(_whole, server=server), partial(_copied, server=server)]
        whole, served, copied = _in_turns(contestants, archive, rounds=rounds, rng=rng)
    return [
        measurement
        for name, ours in {"whole ingest": whole, "and the copy of its marts": served}.items()
        for measurement in (
            Measurement(name, _rate(ours), "rows/s", rounds, "isal and psycopg2 COPY, unchecked", _rate(copied)),
            Measurement(f"{name}, in a round", _ratio(ours, copied), "ratio", rounds, "at least", LEAST_WHOLE_RATIO),
            _peak(name, ours),
        )
    ]


def _peak(name: str, taken: Sequence[_Taken]) -> Measurement:
    most = max(each.peak_mb for each in taken)
    return Measurement(f"{name}: peak memory", most, "MB", len(taken), "limit", MOST_MEMORY_MB)


def _measure_many(number: int, seed: int) -> list[Measurement]:
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        archives: list[Report] = []
        for place in range(number):
            own = Path(folder) / str(place)
            own.mkdir()
            first_id = 1 + place * JOBS_OF_SMALL
            archives.append(write_archive(own, JOBS_OF_SMALL, seed=seed + place, first_id=first_id))
        many = _alone(_many, archives)
    of = f"{number} archives of {JOBS_OF_SMALL:,} jobs in one process"
    return [
        Measurement(of, many.taken.rows / many.taken.seconds, "rows/s", 1),
        Measurement(f"each of {number}", many.taken.seconds / number, "s", number, "one alone, there", many.of_one),
        Measurement(f"processes started for {number}", many.started, "processes", 1, "limit", 0),
    ]


def _in_turns(
    contestants: Sequence[Callable[[Path, Path], _Taken]], archive: Report, *, rounds: int, rng: Generator
) -> list[list[_Taken]]:
    """Return what each contestant took in each round."""
    taken: list[list[_Taken]] = [[] for _ in contestants]
    for _ in range(rounds):
        for place in rng.permutation(len(contestants)):
            os.sync()  # what one left to be written is not written while another is measured
            taken[place].append(_alone(contestants[place], *archive))
    return taken


def _ratio(ours: Sequence[_Taken], theirs: Sequence[_Taken]) -> float:
    return statistics.median(other.seconds / mine.seconds for mine, other in zip(ours, theirs, strict=True))


def _rate(taken: Sequence[_Taken]) -> float:
    return taken[0].rows / _median(taken)


def _median(taken: Sequence[_Taken]) -> float:
    return statistics.median(each.seconds for each in taken)


def _alone(contestant: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(contestant, *given, **named).result()


def _peak_mb() -> float:
    # The system's other figure, ru_maxrss, begins with what the process had that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _read(archive: Path, metadata: Path) -> _Taken:
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


def _whole(archive: Path, metadata: Path, *, server: Path | None = None) -> _Taken:
    """Take an archive in; its marts are copied to a server, if there is one."""
    served = ServedMarts(address(server), "knockem_bench") if server is not None else None
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as home, platform_in(Path(home)) as platform:
        began = time.perf_counter()
        rows = _upload(platform, "bench", [(archive, metadata)], served)
        taken = _Taken(time.perf_counter() - began, _peak_mb(), rows)
        if server is not None:
            make_tables(server)
        return taken


def _copied(archive: Path, metadata: Path, *, server: Path) -> _Taken:
    make_tables(server)
    with closing(connect(server)) as connection:
        began = time.perf_counter()
        rows = copy_archive(connection, archive)
        taken = _Taken(time.perf_counter() - began, _peak_mb(), rows)
    make_tables(server)
    return taken


def _many(archives: Sequence[Report]) -> _Many:
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as home, platform_in(Path(home)) as platform:
        _upload(platform, "first", archives[:1])  # so that whatever is done once in a process is done
        began = time.perf_counter()
        _upload(platform, "one", archives[:1])
        one = time.perf_counter() - began
        before = _faults_of_ended()
        began = time.perf_counter()
        rows = _upload(platform, "many", archives)
        taken = _Taken(time.perf_counter() - began, _peak_mb(), rows)
        has_ended = _faults_of_ended() > before
        return _Many(taken, one, has_ended + len(psutil.Process().children()))


def _upload(platform: Platform, name: str, archives: Sequence[Report], served: ServedMarts | None = None) -> int:
    """Take archives in as `knockem joblogs upload` does; return the number of their rows."""
    instance = local_instance(platform.records, name).id
    ledger = Ledger(platform.records, platform.objects)
    for number, (archive, metadata) in enumerate(archives):
        ledger.read(ledger.receive(instance, str(number), archive, metadata.read_bytes()))
    Marts(platform.records, platform.objects, served).refresh(instance)
    return sum(sum(report.kept.values()) for report in ledger.in_use(instance))


def _faults_of_ended() -> int:
    """Return the page faults of all processes that this one started and that have ended: each had some."""
    return getrusage(RUSAGE_CHILDREN).ru_minflt


if __name__ == "__main__":
    command(run, about=__doc__, title="bench ingest")
