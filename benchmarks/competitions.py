"""What a competition costs: one-shot and served, under each runtime, beside the bare cost of a process or container.

Then the platform's own share: asking for a served competition, running it and recording its result, without what
the organism itself computes. The organism is `explicit` in exact mode.

    python -m benchmarks.competitions [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.measurement import Measurement, command
from benchmarks.reference_organism import ReferenceGenome
from knockem_dagster.assay_runs.compete import AssayRun
from knockem_dagster.assay_runs.intake import examine, store
from knockem_dagster.assay_runs.ledger import Ledger
from knockem_dagster.assay_runs.submission_file import SubmissionFile
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.runtime import ContainerSpec, RuntimeName
from knockem_dagster.containers.runtimes import runtime_names_here
from knockem_dagster.errors import ContainerError, InvalidInput
from knockem_dagster.jobs.in_process import InProcessSource
from knockem_dagster.jobs.organisms import organism_of
from knockem_dagster.jobs.worker import Worker
from knockem_dagster.knockout.competitions import Competition, Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.platform import Platform
from knockem_dagster.records.assays import AssayRecord, AssayType, assay_id
from knockem_dagster.settings import load_settings

IMAGES: dict[RuntimeName, str] = {"process": "explicit", "docker": "knockem/explicit", "podman": "knockem/explicit"}
ONE_SHOTS = 30
SERVED = 5_000
BARE = 20
WIDE_SITES = 10_000


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure those of IMAGES that can be run here; n is `scale` times 30 one-shot and 5,000 served competitions."""
    measured: list[Measurement] = []
    here = runtime_names_here()
    for runtime in (name for name in IMAGES if name in here):
        try:
            measured += _under(runtime, scale, seed)
        except InvalidInput as error:  # a runtime without the image keeps no other from being measured
            print(f"{runtime} is left out. {error}", file=sys.stderr)
    number = max(500, round(SERVED * scale))
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        _, cpu = asyncio.run(_Study(Path(folder), "process", default_rng(seed), num_sites=WIDE_SITES).served(number))
    name = "process: platform CPU per served competition, 10,000 sites"
    return [*measured, Measurement(name, 1e3 * cpu, "ms", number, "limit", 1.0)]


def _under(runtime: RuntimeName, scale: float, seed: int) -> list[Measurement]:
    one_shots, number = max(3, round(ONE_SHOTS * scale)), max(500, round(SERVED * scale))
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        study = _Study(Path(folder), runtime, default_rng(seed), num_sites=1_000)
        bare = asyncio.run(study.bare_start_seconds(max(3, round(BARE * scale))))
        one_shot = asyncio.run(study.one_shot_rate(one_shots))
        served, cpu = asyncio.run(study.served(number))
    start = f"bare starts of a {'process' if runtime == 'process' else 'container'}"
    once, name = f"{runtime}: one-shot competitions", f"{runtime}: platform CPU per served competition, 1,000 sites"
    measured = [
        Measurement(once, one_shot, "1/s", one_shots, start, 1 / bare),
        Measurement(f"{runtime}: served competitions", served, "1/s", number, once, one_shot),
        Measurement(name, 1e3 * cpu, "ms", number, "limit", 1.0),
    ]
    if runtime == "process":
        return measured
    return [
        *measured,
        Measurement(f"{runtime}: served over one-shot", served / one_shot, "ratio", 1, "at least", 100.0),
    ]


class _Study:
    """A stored submission of its own platform, whose competitions are measured."""

    def __init__(self, home: Path, runtime: RuntimeName, rng: Generator, *, num_sites: int) -> None:
        self.platform = Platform(load_settings().model_copy(update={"home": home}))
        self._rng = rng
        self._num_sites = num_sites
        genome = ReferenceGenome.draw(rng, num_sites=num_sites, num_additive=num_sites // 20, num_sets=num_sites // 100)
        file = SubmissionFile(
            genome=genome.to_json(),
            container_image=IMAGES[runtime],
            container_env={"EXPLICIT_MODE": "exact"},
            user_email="bench@example.org",
            container_runtime=runtime,
        )
        accepted = asyncio.run(examine(self.platform, file))
        self.submission, self.genome = store(self.platform, accepted), accepted.genome

    def _organism(self) -> Organism:
        return organism_of(self.platform, self.submission, self.genome)

    def _competitions(self, number: int, purpose: str) -> list[Competition]:
        """Random knockouts of half the sites, each new."""
        nothing = KnockoutSet.none(self._num_sites)
        half = [np.flatnonzero(self._rng.random(self._num_sites) < 0.5) for _ in range(number)]
        return [Competition(nothing, KnockoutSet.of(sites, self._num_sites), purpose) for sites in half]

    def _assay(self) -> tuple[Ledger, AssayRecord]:
        assay = self.platform.records.assays.get(assay_id(self.submission.id, AssayType.NULLDIST))
        return Ledger(self.platform.records, self.submission, assay, self.genome), assay

    async def bare_start_seconds(self, number: int) -> float:
        """Return the median time to start and reap `true`: as a process of ours, or in a container of the engine."""
        seconds: list[float] = []
        specification: ContainerSpec = self._organism().specification
        runtime = self.platform.runtime(self.submission.container_runtime)
        for _ in range(number):
            began = time.perf_counter()
            if self.submission.container_runtime == "process":
                subprocess.run(["true"], check=True)
            else:
                ended = await runtime.run(specification, ["true"])
                if ended.exit_code != 0:
                    raise ContainerError(f"`true` does not run in {specification.image.reference}: {ended.tail}")
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    async def one_shot_rate(self, number: int) -> float:
        """Return one-shot competitions per second, one after the other: knock out, compete, read the result."""
        ledger, assay = self._assay()
        organism = self._organism()
        attempts = [ledger.question(each).next_attempt(assay) for each in self._competitions(number, "one-shot")]
        began = time.perf_counter()
        for attempt in attempts:
            outcome = await organism.compete(attempt)
            if outcome.counts is None:
                raise ContainerError(f"a one-shot competition gave no result: {outcome.outcome.value}\n{outcome.tail}")
        return number / (time.perf_counter() - began)

    async def served(self, number: int) -> tuple[float, float]:
        """Return served competitions per second, recorded, and this process's CPU seconds for each."""
        ledger, _ = self._assay()
        slots = min(2, self.platform.settings.cpus)
        source = InProcessSource(workers=slots)
        worker = Worker(source, self._organism(), slots=slots, most_in_flight=self.submission.max_active)
        working = asyncio.create_task(worker.run())
        competitions = self._competitions(number, "served")
        async with AssayRun(ledger, source, max_active=self.submission.max_active, max_fail=3) as assay_run:
            await assay_run.compete(self._competitions(20, "warm-up"))
            began, cpu = time.perf_counter(), time.process_time()
            answers = await assay_run.compete(competitions)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        await source.close()
        await working
        if not all(isinstance(answer, Counts) for answer in answers):
            raise ContainerError("a served competition gave no result")
        return number / seconds, cpu / number


if __name__ == "__main__":
    command(run, about=__doc__, title="What a competition costs")
