"""Jobs as people ask for them: by state, by how their names begin, and page by page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from knockem_dagster.jobs import workflow_views
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.workflow_views import view_jobs
from knockem_dagster.jobs.workflows import start_workflow
from knockem_dagster.platform import Platform
from tests.services.graph_play import job, stored
from tests.services.job_play import SLOTS, Gate, opened_at_last, record_in, started, worker_on
from tests.services.queue_play import play, until
from tests.services.queues import QueueServer

STATES = ("blocked", "ready", "running", "completed", "failed")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
        yield opened


@pytest.mark.parametrize("most_by_id", [0, workflow_views.MOST_BY_ID])
def test_jobs_are_found_by_state_and_name(
    queue_server: QueueServer,
    platform: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most_by_id: int,
) -> None:
    """However many are in the queue: few are read by id, and many found among those that are not over."""
    monkeypatch.setattr(workflow_views, "MOST_BY_ID", most_by_id)
    gate = Gate(tmp_path)
    workflow = stored(
        platform,
        tmp_path,
        job("b_done", priority=2),
        job("a_failed", command="exit 3", priority=2),
        *(job(name, command="cat gate") for name in ("a_2", "b_1", "a_1", "b_2", "c")),
        job("a_after", depends_on=["c"]),
        job("b_after", depends_on=["c"]),
    )

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)

        async def ask(**how: object) -> list[tuple[str, str]]:
            found = await view_jobs(platform.records, queue, workflow, **how)  # type: ignore[arg-type]
            return [(each.job.name, each.state) for each in found]

        async def two_run() -> bool:
            states = [state for _, state in await ask()]
            return (states.count("running"), states.count("completed"), states.count("failed")) == (SLOTS, 1, 1)

        async with worker_on(platform, queue), opened_at_last(gate):
            await until(started(platform, workflow, 2 + SLOTS))  # from then on no slot claims anything
            await until(two_run)  # and what was claimed behind these two has been put back
            everything = await ask()
            assert sorted(state for _, state in everything) == sorted(
                ["completed", "failed", *["blocked"] * 2, *["running"] * SLOTS, *["ready"] * 3]
            )
            for number in range(1, len(STATES) + 1):
                for states in combinations(STATES, number):
                    wanted = [each for each in everything if each[1] in states]
                    assert await ask(states=states) == wanted
                    assert await ask(states=states, begins="a_") == [each for each in wanted if each[0][:2] == "a_"]
                    assert await ask(states=states, after="a_2", most=2) == [e for e in wanted if e[0] > "a_2"][:2]

    play(queue_server, scenario)
