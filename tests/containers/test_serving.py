"""Talking to knockem_serve: what is asked, what comes back, and every way a container can misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.kept_genomes import WILD_TYPE, KeptGenomes
from knockem_dagster.containers.runtime import Limits
from knockem_dagster.containers.serving import Serving, open_serving
from knockem_dagster.knockout.competitions import Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from tests.containers.laboratory import EAT_MEMORY, SITES, Laboratory, attempt, variant

CONTENT = "abcdefgh"

SERVER = """
    #!/usr/bin/env python3
    import json, sys, time

    genomes, competitions = {}, 0

    def say(**answer):
        print(json.dumps(answer), flush=True)

    def counts(request):
        alpha, beta = genomes[request["alpha"]], genomes[request["beta"]]
        return {"updatesElapsed": 100, "numAlpha": 1 + alpha.count("_"), "numBeta": beta.count("_")}

    for line in sys.stdin:
        request = json.loads(line)
        op, id = request["op"], request.get("id")
        if op == "hello":
            say(protocol=1, unit=0.25)
            continue
        if op == "genome":
            genomes[request["genome"]] = request["content"]
            say(id=id)
        elif op == "knockout":
            content = list(genomes[request["parent"]])
            for site in request["sites"]:
                content[site] = "_"
            genomes[request["genome"]] = "".join(content)
            say(id=id)
        elif op == "forget":
            for genome in request["genomes"]:
                del genomes[genome]
            say(id=id)
        elif op == "compete_two":
            competitions += 1
            BEHAVE
            say(id=id, **counts(request))
