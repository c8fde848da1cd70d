"""The container contract as Python: an organism that counts sites, knocks out, competes and describes itself.

What an author must provide is written down in deploy/organisms/README.md. How one talks to knockem_serve is in
serving.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.containers.contract_commands import (
    APPLY_KNOCKOUT,
    COMPETE_TWO,
    COUNT_SITES,
    DESCRIBE_TRUTH,
)
from knockem_dagster.containers.contract_environment import (
    GENOMES_TARGET,
    RESULT_FILE,
    RESULT_TARGET,
    competition_environment,
    with_knockem_package,
)
from knockem_dagster.containers.knocked_out_contents import KnockedOutContents
from knockem_dagster.containers.owners import private_folder
from knockem_dagster.containers.results import read_result_file
from knockem_dagster.containers.runtime import ContainerSpec, EndCause, Ended, Mount, Runtime
from knockem_dagster.containers.serving import Serving, open_serving
from knockem_dagster.containers.truth import Truth, parse_truth
from knockem_dagster.errors import BadResult, ContractError

OUTCOMES = {
    EndCause.TIMED_OUT: Outcome.TIMED_OUT,
    EndCause.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
}
MOST_GROWTH = 4
GENOME_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class Organism:
    """An image under the contract, and the wild type its competitions start from.

    `specification` says what image, limits and environment its commands run with: containerEnv, and of the
    contract's variables those that do not change from one competition to the next (KNOCKEM_USER_EMAIL,
    KNOCKEM_RUNMODE). `wild_type` is the content of the submission's genome; only `compete` and `serve` need it.
    """

    def __init__(self, runtime: Runtime, specification: ContainerSpec, *, wild_type: str = "") -> None:
        self.runtime = runtime
        self.specification = specification
        self._wild_type = wild_type
        self._kept = KnockedOutContents()
        self._being_made: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @property
    def reference(self) -> str:
        """The image as its user named it."""
        return self.specification.image.reference

    async def run(self, command: Sequence[str], content: str = "") -> Ended:
        """Run one command with a genome's content on its standard input, and tell how it ended.

        A knocked-out genome may be some times larger than the wild type, whatever the limit on output is.
        """
        stdin = content.encode()
        limits = self.specification.limits
        limits = replace(limits, output_bytes=limits.output_bytes + MOST_GROWTH * len(stdin))
        specification = replace(with_knockem_package(self.specification), limits=limits)
        return await self.runtime.run(specification, command, stdin)

    async def count_sites(self, content: str) -> int:
        """Return a genome's number of sites. Raises ContractError, also for a genome with no sites."""
        ended = await self.run([COUNT_SITES], content)
        printed = _output_of(COUNT_SITES, ended).decode("utf-8", "replace").strip()
        try:
            sites = int(printed)
        except ValueError:
            raise ContractError(f"{COUNT_SITES} must print the number of sites, not {printed[:200]!r}") from None
        if sites < 0:
            raise ContractError(f"{COUNT_SITES} must print the number of sites; {sites} is negative")
        if sites == 0:
            raise ContractError(f"a genome with no sites: {COUNT_SITES} printed 0. Check the genome's format.")
        return sites

    async def apply_knockout(self, content: str, sites: Sequence[int]) -> str:
        """Return a genome's content with these sites (zero-based) knocked out. Raises ContractError."""
        ended = await self.run(_knockout_command(sites), content)
        try:
            return _output_of(APPLY_KNOCKOUT, ended).decode()
        except UnicodeDecodeError as error:
            raise ContractError(f"{APPLY_KNOCKOUT} must print UTF-8 text: {error}") from error

    async def describe_truth(self, content: str, num_sites: int) -> Truth | None:
        """Return what the organism knows of its genome; None when it has no such command. Raises ContractError."""
        ended = await self.run([DESCRIBE_TRUTH], content)
        if ended.cause == EndCause.NOT_FOUND:
            return None
        return parse_truth(_output_of(DESCRIBE_TRUTH, ended), num_sites=num_sites)

    async def stated_unit(self) -> float | None:
        """Return the score of one detection threshold if the organism states it, as those without noise do."""
        serving = await self.serve()
        if serving is None:
            return None
        await serving.end()
        return serving.unit

    async def serve(self) -> Serving | None:
        """Start a serving container (`end` it); None when the image has none, and `compete` must do."""
        return await open_serving(self.runtime, self.specification, wild_type=self._wild_type)

    async def compete(self, attempt: Attempt) -> AttemptOutcome:
        """Carry out one attempt in containers of its own, from the wild type's content to the counts.

        However the commands end, that is an outcome; only an engine that cannot be used raises (ContainerError).
        """
        with private_folder() as folder:
            genomes, results = Path(folder, "genomes"), Path(folder, "result")
            genomes.mkdir(mode=0o755)
            results.mkdir()
            results.chmod(0o777)  # the container's user is another one; the folder around it is private
            for variant in (attempt.alpha, attempt.beta):
                content = await self._content_of(variant)
                if isinstance(content, Ended):
                    return _failure(attempt, APPLY_KNOCKOUT, content)
                path = genomes / checked_genome_id(variant.id)
                path.write_bytes(content)
                path.chmod(0o644)
            mounts = [Mount(genomes, GENOMES_TARGET), Mount(results, RESULT_TARGET, writable=True)]
            environment = competition_environment(attempt)
            specification = with_knockem_package(self.specification, environment=environment, mounts=mounts)
            ended = await self.runtime.run(specification, [COMPETE_TWO])
            return _outcome(attempt, ended, results / RESULT_FILE)

    async def _content_of(self, variant: GenomeVariant) -> bytes | Ended:
        """Return the content of one side, made by one command at a time; or how making it failed."""
        if variant.knockout.is_wild_type:
            return self._wild_type.encode()
        mask = variant.knockout.mask
        async with self._being_made.setdefault(mask, asyncio.Lock()):
            kept = self._kept.get(mask)
            if kept is not None:
                return kept
            ended = await self.run(_knockout_command(variant.knockout.sites.tolist()), self._wild_type)
            if not _ended_well(ended):
                return ended
            self._kept.keep(mask, ended.stdout)
            return ended.stdout


