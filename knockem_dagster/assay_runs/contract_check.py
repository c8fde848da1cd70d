"""Does an image keep the container contract? Each command is run, also with a knockout; nothing is stored."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, GenomeVariant, Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.contract_commands import (
    APPLY_KNOCKOUT,
    COMPETE_TWO,
    COUNT_SITES,
    DESCRIBE_TRUTH,
    SERVE,
)
from knockem_dagster.containers.serving import Serving
from knockem_dagster.errors import ContractError
from knockem_dagster.knockout.competitions import Counts, score
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.records.record import derived_id

_SUBMISSION = derived_id("contract check")
_SEED = 1
WILD = "wild type"
KNOCKED_OUT = "knocked out"


class Verdict(StrEnum):
    """What a check found."""

    PASS = "pass"
    MISSING = "missing (optional)"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One command, run on one genome: how it went, how long it took (seconds), and what it said.

    `is_required`: submissions use this command when it is there, so it has to work.
    """

    command: str
    case: str
    verdict: Verdict
    seconds: float
    said: str
    is_required: bool = True


@dataclass(slots=True)
class ContractCheck:
    """The checks of one image with one genome, in the order of `run`. `num_sites` is None until counted.

    `organism` has the same `content` as its wild type.
    """

    organism: Organism
    content: str
    num_sites: int | None = None
    _knocked_out: str | None = field(default=None)

    async def run(self) -> AsyncIterator[Check]:
        """Yield each check when it is done. Raises ContainerError when the image cannot be started at all."""
        counted = await self._timed(COUNT_SITES, WILD, self._count)
        yield counted
        if self.num_sites is None:
            return
        yield await self._timed(APPLY_KNOCKOUT, self._sites_named, self._apply_knockout)
        if self._knocked_out is not None:
            yield await self._timed(COUNT_SITES, KNOCKED_OUT, self._count_knocked_out)
        for case, knockout in self._opponents:
            yield await self._compete(case, knockout)
        async for check in self._serve():
            yield check
        yield await self._timed(DESCRIBE_TRUTH, WILD, self._describe_truth, is_required=False)

    @property
    def _sites(self) -> tuple[int, ...]:
        """Every other site and the last: half a genome has an effect, and counting sites from one shows at the ends."""
        assert self.num_sites is not None
        return tuple(sorted({*range(0, self.num_sites, 2), self.num_sites - 1}))

    @property
    def _sites_named(self) -> str:
        return f"{len(self._sites):,} site{'s' if len(self._sites) > 1 else ''}, every other and the last"

    @property
    def _opponents(self) -> list[tuple[str, KnockoutSet]]:
        assert self.num_sites is not None
        knockout = KnockoutSet.of(self._sites, self.num_sites)
        return [
            (f"{WILD} against itself", KnockoutSet.none(self.num_sites)),
            (f"{WILD} against {KNOCKED_OUT}", knockout),
        ]

    async def _count(self) -> str:
        self.num_sites = await self.organism.count_sites(self.content)
        return f"{self.num_sites:,} sites"

    async def _apply_knockout(self) -> str:
        changed = await self.organism.apply_knockout(self.content, list(self._sites))
        self._knocked_out = changed
        size = f"{len(changed.encode()):,} bytes"
        return size if changed != self.content else f"{size}, but the genome is unchanged: do knockouts take effect?"

    async def _count_knocked_out(self) -> str:
        number = await self.organism.count_sites(self._knocked_out or "")
        if number != self.num_sites:
            raise ContractError(
                f"the knocked-out genome has {number} sites, the wild type {self.num_sites}: a knockout disables sites "
                "in their place, so that all others keep their numbers"
            )
        return f"{number:,} sites"

    async def _describe_truth(self) -> str | None:
        assert self.num_sites is not None
        truth = await self.organism.describe_truth(self.content, self.num_sites)
        return (
            None
            if truth is None
            else f"{len(truth.effects):,} sites with an effect, {len(truth.sets):,} redundant sets"
        )

    async def _compete(self, case: str, knockout: KnockoutSet) -> Check:
        ended: AttemptOutcome | None = None

        async def compete() -> str:
            nonlocal ended
            ended = await self.organism.compete(self._attempt(knockout))
            return _told(ended)

        return await self._timed(COMPETE_TWO, case, compete)

    async def _serve(self) -> AsyncIterator[Check]:
        began = time.monotonic()
        serving = await self.organism.serve()
        seconds = time.monotonic() - began
        if serving is None:
            said = "not there, or no answer to hello within 5 s: every competition starts containers of its own"
            yield Check(SERVE, "hello", Verdict.MISSING, seconds, said)
            return
        yield Check(SERVE, "hello", Verdict.PASS, seconds, "serves")
        try:
            for case, knockout in self._opponents:
                yield await self._ask(serving, case, knockout)
        finally:
            await serving.end()

    async def _ask(self, serving: Serving, case: str, knockout: KnockoutSet) -> Check:
        async def ask() -> str:
            await serving.ask([self._attempt(knockout)])
            return _told((await serving.answers())[0])

        return await self._timed(SERVE, case, ask)

    def _attempt(self, knockout: KnockoutSet) -> Attempt:
        assert self.num_sites is not None
        key = derived_id(_SUBMISSION, knockout.to_bytes())
        wild_type = derived_id(_SUBMISSION, "genome")
        beta = wild_type if knockout.is_wild_type else derived_id(_SUBMISSION, "genome", knockout.to_bytes())
        return Attempt(
            id=derived_id(key, "attempt", time.monotonic_ns()),
            competition_id=key,
            assay_id=derived_id(_SUBMISSION, "assay"),
            submission_id=_SUBMISSION,
            alpha=GenomeVariant(wild_type, KnockoutSet.none(self.num_sites)),
            beta=GenomeVariant(beta, knockout),
            seed=_SEED,
        )

    async def _timed(
        self, command: str, case: str, work: Callable[[], Awaitable[str | None]], *, is_required: bool = True
    ) -> Check:
        """Do one check. None from `work` means that an optional command is not there."""
        began = time.monotonic()
        try:
            said = await work()
            verdict = Verdict.MISSING if said is None else Verdict.PASS
        except ContractError as error:
            said, verdict = str(error), Verdict.FAIL
        return Check(command, case, verdict, time.monotonic() - began, said or "", is_required)


def _told(ended: AttemptOutcome) -> str:
    """Return what a competition reported. Raises ContractError when it reported nothing."""
    if ended.outcome is not Outcome.SUCCEEDED or ended.counts is None:
        code = "" if ended.exit_code is None else f", exit code {ended.exit_code}"
        raise ContractError(f"{ended.outcome.value}{code}. The end of its output: {ended.tail or 'nothing'}")
    return _counts_told(ended.counts)


def _counts_told(counts: Counts) -> str:
    return (
        f"{counts.num_alpha:,} to {counts.num_beta:,} after {counts.updates_elapsed:g} updates: "
        f"score {score(counts):.3g} per update"
    )


def is_usable(checks: list[Check]) -> bool:
    """Tell whether submissions can use the image: what they need is there, and what they would use works."""
    competed = any(check.command == COMPETE_TWO for check in checks)
    return competed and not any(check.verdict is Verdict.FAIL and check.is_required for check in checks)
