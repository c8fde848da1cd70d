"""A single competition: genomes and seed from where the container contract puts them, the result to its file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from explicit_genome import ExplicitGenome, InputError, parse_genome


def setting(name: str) -> str:
    """Return an environment variable of the container contract. Raises InputError when it is not set."""
    if name not in os.environ:
        raise InputError(f"{name} is not set; see the container contract for what knockem_compete_two finds")
    return os.environ[name]


def read_effect() -> float:
    """Return the effect of beta's knockouts beyond alpha's."""
    alpha, beta = (_read_genome(setting(f"KNOCKEM_GENOME_ID_{side}")) for side in ("ALPHA", "BETA"))
    return beta.effect() - alpha.effect()


def read_seed() -> int:
    """Return the competition's seed, the same for every attempt."""
    try:
        return int(setting("KNOCKEM_SEED"))
    except ValueError:
        raise InputError(f"KNOCKEM_SEED is {setting('KNOCKEM_SEED')!r}; it must be a whole number") from None


def write_result(result: dict[str, object]) -> None:
    """Write a competition's result, a dictionary as the contract describes it."""
    Path(setting("KNOCKEM_RESULT")).write_text(json.dumps(result), encoding="utf-8")


def _read_genome(genome_id: str) -> ExplicitGenome:
    try:
        return parse_genome((Path(setting("KNOCKEM_GENOMES")) / genome_id).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"genome {genome_id} cannot be read: {error}") from None