def checked_genome_id(genome: str) -> str:
    """Return an id that can name a file. Raises ContractError for any other."""
    if not GENOME_ID.fullmatch(genome):
        raise ContractError(f"{genome!r} cannot name a genome: use letters, digits, dots, dashes and underscores")
    return genome


def _knockout_command(sites: Sequence[int]) -> list[str]:
    return [APPLY_KNOCKOUT, *map(str, sites)]


def _output_of(command: str, ended: Ended) -> bytes:
    """Return what a command printed. Raises ContractError when it did not end well."""
    if _ended_well(ended):
        return ended.stdout
    how = f"ended with exit code {ended.exit_code}" if ended.cause == EndCause.EXITED else ended.cause
    if ended.stdout_cut:
        how += f" and wrote more than {len(ended.stdout)} bytes"
    raise ContractError(f"{command}: {how}. The end of its output: {ended.tail or 'nothing'}")


def _ended_well(ended: Ended) -> bool:
    return ended.cause == EndCause.EXITED and ended.exit_code == 0 and not ended.stdout_cut


def _outcome(attempt: Attempt, ended: Ended, result: Path) -> AttemptOutcome:
    if ended.cause != EndCause.EXITED or ended.exit_code != 0:
        return _failure(attempt, COMPETE_TWO, ended)
    try:
        counts = read_result_file(result)
    except BadResult as error:
        tail = f"{ended.tail}\n{error}".strip()
        return _describe(attempt, COMPETE_TWO, ended, Outcome.BAD_RESULT, tail=tail)
    described = _describe(attempt, COMPETE_TWO, ended, Outcome.SUCCEEDED, tail=ended.tail)
    return replace(described, counts=counts)


def _failure(attempt: Attempt, command: str, ended: Ended) -> AttemptOutcome:
    cut = f"it wrote more than {len(ended.stdout)} bytes" if ended.stdout_cut else ""
    tail = "\n".join(filter(None, [ended.tail, cut]))
    return _describe(attempt, command, ended, OUTCOMES.get(ended.cause, Outcome.FAILED), tail=tail)


def _describe(attempt: Attempt, command: str, ended: Ended, outcome: Outcome, *, tail: str) -> AttemptOutcome:
    return AttemptOutcome(
        attempt,
        outcome,
        command=command,
        exit_code=ended.exit_code,
        tail=tail,
        peak_memory=ended.peak_memory,
        cpu_seconds=ended.cpu_seconds,
        wall_seconds=ended.wall_seconds,
    )
