"""Attempts on their way through the queue: 16 bytes there, the rest from the record; and what came of them."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.knockout.competitions import Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.competitions import CompetitionAttemptRecord

GENOMES_KEPT = 4096


def job_of(attempt_id: str) -> bytes:
    """Return the 16 bytes that stand for an attempt in the queue."""
    return uuid.UUID(attempt_id).bytes


def attempt_id_of(job: bytes) -> str:
    """Return the id of the attempt that 16 bytes of the queue stand for."""
    return str(uuid.UUID(bytes=job))


def to_payload(ended: AttemptOutcome) -> bytes:
    """Return what came of an attempt, for whoever records it."""
    counts = ended.counts
    fields: dict[str, Any] = {
        "outcome": ended.outcome.value,
        "counts": None if counts is None else [counts.updates_elapsed, counts.num_alpha, counts.num_beta],
        "command": ended.command,
        "exitCode": ended.exit_code,
        "tail": ended.tail,
        "peakMemory": ended.peak_memory,
        "cpuSeconds": ended.cpu_seconds,
        "wallSeconds": ended.wall_seconds,
        "worker": ended.worker,
    }
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def fields_of(payload: bytes) -> dict[str, Any]:
    """Return what is said of an outcome; one that cannot be read is lost, whoever handed it in."""
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict) or fields.get("outcome") not in set(Outcome):
        return {"outcome": Outcome.LOST.value, "tail": "what came of it cannot be read"}
    return fields


def from_payload(attempt: Attempt, payload: bytes) -> AttemptOutcome:
    """Read what came of an attempt."""
    fields = fields_of(payload)
    counts, outcome = fields.get("counts"), Outcome(fields["outcome"])
    return AttemptOutcome(
        attempt,
        Outcome.BAD_RESULT if outcome is Outcome.SUCCEEDED and counts is None else outcome,
        counts=None if counts is None else Counts(*counts),
        command=fields.get("command", ""),
        exit_code=fields.get("exitCode"),
        tail=fields.get("tail", ""),
        peak_memory=fields.get("peakMemory"),
        cpu_seconds=fields.get("cpuSeconds"),
        wall_seconds=fields.get("wallSeconds"),
        worker=fields.get("worker", ""),
    )


class AttemptReader:
    """Reads attempts from the record, keeping the knockouts of the genomes used last. Calls block; any thread may."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._knockouts: OrderedDict[str, KnockoutSet] = OrderedDict()
        self._reading = threading.Lock()

    def read(self, ids: Sequence[str]) -> list[Attempt]:
        """Return those of the attempts that are in the record, in this order."""
        with self._reading:
            found = self._records.attempts.get_many(ids)
            records = [found[id] for id in ids if id in found]
            self._fetch_knockouts({id for record in records for id in (record.genome_id_alpha, record.genome_id_beta)})
            attempts = [self._attempt(record) for record in records]
            while len(self._knockouts) > GENOMES_KEPT:
                self._knockouts.popitem(last=False)
            return attempts

    def _fetch_knockouts(self, genomes: set[str]) -> None:
        missing = [id for id in genomes if id not in self._knockouts]
        for id, genome in self._records.genomes.get_many(missing).items():
            self._knockouts[id] = genome.knockout

    def _attempt(self, record: CompetitionAttemptRecord) -> Attempt:
        return Attempt(
            id=record.id,
            competition_id=record.competition_id,
            assay_id=record.assay_id,
            submission_id=record.submission_id,
            alpha=self._variant(record.genome_id_alpha),
            beta=self._variant(record.genome_id_beta),
            seed=record.seed,
        )

    def _variant(self, genome_id: str) -> GenomeVariant:
        self._knockouts.move_to_end(genome_id)
        return GenomeVariant(genome_id, self._knockouts[genome_id])
