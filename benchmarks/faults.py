"""Whether the queue holds what it promises while its workers, its server and runs are killed at random moments.

20,000 command jobs of three workflows go to 8 workers, each a process of its own. These are killed at random, and so is
the queue's server: it comes back with its file, and once with nothing, to be rebuilt from the record. The jobs
themselves write when they start and end, and take places that only the kernel frees: more than a cap allows cannot go
unseen. Then a submission's run is killed again and again while a worker outside of it goes on.

KnockemError tells what does not hold; the measurements tell what it took.

    python -m benchmarks.faults [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path

from numpy.random import Generator, default_rng

from benchmarks.killed_runs import measure_killed_runs
from benchmarks.measurement import Measurement, command
from benchmarks.timed_jobs import JobLog, a_workflow, most_at_once, read_log, timed_job
from benchmarks.workplace import WorkerCommand, Workplace, until
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import KnockemError, QueueAway
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.tending import tend
from knockem_dagster.jobs.working import runtimes_here
from knockem_dagster.records.jobs import JobRecord, WorkflowRecord

JOBS = 20_000
WORKERS = 8
LEASE_SECONDS = 3.0
SHARES = {1: 0.03, 3: 0.17, 100: 0.8}
"""Which share of the jobs belongs to the workflow with this maxActive."""
MEAN_SECONDS = 0.06
LONGEST_SECONDS = 2.0
FAILING, LEAVING_DAEMONS = 0.02, 0.01
MAX_FAIL = 2
FAILED_EXIT = 3
PAUSE_SECONDS = (0.5, 4.0)
"""Between two blows."""
SERVER_BLOWS = 0.2
"""The share of the blows that hit the server."""
AWAY_SECONDS = (0.0, 4.0)
LONG_AWAY_SECONDS = 60.0
FOUND_AGAIN_SECONDS = 10.0
AWAY, BACK = "does not answer", "answers again"
UPKEEP_SECONDS = 1.0
PAGE = 200
SECONDS_A_JOB = 0.2
SECONDS_TO_SPARE = 120.0


def run(scale: float, seed: int) -> list[Measurement]:
    """Run both campaigns at `scale` times the full number of jobs and blows. Raises KnockemError."""
    rng = default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="knockem-faults-") as folder:
        away = max(AWAY_SECONDS[1], LONG_AWAY_SECONDS * min(1.0, scale))
        measured = Campaign.prepare(Path(folder) / "jobs", rng, round(JOBS * scale), long_away=away).run()
        return measured + measure_killed_runs(Path(folder) / "runs", rng, kills=max(1, round(5 * scale)))


@dataclass
class Campaign:
    """Jobs, those who work on them, and the blows they are dealt."""

    place: Workplace
    rng: Generator
    workflows: list[WorkflowRecord]
    jobs: list[JobRecord]
    failing: frozenset[str]
    long_away: float
    found_again: float = 0.0
    blows: Counter[str] = field(default_factory=Counter)
    trouble: list[BaseException] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        ids = {workflow.id: deque[str]() for workflow in self.workflows}
        for job in self.jobs:
            ids[job.workflow_id].append(job.id)
        self._waiting = list(ids.values())

    @classmethod
    def prepare(cls, folder: Path, rng: Generator, number: int, *, long_away: float) -> Campaign:
        """Draw the jobs. `long_away`: seconds without a server, once."""
        place = Workplace(folder, lease_seconds=LEASE_SECONDS)
        workflows: list[WorkflowRecord] = []
        jobs: list[JobRecord] = []
        failing: set[str] = set()
        for max_active, share in SHARES.items():
            workflow = a_workflow(f"{max_active} at a time", max_active=max_active, max_fail=MAX_FAIL)
            workflows.append(workflow)
            for _ in range(max(10, round(number * share))):
                fails = rng.random() < FAILING
                job = timed_job(
                    folder,
                    workflow,
                    seconds=min(LONGEST_SECONDS, rng.exponential(MEAN_SECONDS)),
                    exit_code=FAILED_EXIT if fails else 0,
                    leaves_a_daemon=rng.random() < LEAVING_DAEMONS,
                )
                jobs.append(job)
                if fails:
                    failing.add(job.id)
        return cls(place, rng, workflows, jobs, frozenset(failing), long_away)

    def run(self) -> list[Measurement]:
        """Deal blows until every job has its result, then check everything."""
        with self.place:
            self.place.start_server()
            self._keep_workers()
            until(lambda: all(map(self.place.is_registered, self._alive())), "all workers")
            began = time.monotonic()
            for workflow in self.workflows:
                self.place.submit(workflow, [job for job in self.jobs if job.workflow_id == workflow.id])
            upkeep = threading.Thread(target=self._upkeep, name="upkeep")
            upkeep.start()
            try:
                self._bombard(deadline=began + SECONDS_TO_SPARE + SECONDS_A_JOB * len(self.jobs))
                seconds = time.monotonic() - began
                until(self._is_empty, "the queue to be empty")
            finally:
                self.over.set()
                upkeep.join()
            codes = [worker.end() for worker in self.place.workers if worker.process.poll() is None]
            log = read_log(self.place.folder)
            check(not self.trouble, f"upkeep failed: {self.trouble}")
            check(not any(codes), f"workers that were told to end did so with {codes}")
            self._check_workers()
            self._check_results()
            self._check_caps(log)
            until(lambda: not self.place.processes(), f"{self.place.processes()} to be gone", seconds=10)
            return self._measurements(log, seconds)

    def _bombard(self, *, deadline: float) -> None:
        """Keep workers going and kill some of all until nothing is left to do."""
        due = time.monotonic()
        special = deque([(1 / 10, self._forget_everything), (1 / 4, self._be_away)])
        while (done := self._number_done()) < len(self.jobs) or special:
            check(time.monotonic() < deadline, f"only {done} of {len(self.jobs)} jobs have a result; {self.blows}")
            self._keep_workers()
            if special and done > special[0][0] * len(self.jobs):
                special.popleft()[1]()
            elif time.monotonic() > due:
                self._deal()
                due = time.monotonic() + self._draw(PAUSE_SECONDS)
            time.sleep(0.1)

    def _deal(self) -> None:
        if self.rng.random() < SERVER_BLOWS:
            self.place.kill_server()
            time.sleep(self._draw(AWAY_SECONDS))
            self.place.start_server()
            self.blows["server"] += 1
        elif alive := self._alive():
            alive[self.rng.integers(len(alive))].kill()
            self.blows["worker"] += 1

    def _be_away(self) -> None:
        """Take the server away for long amid work; every worker says so once, finds it soon, and loses nothing."""
        until(lambda: all(map(self.place.is_registered, self._alive())), "all workers")
        workflow = self._submit_long_jobs()
        until(lambda: len(self._in_work(workflow)) >= WORKERS / 2, "workers to be at work")
        before = {worker.name: len(worker.said) for worker in self._alive()}
        self.place.kill_server()
        in_work = self._in_work(workflow)
        check(bool(in_work), "nothing was in work when the server went")
        time.sleep(self.long_away)
        self.place.start_server()
        came_back = time.monotonic()
        heard = [worker for worker in self._alive() if worker.name in before]

        def all_found_it() -> bool:
            return all(BACK in worker.said[before[worker.name] :] for worker in heard)

        until(all_found_it, "all workers to find the server again", seconds=FOUND_AGAIN_SECONDS)
        self.found_again = time.monotonic() - came_back
        for worker in heard:
            said = worker.said[before[worker.name] :]
            check(said.count(AWAY) == 1, f"a worker says more than once that the server is away:\n{said}")
        until(lambda: in_work <= self.place.final_results(workflow.id).keys(), "the results of what was in work")
        log = read_log(self.place.folder)
        check(all(len(log.of_job(job)) == 1 for job in in_work), "what was in work when the server went ran again")
        self.blows["server"] += 1

    def _submit_long_jobs(self) -> WorkflowRecord:
        """Give all workers something to do, whatever is left of the rest: in a small campaign that is nothing soon."""
        workflow = a_workflow("amid which the server goes", max_active=WORKERS, max_fail=MAX_FAIL)
        jobs = [timed_job(self.place.folder, workflow, seconds=LONGEST_SECONDS) for _ in range(2 * WORKERS)]
        self.workflows.append(workflow)
        self.jobs.extend(jobs)
        self._waiting.append(deque(job.id for job in jobs))
        self.place.submit(workflow, jobs)
        return workflow

    def _in_work(self, workflow: WorkflowRecord) -> set[str]:
        executions = read_log(self.place.folder).executions
        return {each.job for each in executions if each.workflow == workflow.id and each.ended is None}

    def _forget_everything(self) -> None:
        """Kill the server, remove its files, and have the queue rebuilt from the record."""
        self.place.kill_server()
        check(self._number_done() < len(self.jobs), "everything was done before the server lost its file")
        self.place.forget_queue()
        self.place.start_server()
        rebuilt = self.place.command("queue", "rebuild")
        check(rebuilt.returncode == 0, f"queue rebuild: {rebuilt.stderr}")
        self.blows["server with its file"] += 1

    def _alive(self) -> list[WorkerCommand]:
        return [worker for worker in self.place.workers if worker.process.poll() is None]

    def _keep_workers(self) -> None:
        for _ in range(WORKERS - len(self._alive())):
            self.place.start_worker("--cpus", "1")

    def _number_done(self) -> int:
        """Return how many jobs have their last result, as far as all before them in their workflow have one."""
        for jobs in self._waiting:
            while page := list(islice(jobs, PAGE)):
                found = self.place.platform.records.documents.get_many("results", page)
                for _ in takewhile(found.__contains__, page):
                    jobs.popleft()
                if len(found) < len(page):
                    break
        return len(self.jobs) - sum(map(len, self._waiting))

    def _draw(self, between: tuple[float, float]) -> float:
        return float(self.rng.uniform(*between))

    def _upkeep(self) -> None:
        """Do what the sensor of `up` does, in a thread of its own."""
        while not self.over.wait(UPKEEP_SECONDS):
            try:
                asyncio.run(self._tend())
            except QueueAway:
                continue
            except KnockemError as error:
                self.trouble.append(error)

    async def _tend(self) -> None:
        platform = self.place.platform
        async with queue_of(platform) as queue:
            runtimes = runtimes_here(platform)
            await tend(queue, platform.records, runtimes, lease_seconds=LEASE_SECONDS, say=lambda line: None)

    def _is_empty(self) -> bool:
        return not self.place.on_queue(lambda queue: QueueViews(queue).owners())

    def _check_workers(self) -> None:
        for worker in self.place.workers:
            check("Traceback" not in worker.said, f"a worker shows a traceback:\n{worker.said}")

    def _check_results(self) -> None:
        """Check that every job has one last result, which is its own doing."""
        results = [result for workflow in self.workflows for result in self.place.results(workflow.id)]
        final = Counter(result.job_id for result in results if result.final)
        check(final == Counter(job.id for job in self.jobs), "not every job has exactly one last result")
        for result in results:
            if result.final and result.job_id in self.failing:
                check((result.outcome, result.exit_code) == (Outcome.FAILED, FAILED_EXIT), f"it must fail: {result}")
            elif result.final:
                check(result.outcome is Outcome.SUCCEEDED, f"it must succeed: {result}")
            elif result.outcome is not Outcome.LOST:
                check(result.job_id in self.failing, f"a try that did not fail by its own doing: {result}")

    def _check_caps(self, log: JobLog) -> None:
        """Check who ran beside whom, by what the jobs wrote."""
        check(not log.beyond, f"places beyond a cap were taken: {log.beyond[:5]}")
        for workflow in self.workflows:
            most = most_at_once([each for each in log.executions if each.workflow == workflow.id])
            check(most <= workflow.max_active, f"{most} ran of the workflow {workflow.name}")
        for worker in {each.worker for each in log.executions}:
            most = most_at_once([each for each in log.executions if each.worker == worker])
            check(most == 1 or not most, f"a worker with one CPU ran {most} jobs at a time")
        ended = {each.job for each in log.executions if each.ended is not None}
        check(ended == {job.id for job in self.jobs}, "a job has a result and never came to its end")

    def _measurements(self, log: JobLog, seconds: float) -> list[Measurement]:
        number = len(self.jobs)
        again = len(log.executions) - number - len(self.failing) * (MAX_FAIL - 1)
        widest = most_at_once(log.executions)
        return [
            Measurement("jobs, each with one last result", number, "jobs", number),
            Measurement("workers killed", self.blows["worker"], "blows", number),
            Measurement("queue server killed", self.blows["server"] + 1, "blows", number),
            Measurement(
                f"until all workers found it again after {self.long_away:.0f} s",
                self.found_again,
                "s",
                WORKERS,
                "limit",
                FOUND_AGAIN_SECONDS,
            ),
            Measurement("jobs run at a time, by their own words", widest, "jobs", number, "workers", WORKERS),
            Measurement("jobs begun again because of a blow", again, "jobs", number, "all jobs", number),
            Measurement("rate under fire", number / seconds, "1/s", number),
        ]


def check(holds: bool, what: str) -> None:
    """Raise KnockemError with what does not hold."""
    if not holds:
        raise KnockemError(f"bench faults: {what}")


if __name__ == "__main__":
    command(run, about=__doc__, title="What holds while everything is killed")
