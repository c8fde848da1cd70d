"""A campaign against job graphs: workers, the HTTP API and Dagster's daemon are killed at random meanwhile.

Half of the workers reach the stores, half only the API; upkeep is the daemon's, beside the workers that reach the
stores, which give up lost ones. Each job appends a line to a file as it begins and as it ends. At the end every job has
one last result, no job began before all that it waits for were recorded, and the workflow is completed.

    python -m benchmarks.graph_faults [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from numpy.random import Generator, default_rng

from benchmarks.measurement import Measurement, command
from benchmarks.workplace import WorkerCommand, Workplace, until
from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.jobs.workflows import Submitter, start_workflow, store_workflow
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.jobs import JobState, WorkflowRecord
from knockem_dagster.records.record import Record

JOBS, WORKERS = 5000, 4
LEASE_SECONDS = 2.0
BETWEEN_KILLS = (0.1, 0.5)
API_KILLED = 0.1
"""How often the API is killed beside a worker."""
DAEMON_KILLED = 0.02
"""How often the daemon is, after the first time: it takes ten seconds and more to be back."""
USER = "bench@example.org"
PATIENCE_SECONDS = 1800.0


def run(scale: float, seed: int) -> list[Measurement]:
    """Run the campaign with `scale` times the full number of jobs. Raises KnockemError for anything out of order."""
    rng = default_rng(seed)
    with (
        tempfile.TemporaryDirectory(prefix="knockem-graph-faults-") as folder,
        Workplace(Path(folder), lease_seconds=LEASE_SECONDS) as workplace,
    ):
        workplace.start_server()
        campaign = _Campaign(workplace, rng, max(20, round(JOBS * scale)))
        return campaign.run()


class _Campaign:
    """A random graph of jobs, and workers that do not live long."""

    def __init__(self, workplace: Workplace, rng: Generator, number: int) -> None:
        self._workplace = workplace
        self._rng = rng
        self._told = workplace.folder / "told.txt"
        records = workplace.platform.records
        self._token = issue_token(records, add_user(records, USER).user_email, Scope.WORKER)[1]
        self._far: list[WorkerCommand] = []
        self._blockers = {f"j{job}": [f"j{each}" for each in self._earlier(job, rng)] for job in range(number)}

    @staticmethod
    def _earlier(job: int, rng: Generator) -> list[int]:
        return sorted(set(rng.integers(max(0, job - 500), job, 3).tolist())) if job else []

    def run(self) -> list[Measurement]:
        """Let the workflow run to its end while workers are killed, then look at what it left."""
        self._api = self._workplace.start_api()
        daemon = self._workplace.start_daemon()
        for number in range(WORKERS):
            self._start_worker(is_near=number % 2 == 0)
        for worker in self._workplace.workers:
            until(lambda worker=worker: self._workplace.is_registered(worker), "a worker")
        until(self._workplace.daemon_lives, "Dagster's daemon", look_seconds=1.0)
        workflow = self._submit()
        kills, api_kills, daemon_kills, began = 0, 0, 0, time.monotonic()
        while self._state(workflow) != "completed":
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise KnockemError("the workflow did not end")
            time.sleep(float(self._rng.uniform(*BETWEEN_KILLS)))
            order = self._rng.permutation(len(self._workplace.workers)).tolist()
            workers = [self._workplace.workers[place] for place in order]
            victim = next(filter(self._workplace.is_registered, workers), None)
            if victim is not None:
                victim.kill()
                self._workplace.workers.remove(victim)
                self._start_worker(is_near=victim not in self._far)
                kills += 1
            if self._rng.random() < API_KILLED:
                self._api.kill()
                self._api = self._workplace.start_api(self._api.port)
                api_kills += 1
            if daemon_kills == 0 or self._rng.random() < DAEMON_KILLED:
                daemon.kill()
                daemon.wait()
                daemon = self._workplace.start_daemon()
                daemon_kills += 1
        seconds = time.monotonic() - began
        starts, begun_twice = self._check(workflow)
        number = len(self._blockers)
        return [
            Measurement("dependent jobs, each with one last result, in order", float(number), "jobs", 1),
            Measurement("workers killed meanwhile", float(kills), "kills", 1),
            Measurement("kills of the HTTP API meanwhile", float(api_kills), "kills", 1),
            Measurement("kills of Dagster's daemon meanwhile", float(daemon_kills), "kills", 1),
            Measurement("jobs begun again, since their worker was killed", float(begun_twice), "jobs", 1),
            Measurement("starts in the record, each after the results it waits for", float(starts), "starts", 1),
            Measurement("it took", seconds, "s", 1),
        ]

    def _start_worker(self, *, is_near: bool) -> None:
        if is_near:
            self._workplace.start_worker()
        else:
            self._far.append(self._workplace.start_worker("--url", self._api.url, KNOCKEM_TOKEN=self._token))

    def _submit(self) -> WorkflowRecord:
        jobs = [
            {"name": name, "command": " && ".join(self._telling(name)), "depends_on": found}
            for name, found in self._blockers.items()
        ]
        graph = graph_of(spec_of({"name": "campaign", "jobs": jobs}))
        submitter = Submitter(user_email=USER, folder=str(self._workplace.folder))
        records = self._workplace.platform.records
        workflow = store_workflow(records, graph, submitter)
        self._workplace.on_queue(lambda queue: start_workflow(records, queue, workflow))
        return workflow

    def _telling(self, name: str) -> list[str]:
        return [f"echo begin {name} >> {self._told}", "sleep 0.02", f"echo end {name} >> {self._told}"]

    def _state(self, workflow: WorkflowRecord) -> str:
        return self._workplace.platform.records.workflows.get(workflow.id).state

    def _check(self, workflow: WorkflowRecord) -> tuple[int, int]:
        """Make sure of the results and of the order.

        Returns how many starts the record tells, and how many jobs were begun more than once.
        """
        records = self._workplace.platform.records
        jobs = {job.id: job for job in records.jobs.find({"workflowId": workflow.id})}
        wrong = [job.name for job in jobs.values() if job.state is not JobState.COMPLETED]
        if wrong:
            raise KnockemError(f"{len(wrong)} jobs did not complete, {wrong[0]} among them")
        finals = [result for result in self._workplace.results(workflow.id) if result.final]
        if Counter(result.job_id for result in finals) != Counter(jobs.keys()):
            raise KnockemError("not every job has one last result")
        names = {id: job.name for id, job in jobs.items()}
        events = [each for each in records.events.find({"subject": workflow.id}) if each.kind == "jobStarted"]
        check_starts(
            self._blockers,
            [(names[event.data["job"]], _moment(event)) for event in events],
            {names[result.job_id]: _moment(result) for result in finals},
        )
        return len(events), self._check_words()

    def _check_words(self) -> int:
        """Make sure of the order by what the jobs themselves wrote; return how many were begun more than once."""
        ended: set[str] = set()
        begun: Counter[str] = Counter()
        for line in self._told.read_text().splitlines():
            what, name = line.split()
            if what == "end":
                ended.add(name)
            else:
                begun[name] += 1
                early = [each for each in self._blockers[name] if each not in ended]
                if early:
                    raise KnockemError(f"{name} was begun before {early[0]}, for which it waits, had ended")
        return sum(number > 1 for number in begun.values())


def check_starts(
    blockers: Mapping[str, Sequence[str]], starts: Sequence[tuple[str, datetime]], recorded: Mapping[str, datetime]
) -> None:
    """Make sure that no job was started before the last result of each that it waits for. Raises KnockemError.

    `starts`: as workers noted them; `recorded`: when the last result of each job was.
    """
    for name, moment in starts:
        early = [each for each in blockers[name] if moment < recorded[each]]
        if early:
            raise KnockemError(f"{name} was begun before {early[0]}, for which it waits, was recorded")


def _moment(of: Record) -> datetime:
    return datetime.fromisoformat(of.datetime)


if __name__ == "__main__":
    command(run, about=__doc__, title="What holds while workers of dependent jobs are killed")
