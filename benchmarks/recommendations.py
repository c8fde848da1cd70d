"""What it costs to follow the recommended memory, beside published ways to size a job: on the later 30% of the jobs.

Each way sees the earlier 70% of a tool's jobs, in the order of their creation, and gives those that follow their
memory: by the jobs of their version, or of all where these are fewer than 20. Counted are GB hours that were allocated
and not used, failed tries included, and the failed tries. The best of the published is the one that wastes least. Four
workloads are made up, of tools whose memory

    sizes     depends on the size of their inputs, in a line or a power, or not at all
    versions  is another in each of two or three versions, which are in use at the same time
    capped    was cut off by the site's limit in 3 to 20% of the earlier jobs; the later ones are told what they needed
    modes     depends on nothing that is known, and is four times as much, or anything, in some of the jobs

and one is the archive of 1,970 jobs in tests/data/joblogs, which Galaxy's own exporter wrote over a made-up job table.

    python -m benchmarks.recommendations [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.measurement import Measurement, command
from knockem_dagster.joblogs.job_resources import NAME, write_job_resources
from knockem_dagster.joblogs.report import read_report
from knockem_dagster.joblogs.report_metadata import read_metadata
from knockem_dagster.joblogs.sizing.chosen import FEWEST, chosen
from knockem_dagster.joblogs.sizing.history import Bools, Floats, History
from knockem_dagster.joblogs.sizing.published import PUBLISHED
from knockem_dagster.joblogs.sizing.rule import NOTHING, Cost, Rule, cost

TOOLS = 40
EARLIER = 0.7
MOST_JOBS = 800
GB = 1e9
_ARCHIVE = "2682d42c-a922-5412-90a0-ccba9e740b60/archives/0.tar.gz"
_ARCHIVES = Path(__file__).parents[1] / "tests" / "data" / "joblogs"


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs of a tool, the oldest first: what is known of them, the peaks they would have had, and their versions.

    Those whose peak is NaN, since nobody knows it, are not judged.
    """

    known: History
    peaks: Floats
    versions: Floats

    def later(self, number: int, wanted: Bools) -> History:
        """Return the jobs from `number` on, where `wanted`, with the peaks that they would have had."""
        part = self.known.part(number, len(self.known))
        truly = History(part.sizes, self.peaks[number:], part.runtimes, np.zeros(len(part), dtype=bool))
        return truly.of(wanted & ~np.isnan(truly.peaks))


def run(scale: float, seed: int) -> list[Measurement]:
    """Compare on the real archive, and on workloads of `scale` times 40 tools, at least 10."""
    measured: list[Measurement] = []
    workloads = {name: _workload(name, max(10, round(TOOLS * scale)), seed) for name in _KINDS}
    for name, jobs in {**workloads, "real archive": list(_real())}.items():
        measured += _compare(name, jobs)
    return measured


def costs(workload: list[Jobs]) -> dict[str, Cost]:
    """Return what the later jobs cost, by the way their memory was found."""
    ways: dict[str, Callable[[History], Rule]] = {**PUBLISHED, "chosen": lambda history: chosen(history).rule}
    found = dict.fromkeys(ways, NOTHING)
    for jobs in workload:
        number = round(EARLIER * len(jobs.known))
        earlier, versions = jobs.known.part(0, number), jobs.versions[number:]
        if number < FEWEST:
            continue
        for name, way in ways.items():
            whole = way(earlier)
            for version in np.unique(versions):
                own = earlier.of(jobs.versions[:number] == version)
                rule = way(own) if len(own) >= FEWEST else whole
                found[name] += cost(rule, jobs.later(number, versions == version))
    return found


def best_published(found: dict[str, Cost]) -> str:
    """Return the published way that wastes least."""
    return min(PUBLISHED, key=lambda name: found[name].wasted_gb_hours)