"""


def server(behaviour: str = "pass") -> str:
    return SERVER.replace("BEHAVE", behaviour.replace("\n", "\n" + " " * 12))


def talk(
    laboratory: Laboratory,
    attempts: Sequence[Attempt],
    behaviour: str = "pass",
    *,
    limits: Limits | None = None,
    genomes_kept: int = 256,
) -> tuple[list[AttemptOutcome], Serving]:
    """Ask everything at once and listen until every attempt has come back."""
    spec = laboratory.organism(limits=limits or Limits(timeout_seconds=20), knockem_serve=server(behaviour))

    async def ask() -> tuple[list[AttemptOutcome], Serving]:
        serving = await open_serving(laboratory.runtime, spec, wild_type=CONTENT, genomes_kept=genomes_kept)
        assert serving is not None
        try:
            await serving.ask(attempts)
            outcomes: list[AttemptOutcome] = []
            while serving.outstanding:
                outcomes += await serving.answers()
            assert not await serving.answers()
            return outcomes, serving
        finally:
            await serving.end()

    return asyncio.run(ask())


def several(number: int = 6) -> list[Attempt]:
    return [attempt(f"attempt-{n}", beta=(n % SITES,)) for n in range(number)]


def outcomes_by_id(outcomes: Sequence[AttemptOutcome]) -> dict[str, Outcome]:
    return {ended.attempt.id: ended.outcome for ended in outcomes}


def test_every_attempt_is_answered_once_with_its_own_counts(laboratory: Laboratory) -> None:
    attempts = [
        attempt("wild-type"),
        attempt("both", alpha=(1, 2), beta=(1, 2, 3)),
        attempt("again", alpha=(1, 2), beta=(4,)),
        attempt("none", alpha=(), beta=()),
    ]
    outcomes, serving = talk(laboratory, attempts)
    assert {ended.attempt.id: ended.counts for ended in outcomes} == {
        "wild-type": Counts(100, 1, 1),
        "both": Counts(100, 3, 3),
        "again": Counts(100, 3, 1),
        "none": Counts(100, 1, 0),
    }
    assert all(ended.command == "knockem_serve" and ended.wall_seconds is not None for ended in outcomes)
    assert serving.unit == 0.25


def test_forgotten_genomes_are_sent_again(laboratory: Laboratory) -> None:
    attempts = [attempt(f"{n}", alpha=(n % 3,), beta=(n % 3, 3 + n % 5)) for n in range(40)]
    outcomes, _ = talk(laboratory, attempts, genomes_kept=2)
    assert [ended.counts for ended in outcomes] == [Counts(100, 2, 2)] * 40


@pytest.mark.parametrize("nth", [1, 5])
def test_a_container_that_dies_loses_what_it_held_and_nothing_it_answered(laboratory: Laboratory, nth: int) -> None:
    outcomes, serving = talk(laboratory, several(), f"if competitions == {nth}: sys.exit('last words')")
    told = [ended.outcome for ended in outcomes]
    assert told == [Outcome.SUCCEEDED] * (nth - 1) + [Outcome.LOST] * (7 - nth)
    assert "last words" in outcomes[-1].tail
    assert serving.is_over


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("if competitions == 3: say(id='attempt-0', **counts(request))", "twice"),
        ("if competitions == 3: say(id='unknown', **counts(request))", "not asked"),
        ("if competitions == 3: say(id=1)", "twice"),
        ("if competitions == 3: say(id=None, error='confused')", "not asked"),
        ("if competitions == 3: print('Segmentation fault', flush=True)", "no JSON"),
        ("if competitions == 3: print('[1]', flush=True)", "not asked"),
        ("if competitions == 3: sys.stdout.write('x' * 3_000_000)", "not asked for"),
    ],
)
def test_a_container_that_breaks_the_protocol_is_ended(processes: Laboratory, behaviour: str, told: str) -> None:
    outcomes, serving = talk(processes, several(), behaviour)
    assert [ended.outcome for ended in outcomes] == [Outcome.SUCCEEDED] * 2 + [Outcome.LOST] * 4
    assert told in outcomes[-1].tail
    assert told in serving.tail


def test_a_late_attempt_timed_out_and_blames_nobody_else(laboratory: Laboratory) -> None:
    limits = Limits(timeout_seconds=1)
    outcomes, _ = talk(laboratory, several(), "if competitions == 3: time.sleep(600)", limits=limits)
    assert [ended.outcome for ended in outcomes] == ([Outcome.SUCCEEDED] * 2 + [Outcome.TIMED_OUT] + [Outcome.LOST] * 3)
    assert "no answer within 1 s" in outcomes[2].tail


def test_slow_but_steady_is_not_late(processes: Laboratory) -> None:
    outcomes, _ = talk(processes, several(5), "time.sleep(0.3)", limits=Limits(timeout_seconds=1))
    assert {ended.outcome for ended in outcomes} == {Outcome.SUCCEEDED}


def test_a_container_that_stops_reading_is_late_too(processes: Laboratory) -> None:
    attempts = [attempt(f"{'long' * 500}-{n}") for n in range(2000)]
    outcomes, _ = talk(processes, attempts, "time.sleep(600)", limits=Limits(timeout_seconds=1))
    assert outcomes_by_id(outcomes)[attempts[0].id] is Outcome.TIMED_OUT
    assert len(outcomes) == 2000 and {ended.outcome for ended in outcomes[1:]} == {Outcome.LOST}


def test_a_container_grown_past_its_memory_loses_what_it_held_without_blame(laboratory: Laboratory) -> None:
    limits = Limits(memory_mib=64, timeout_seconds=20)
    outcomes, _ = talk(
        laboratory, several(1), f"if True:\n    {EAT_MEMORY.replace(chr(10), chr(10) + '    ')}", limits=limits
    )
    assert [ended.outcome for ended in outcomes] == [Outcome.LOST]
    assert "memory" in outcomes[0].tail


def test_what_the_container_took_at_most_so_far_is_told_of_each_attempt(laboratory: Laboratory) -> None:
    behaviour = "if competitions > 1: held = b'x' * (100 << 20)\ntime.sleep(0.3)"  # long enough to be looked at
    outcomes, _ = talk(laboratory, several(3), behaviour, limits=Limits(memory_mib=256, timeout_seconds=20))
    assert [ended.outcome for ended in outcomes] == [Outcome.SUCCEEDED] * 3
    peaks = [ended.peak_memory for ended in outcomes]
    if None in peaks:
        assert laboratory.runtime.isolates  # its kernel does not tell
    else:
        first, second, third = (peak or 0 for peak in peaks)
        assert 0 < first < 100 << 20 <= second <= third <= 256 << 20


def test_an_error_fails_its_request_alone(laboratory: Laboratory) -> None:
    behaviour = "if competitions == 2: say(id=id, error='cannot divide'); continue"
    outcomes, _ = talk(laboratory, several(3), behaviour)
    assert [ended.outcome for ended in outcomes] == [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SUCCEEDED]
    assert outcomes[1].tail == "cannot divide"


@pytest.mark.parametrize(
    "answer",
    ["numAlpha='many', numBeta=1", "numAlpha=float('nan'), numBeta=1", "numAlpha=-1, numBeta=1",
     "numAlpha=0, numBeta=0", "numAlpha=1"],
)  # fmt: skip
def test_a_bad_result_is_that_attempts_alone(processes: Laboratory, answer: str) -> None:
    behaviour = f"if competitions == 2: say(id=id, updatesElapsed=1, {answer}); continue"
    outcomes, _ = talk(processes, several(3), behaviour)
    assert [ended.outcome for ended in outcomes] == [Outcome.SUCCEEDED, Outcome.BAD_RESULT, Outcome.SUCCEEDED]
    assert outcomes[1].tail and outcomes[1].counts is None


def test_a_refused_genome_fails_the_attempts_that_need_it_and_is_asked_for_again(processes: Laboratory) -> None:
    refusal = """elif op == "knockout" and 5 in request["sites"]:
            say(id=id, error="site 5 is stuck")
        elif op == "knockout":"""
    script = server("if request['beta'] not in genomes: say(id=id, error='no such genome'); continue")
    script = script.replace('elif op == "knockout":', refusal)
    spec = processes.organism(knockem_serve=script)

    async def ask() -> None:
        serving = await open_serving(processes.runtime, spec, wild_type=CONTENT)
        assert serving is not None
        for round in range(2):
            await serving.ask([attempt(f"bad-{round}", beta=(5,)), attempt(f"good-{round}", beta=(4,))])
            outcomes: list[AttemptOutcome] = []
            while serving.outstanding:
                outcomes += await serving.answers()
            assert [ended.outcome for ended in outcomes] == [Outcome.FAILED, Outcome.SUCCEEDED]
            assert "site 5 is stuck" in outcomes[0].tail
        await serving.end()

    asyncio.run(ask())


def test_what_is_asked_of_an_ended_container_is_lost_at_once(processes: Laboratory) -> None:
    spec = processes.organism(knockem_serve=server())

    async def ask() -> Sequence[AttemptOutcome]:
        serving = await open_serving(processes.runtime, spec, wild_type=CONTENT)
        assert serving is not None
        await serving.ask(several(2))
        await serving.end()
        await serving.ask([attempt("late")])
        return await serving.answers()

    assert [ended.outcome for ended in asyncio.run(ask())] == [Outcome.LOST] * 3


def test_listening_and_asking_may_go_on_together(processes: Laboratory) -> None:
    spec = processes.organism(knockem_serve=server())

    async def ask() -> int:
        serving = await open_serving(processes.runtime, spec, wild_type=CONTENT)
        assert serving is not None
        await serving.ask([attempt("0")])
        answered = 0
        for n in range(1, 200):
            listening = asyncio.create_task(serving.answers())
            await serving.ask([attempt(str(n))])
            answered += len(await listening)
        while serving.outstanding:
            answered += len(await serving.answers())
        await serving.end()
        return answered

    assert asyncio.run(ask()) == 200


@pytest.mark.parametrize(
    "script", ["sleep 600", "exit 1", "echo hello", "echo '{\"protocol\": 2}'; sleep 600", "#!/no/such/interpreter"]
)
def test_a_command_that_does_not_say_hello_is_not_used(processes: Laboratory, script: str) -> None:
    spec = processes.organism(knockem_serve=script)
    opening = open_serving(processes.runtime, spec, wild_type=CONTENT, hello_seconds=0.5)
    assert asyncio.run(opening) is None


def test_an_image_without_the_command_is_not_used(laboratory: Laboratory) -> None:
    organism = Organism(laboratory.runtime, laboratory.organism(other="true"), wild_type=CONTENT)
    assert asyncio.run(organism.serve()) is None
    assert asyncio.run(organism.stated_unit()) is None


def test_the_stated_unit_is_told(processes: Laboratory) -> None:
    organism = Organism(processes.runtime, processes.organism(knockem_serve=server()), wild_type=CONTENT)
    assert asyncio.run(organism.stated_unit()) == 0.25


sides = st.frozensets(st.integers(0, SITES - 1), max_size=4).map(lambda sites: tuple(sorted(sites)))


@given(st.lists(st.tuples(sides, sides, st.booleans()), max_size=60), st.integers(1, 8))
def test_a_container_that_does_as_it_is_told_always_has_the_right_genomes(
    asked: list[tuple[tuple[int, ...], tuple[int, ...], bool]], most: int
) -> None:
    """Whatever is asked and answered when: every competition finds both genomes, and few are kept."""
    kept = KeptGenomes(CONTENT, most=most)
    container: dict[str, KnockoutSet] = {}
    waiting: list[Attempt] = []
    for number, (alpha, beta, answered_now) in enumerate(asked):
        wanted = attempt(str(number), alpha=alpha, beta=beta)
        for line in kept.requests_for(wanted).splitlines():
            request = json.loads(line)
            if request["op"] == "genome":
                assert (request["genome"], request["content"]) == (WILD_TYPE, CONTENT)
                container[WILD_TYPE] = KnockoutSet.none(SITES)
            elif request["op"] == "knockout":
                container[request["genome"]] = container[request["parent"]] | KnockoutSet.of(request["sites"], SITES)
            elif request["op"] == "forget":
                for genome in request["genomes"]:
                    del container[genome]
            else:
                assert container[request["alpha"]] == variant(alpha).knockout
                assert container[request["beta"]] == variant(beta).knockout
        waiting.append(wanted)
        if answered_now:
            kept.release(waiting.pop(0))
        assert len(container) <= 1 + most + 2 * len(waiting) + 2
