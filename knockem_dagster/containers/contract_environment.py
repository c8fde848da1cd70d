"""What a container finds under the contract: variables, folders, and the mounted knockem package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from knockem_dagster.containers import names
from knockem_dagster.containers.attempts import Attempt
from knockem_dagster.containers.runtime import ContainerSpec, Mount

GENOMES_TARGET = "/knockem/genomes"
RESULT_TARGET = "/knockem/result"
RESULT_FILE = "result.json"
PACKAGE_TARGET = "/knockem/package"
PACKAGE_SOURCE = Path(__file__).parent / "knockem_package"


def competition_environment(attempt: Attempt) -> dict[str, str]:
    """Return the variables of one competition."""
    return {
        names.ASSAY_ID: attempt.assay_id,
        names.COMPETITION_ID: attempt.competition_id,
        names.COMPETITION_ATTEMPT_ID: attempt.id,
        names.GENOME_ID_ALPHA: attempt.alpha.id,
        names.GENOME_ID_BETA: attempt.beta.id,
        names.NUM_KNOCKOUT_SITES: str(attempt.beta.knockout.dose),
        names.SUBMISSION_ID: attempt.submission_id,
        names.SEED: str(attempt.seed),
        names.GENOMES: GENOMES_TARGET,
        names.RESULT: f"{RESULT_TARGET}/{RESULT_FILE}",
    }


def with_knockem_package(
    specification: ContainerSpec, *, environment: Mapping[str, str] | None = None, mounts: Sequence[Mount] = ()
) -> ContainerSpec:
    """Return a specification under which `python3 -m knockem.cli` works, with more variables and mounts."""
    combined = {**specification.environment, **(environment or {})}
    given_path = combined.get("PYTHONPATH")
    combined["PYTHONPATH"] = f"{PACKAGE_TARGET}:{given_path}" if given_path else PACKAGE_TARGET
    package = Mount(PACKAGE_SOURCE, PACKAGE_TARGET)
    return replace(specification, environment=combined, mounts=[*specification.mounts, package, *mounts])
