"""Workers and the in-process source: fair shares, warm containers, and no attempt lost between them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.containers.runtime import ContainerSpec, Limits
from knockem_dagster.errors import ContainerError
from knockem_dagster.jobs.in_process import InProcessSource
from knockem_dagster.jobs.slots import Pace
from knockem_dagster.jobs.worker import Worker
from knockem_dagster.knockout.knockouts import KnockoutSet

SITES = 12

SERVE = """#!/usr/bin/env python3
import json, os, sys
answered = 0
for line in sys.stdin:
    asked = json.loads(line)
    if asked["op"] == "hello":
        answer = {"protocol": 1}
    elif asked["op"] == "compete_two":
        answered += 1
        if DIES_AT and answered == DIES_AT:
            os._exit(3)
        answer = {"id": asked["id"], "updatesElapsed": 1, "numAlpha": 500, "numBeta": asked["seed"]}
    else:
        answer = {"id": asked["id"]}
    print(json.dumps(answer), flush=True)
"""
ONE_SHOT = """#!/bin/sh
echo "{\\"updatesElapsed\\": 1, \\"numAlpha\\": 500, \\"numBeta\\": $KNOCKEM_SEED}" > "$KNOCKEM_RESULT"
"""


def attempts(number: int) -> list[Attempt]:
    nothing = KnockoutSet.none(SITES)
    return [
        Attempt(
            f"t{n}",
            f"c{n}",
            "a",
            "s",
            GenomeVariant("w", nothing),
            GenomeVariant(f"g{n}", nothing.with_site(n % SITES)),
            n + 1,
        )
        for n in range(number)
    ]


def organism(folder: Path, **commands: str) -> Organism:
    place = folder / "organisms" / "tiny"
    place.mkdir(parents=True)
    for name, script in {"knockem_apply_knockout": "#!/bin/sh\ncat\n", **commands}.items():
        (place / name).write_text(script)
        (place / name).chmod(0o755)
    runtime = ProcessRuntime([folder / "organisms"])
    image = asyncio.run(runtime.resolve("tiny"))
    specification = ContainerSpec(image=image, limits=Limits(timeout_seconds=20), submission_id="s")
    return Organism(runtime, specification, wild_type="wild")


async def work(organism: Organism, number: int, *, slots: int) -> list[AttemptOutcome]:
    """Put attempts, hear all their outcomes (asking again what was lost), and end the worker."""
    source = InProcessSource(workers=slots)
    outcomes: list[AttemptOutcome] = []
    answered: set[str] = set()

    async def hear() -> None:
        while len(answered) < number:
            for ended in await source.outcomes():
                outcomes.append(ended)
                if ended.outcome is Outcome.LOST:
                    await source.put([ended.attempt])
                else:
                    answered.add(ended.attempt.id)
        await source.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(Worker(source, organism, slots=slots, most_in_flight=16).run())
        await source.put(attempts(number))
        group.create_task(hear())
    return outcomes


@pytest.mark.parametrize("slots", [1, 3])
def test_every_attempt_is_answered_once_by_serving_containers(tmp_path: Path, slots: int) -> None:
    ended = asyncio.run(work(organism(tmp_path, knockem_serve=SERVE.replace("DIES_AT", "0")), 200, slots=slots))
    assert sorted(each.attempt.id for each in ended) == sorted(attempt.id for attempt in attempts(200))
    assert all(each.counts is not None and each.counts.num_beta == each.attempt.seed for each in ended)


def test_container_that_dies_is_replaced_and_its_attempts_are_lost_without_an_answer(tmp_path: Path) -> None:
    ended = asyncio.run(work(organism(tmp_path, knockem_serve=SERVE.replace("DIES_AT", "40")), 200, slots=2))
    answered = [each for each in ended if each.outcome is Outcome.SUCCEEDED]
    assert sorted(each.attempt.id for each in answered) == sorted(attempt.id for attempt in attempts(200))
    assert any(each.outcome is Outcome.LOST for each in ended)


def test_container_killed_while_it_is_greeted_is_replaced(tmp_path: Path) -> None:
    # The first container dies after some answers, the second before it has greeted, the third stays.
    counting = (
        "starts = os.path.join(os.path.dirname(__file__), 'starts')\n"
        "open(starts, 'a').write('x')\n"
        "if os.path.getsize(starts) == 2: os._exit(9)\n"
        "answered = 0 if os.path.getsize(starts) == 1 else -1000\n"
    )
    serve = SERVE.replace("answered = 0\n", counting, 1).replace("DIES_AT", "5")
    ended = asyncio.run(work(organism(tmp_path, knockem_serve=serve), 30, slots=1))
    assert {each.attempt.id for each in ended if each.counts} == {attempt.id for attempt in attempts(30)}
    assert (tmp_path / "organisms" / "tiny" / "starts").read_text() == "xxx"


def test_image_that_never_answers_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    serve = SERVE.replace("DIES_AT", "1").replace("os._exit(3)", 'sys.exit("no such species")')
    with pytest.raises(ExceptionGroup) as given_up:
        asyncio.run(work(organism(tmp_path, knockem_serve=serve), 5, slots=1))
    error = given_up.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ContainerError)
    assert "no such species" in str(error)


def test_image_that_does_not_serve_is_run_one_shot(tmp_path: Path) -> None:
    ended = asyncio.run(work(organism(tmp_path, knockem_compete_two=ONE_SHOT), 6, slots=2))
    assert {each.attempt.id: each.counts.num_beta for each in ended if each.counts} == {
        f"t{n}": n + 1 for n in range(6)
    }
    assert {each.command for each in ended} == {"knockem_compete_two"}


def test_claims_share_what_is_ready_between_the_slots() -> None:
    async def claim() -> list[int]:
        source = InProcessSource(workers=4)
        await source.put(attempts(100))
        return [len(await source.claim(64)), len(await source.claim(10)), len(await source.claim(1))]

    assert asyncio.run(claim()) == [25, 10, 1]


def test_closing_wakes_a_waiting_claim_with_nothing() -> None:
    async def close_under_a_claim() -> list[Attempt]:
        source = InProcessSource(workers=1)
        claim = asyncio.create_task(source.claim(3))
        await asyncio.sleep(0)
        await source.close()
        return list(await claim)

    assert asyncio.run(close_under_a_claim()) == []


def test_slow_competitions_are_not_fed_ahead_and_fast_ones_are() -> None:
    pace = Pace(most=32)
    assert pace.window == 1
    pace.seconds = 10.0
    assert pace.window == 1
    pace.seconds = 0.001
    assert pace.window == 32
