"""Serving organisms that misbehave, behind the queue: no competition is lost, nobody is blamed, nothing changes."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from knockem_dagster.assay_runs.compete import AssayRun
from knockem_dagster.assay_runs.ledger import Ledger
from knockem_dagster.containers import contract
from knockem_dagster.containers.attempts import Attempt, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.runtime import Limits
from knockem_dagster.containers.serving import open_serving
from knockem_dagster.jobs.attempt_records import AttemptReader, attempt_id_of
from knockem_dagster.jobs.compute_node import ComputeNode
from knockem_dagster.jobs.lanes import AttemptLane
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_source import QueueSource
from knockem_dagster.jobs.requirements import Capacity, Requirement
from knockem_dagster.knockout.competitions import Answer, Competition, Counts, Untestable
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.assays import AssayRecord, AssayType, assay_id
from knockem_dagster.records.catalog import COLLECTIONS, Records
from knockem_dagster.records.genomes import wild_type
from knockem_dagster.stores.queue_connection import open_async_queue
from knockem_dagster.stores.sqlite_documents import SqliteDocuments
from tests.containers.laboratory import Laboratory
from tests.services.queues import QueueServer
from tests.services.submissions import NUM_SITES, USER, a_submission

NUMBER = 350
MAX_FAIL = 1
"""One blame is one too many."""

SERVER = """
    #!/usr/bin/env python3
    import json, os, sys

    competitions, leaked = 0, []

    def say(**answer):
        print(json.dumps(answer), flush=True)

    for line in sys.stdin:
        request = json.loads(line)
        op, id = request["op"], request.get("id")
        if op == "hello":
            say(protocol=1)
        elif op == "compete_two":
            competitions += 1
            counts = dict(updatesElapsed=1, numAlpha=1 + request["seed"] % 1000, numBeta=request["seed"] % 997)
            BEHAVE
            say(id=id, **counts)
        else:
            say(id=id)
"""
ONE_SHOT = """
    alpha=$((1 + KNOCKEM_SEED % 1000)) beta=$((KNOCKEM_SEED % 997))
    echo "{\\"updatesElapsed\\": 1, \\"numAlpha\\": $alpha, \\"numBeta\\": $beta}" > "$KNOCKEM_RESULT"
"""
BEHAVIOURS = {
    "dies at every 40th answer": "if competitions == 40: os._exit(3)",
    "answers twice": "if competitions == 40: say(id=id, **counts)",
    "answers an unknown id": "if competitions == 40: say(id='unknown', updatesElapsed=1, numAlpha=1, numBeta=1)",
    "leaks 1 MB a request": "leaked.append(b'x' * 10**6)",
}


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(SqliteDocuments(tmp_path / "documents.sqlite", COLLECTIONS))
    yield opened
    opened.close()


def questions(number: int) -> list[Competition]:
    nothing = KnockoutSet.none(NUM_SITES)
    return [Competition(nothing, KnockoutSet.of([each % NUM_SITES], NUM_SITES), "null", each) for each in range(number)]


class Study:
    """One assay of a submission, whose attempts go through the queue to a worker with two slots."""

    def __init__(self, records: Records, server: QueueServer, name: str) -> None:
        self.submission = a_submission(name, max_active=16, max_fail=MAX_FAIL)
        genome = wild_type(self.submission.id, "content", num_sites=NUM_SITES, user_email=USER)
        assay = AssayRecord(
            id=assay_id(self.submission.id, AssayType.NULLDIST),
            submission_id=self.submission.id,
            assay_type=AssayType.NULLDIST,
            container_image="small",
            container_env={},
            user_email=USER,
        )
        records.genomes.add(genome)
        self.records = records
        self.server = server
        self.ledger = Ledger(records, self.submission, assay, genome)

    def answers(self, organism: Organism, asked: Sequence[Competition]) -> list[Answer]:
        return asyncio.run(self._answers(organism, asked))

    async def _answers(self, organism: Organism, asked: Sequence[Competition]) -> list[Answer]:
        queue = Queue(await open_async_queue(self.server.settings))
        requirement = Requirement(cpus=1, memory_mib=10, runtime=organism.runtime.name)
        source = QueueSource(
            queue, self.submission.id, requirement, max_active=16, lease_seconds=60, on_stray=lambda entries: None
        )
        reader = AttemptReader(self.records)

        async def read(jobs: Sequence[bytes]) -> Sequence[Attempt]:
            return reader.read([attempt_id_of(job) for job in jobs])

        async def the_organism(_owner: str) -> Organism:
            return organism

        capacity = Capacity(cpus=2, memory_mib=100, runtimes=frozenset({organism.runtime.name}))
        node = ComputeNode(
            queue,
            {organism.runtime.name: AttemptLane(the_organism, read, worker="w")},
            capacity,
            name="w",
            lease_seconds=60,
            say=lambda line: None,
            only=self.submission.id,
            keep_warm=math.inf,
            most_held=8,
            drain_seconds=0,
        )
        working = asyncio.create_task(node.run())
        try:
            async with AssayRun(self.ledger, source, max_active=16, max_fail=MAX_FAIL) as run:
                answers = await run.compete(asked)
        finally:
            node.stop()
            await working
            await source.close(forget=True)
            await queue.close()
        return answers


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_serving_organism_that_misbehaves_loses_nothing_and_blames_nobody(
    laboratory: Laboratory,
    records: Records,
    queue_server: QueueServer,
    behaviour: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine the server might need more than the contract's 5 s to start: then it would not be asked at all.
    monkeypatch.setattr(contract, "open_serving", partial(open_serving, hello_seconds=120.0))
    specification = laboratory.organism(
        limits=Limits(memory_mib=64, timeout_seconds=20),
        submission_id="misbehaving",
        knockem_serve=SERVER.replace("BEHAVE", BEHAVIOURS[behaviour]),
        knockem_apply_knockout="cat",
        knockem_compete_two=ONE_SHOT,
    )
    organism = Organism(laboratory.runtime, specification, wild_type="content")
    study = Study(records, queue_server, behaviour)
    asked = questions(NUMBER)
    answers = study.answers(organism, asked)
    assert not [answer for answer in answers if isinstance(answer, Untestable)]
    outcomes = Counter(each.outcome for each in records.attempt_results.find({"submissionId": study.submission.id}))
    assert outcomes.keys() == {Outcome.SUCCEEDED, Outcome.LOST}, "it never misbehaved, or somebody was blamed"
    assert outcomes[Outcome.SUCCEEDED] == NUMBER
    for competition, answer in list(zip(asked, answers, strict=True))[:: NUMBER // 5]:
        attempt = study.ledger.question(competition).next_attempt(study.ledger.assay)
        alone = asyncio.run(organism.compete(attempt))
        assert isinstance(answer, Counts)
        assert alone.counts == answer, alone.tail