def _compare(name: str, workload: list[Jobs]) -> list[Measurement]:
    found = costs(workload)
    best, ours = best_published(found), found["chosen"]
    theirs = found[best]
    measured = [
        Measurement(f"{name}: wasted", ours.wasted_gb_hours, "GB h", ours.jobs, best, theirs.wasted_gb_hours),
        Measurement(f"{name}: failed tries", ours.failed_tries, "", ours.jobs, best, theirs.failed_tries),
    ]
    for other, its in found.items():
        if other not in {best, "chosen"}:
            measured.append(Measurement(f"{name}: wasted by {other}", its.wasted_gb_hours, "GB h", its.jobs))
            measured.append(Measurement(f"{name}: failed tries by {other}", its.failed_tries, "", its.jobs))
    return measured


_KINDS: dict[str, list[str]] = {
    "sizes": ["line", "line", "power", "flat"],
    "versions": ["line", "flat", "tail"],
    "capped": ["tail", "line", "power"],
    "modes": ["modes", "tail"],
}


def _workload(name: str, tools: int, seed: int) -> list[Jobs]:
    rng = default_rng([seed, list(_KINDS).index(name)])
    return [_tool(name, rng) for _ in range(tools)]


def _tool(name: str, rng: Generator) -> Jobs:
    number = min(MOST_JOBS, round(25 + 40 * rng.pareto(0.8)))
    versions = rng.integers(0, rng.integers(2, 4), number) if name == "versions" else np.zeros(number, dtype=int)
    sizes, peaks, runtimes = np.empty(number), np.empty(number), np.empty(number)
    for version in np.unique(versions):
        own = versions == version
        sizes[own], peaks[own], runtimes[own] = _jobs(str(rng.choice(_KINDS[name])), int(own.sum()), rng)
    limit = float(np.quantile(peaks, rng.uniform(0.8, 0.97))) if name == "capped" else np.inf
    known = History(sizes, np.minimum(peaks, limit), runtimes, peaks >= limit)
    return Jobs(known, peaks, versions.astype(float))


def _jobs(kind: str, number: int, rng: Generator) -> tuple[Floats, Floats, Floats]:
    """Return sizes, peaks and runtimes of so many jobs."""
    sizes = rng.lognormal(np.log(0.5 * GB), 1.3, number)
    runtimes = rng.lognormal(5.0, 1.0, number)
    base, noise = rng.lognormal(np.log(0.5 * GB), 0.7), rng.lognormal(0.0, rng.uniform(0.08, 0.35), number)
    grown = (1 + sizes / (0.5 * GB)) ** 0.3
    shapes: dict[str, Callable[[], tuple[Floats, Floats]]] = {
        "line": lambda: ((base + rng.uniform(1, 6) * sizes) * noise, runtimes * grown),
        "power": lambda: (
            (0.3 * base + rng.uniform(1, 3) * GB * (sizes / GB) ** rng.uniform(0.4, 0.8)) * noise,
            runtimes * grown,
        ),
        "flat": lambda: (base * noise, runtimes),
        "tail": lambda: (base * rng.lognormal(0.0, 0.9, number), runtimes),
        "modes": lambda: (np.where(rng.random(number) < 0.25, 4 * base, base) * noise, runtimes),
    }
    peaks, took = shapes[kind]()
    return sizes, peaks, took


def _real() -> Iterator[Jobs]:
    """Yield the tools of the real archive. What jobs at their limit would have needed is not known: none is judged."""
    archive = _ARCHIVES / _ARCHIVE
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        read_report(archive, read_metadata(archive.with_name("0.json").read_bytes()), Path(folder))
        write_job_resources(Path(folder))
        jobs = duckdb.read_parquet(f"{folder}/{NAME}.parquet").df()
    usable = (jobs["state"] == "ok") | jobs["is_censored"]
    known = jobs[usable & (jobs["memory_peak"] > 0) & jobs["runtime"].notna()].sort_values(["created", "id"])
    for _, tool in known.groupby("tool_id"):
        sizes, peaks, runtimes = (tool[name].to_numpy(float) for name in ("input_size", "memory_peak", "runtime"))
        history = History(sizes, peaks, runtimes, tool["is_censored"].to_numpy(bool))
        yield Jobs(history, np.where(history.is_censored, np.nan, peaks), np.zeros(len(tool)))


if __name__ == "__main__":
    command(run, about=__doc__, title="bench recommendations")
