"""Competitions through knockem_serve: one warm container, many requests on their way at once.

A container that breaks the protocol (dies, answers twice, answers what was not asked, says what is no
JSON) or grows past its memory is ended; the attempts it held are LOST, which counts against nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, Outcome
from knockem_dagster.containers.contract_commands import SERVE
from knockem_dagster.containers.kept_genomes import LINE, KeptGenomes, name_of
from knockem_dagster.containers.results import loads_lenient, parse_result
from knockem_dagster.containers.runtime import ContainerSpec, Conversation, EndCause, Ended, Runtime
from knockem_dagster.errors import BadResult, ConversationOver

PROTOCOL = 1
HELLO_SECONDS = 5.0
GENOMES_KEPT = 256
MOST_UNANSWERED_REQUESTS = 8 * GENOMES_KEPT


async def open_serving(
    runtime: Runtime,
    specification: ContainerSpec,
    *,
    wild_type: str,
    hello_seconds: float = HELLO_SECONDS,
    genomes_kept: int = GENOMES_KEPT,
) -> Serving | None:
    """Start knockem_serve for one wild type; None when the image has no such command that says hello in time.

    `specification.limits.timeout_seconds` becomes the time an attempt may take once it is the oldest unanswered.
    Without knockem_serve the one-shot commands of contract.py are used.
    """
    conversation = await runtime.converse(specification, [SERVE])
    try:
        greeting = await _hello(conversation, hello_seconds)
    except BaseException:
        await conversation.end()
        raise
    if greeting is None:
        await conversation.end()
        return None
    return Serving(
        conversation,
        KeptGenomes(wild_type, most=genomes_kept),
        timeout_seconds=specification.limits.timeout_seconds,
        unit=_stated_unit(greeting),
    )


@dataclass(slots=True)
class _Held:
    """An attempt on its way: when it was asked (seconds of the loop's clock), and a genome's refusal."""

    attempt: Attempt
    asked: float
    fault: str = ""


class Serving:
    """A serving container. One task asks and reads, or one of each; who opened it must `end` it.

    `unit`: the score of one detection threshold, told by organisms without noise; None otherwise.
    """

    def __init__(
        self, conversation: Conversation, genomes: KeptGenomes, *, timeout_seconds: float, unit: float | None
    ) -> None:
        self.unit = unit
        self._conversation = conversation
        self._genomes = genomes
        self._timeout_seconds = timeout_seconds
        self._held: dict[str, _Held] = {}
        self._oldest_since = 0.0
        self._last_answer = 0.0
        self._finished: list[AttemptOutcome] = []
        self._over = False
        self.tail = ""
        """Why the container ended and the last lines it wrote; empty while it runs."""

    @property
    def outstanding(self) -> int:
        """The number of attempts asked and not yet handed back by `answers`."""
        return len(self._held) + len(self._finished)

    @property
    def is_over(self) -> bool:
        """Whether the container has ended: what is asked now comes back LOST."""
        return self._over

    async def ask(self, attempts: Sequence[Attempt]) -> None:
        """Send attempts, waiting while the container is slow to read; their outcomes come from `answers`."""
        if self._over:
            self._finished += [AttemptOutcome(attempt, Outcome.LOST, command=SERVE) for attempt in attempts]
            return
        now = asyncio.get_running_loop().time()
        if not self._held:
            self._oldest_since = now
        requests: list[bytes] = []
        for attempt in attempts:
            self._held[attempt.id] = _Held(attempt, now)
            requests.append(self._genomes.requests_for(attempt))
        await self._send(b"".join(requests))

    async def answers(self) -> Sequence[AttemptOutcome]:
        """Wait for at least one outcome and return all there are; empty when nothing was asked."""
        while not self._finished and self._held:
            try:
                async with asyncio.timeout_at(self._deadline):
                    lines = await self._conversation.read()
            except TimeoutError:
                await self._end_if_late()
                continue
            if not lines:
                await self._end("the container ended")
            else:
                await self._take(lines)
        finished, self._finished = self._finished, []
        return finished

    async def end(self) -> None:
        """End the container; attempts it still holds are LOST."""
        await self._end("the container was ended by its caller")

    @property
    def _deadline(self) -> float:
        return self._oldest_since + self._timeout_seconds

    async def _send(self, requests: bytes) -> None:
        while not self._over:
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._conversation.write(requests)
            except TimeoutError:
                requests = b""  # taken already: it was the wait for room that took too long
                await self._end_if_late()
            except ConversationOver:
                return  # `answers` finds out, after what the container still said
            else:
                return

    async def _take(self, lines: Sequence[bytes]) -> None:
        """Take answers in; the first that breaks the protocol ends the container."""
        now = asyncio.get_running_loop().time()
        for line in lines:
            fault = self._take_answer(line, now)
            if fault:
                await self._end(fault)
                return
        if len(self._genomes.unanswered) > MOST_UNANSWERED_REQUESTS:
            await self._end("it leaves requests unanswered: knockem_serve must answer every line")

    def _take_answer(self, line: bytes, now: float) -> str:
        """Take one answer in; return how it breaks the protocol, or an empty text."""
        try:
            answer: Any = loads_lenient(line)
        except (ValueError, RecursionError):
            return f"knockem_serve wrote a line that is no JSON: {line[:200].decode('utf-8', 'replace')!r}"
        identity = answer.get("id") if isinstance(answer, dict) else None
        if isinstance(identity, str) and identity in self._held:
            self._finish(identity, answer, now)
            return ""
        if isinstance(identity, int) and (name := self._genomes.answered(identity)) is not None:
            if "error" in answer:
                self._refuse_genome(name, str(answer["error"]))
            return ""
        return f"knockem_serve answered what was not asked, or twice: {line[:200].decode('utf-8', 'replace')!r}"

    def _finish(self, identity: str, answer: dict[str, Any], now: float) -> None:
        was_oldest = next(iter(self._held)) == identity
        held = self._held.pop(identity)
        self._genomes.release(held.attempt)
        if was_oldest:
            self._oldest_since = now
        wall_seconds = now - max(held.asked, self._last_answer)
        self._last_answer = now
        counts, outcome, tail = None, Outcome.SUCCEEDED, ""
        if held.fault or "error" in answer:
            outcome, tail = Outcome.FAILED, "\n".join(filter(None, [held.fault, str(answer.get("error", ""))]))
        else:
            try:
                counts = parse_result(answer)
            except BadResult as error:
                outcome, tail = Outcome.BAD_RESULT, str(error)
        self._finished.append(
            AttemptOutcome(
                held.attempt,
                outcome,
                counts,
                SERVE,
                tail=tail,
                peak_memory=self._conversation.peak_memory,
                wall_seconds=wall_seconds,
            )
        )

    def _refuse_genome(self, name: str, error: str) -> None:
        """Remember for every attempt that needs this genome why it cannot succeed."""
        self._genomes.was_refused(name)
        for held in self._held.values():
            if name in (name_of(held.attempt.alpha), name_of(held.attempt.beta)):
                held.fault = f"genome {name}: {error}"

    async def _end_if_late(self) -> None:
        if self._held and asyncio.get_running_loop().time() >= self._deadline:
            await self._end(f"no answer within {self._timeout_seconds:g} s", late=next(iter(self._held)))

    async def _end(self, reason: str, *, late: str | None = None) -> None:
        """End the container and hand back what it held: LOST, and TIMED_OUT the attempt that was late."""
        if self._over:
            return
        self._over = True
        ended = await self._conversation.end()
        self.tail = "\n".join(filter(None, [_how(ended, reason), ended.tail]))
        for identity, held in self._held.items():
            outcome = Outcome.TIMED_OUT if identity == late else Outcome.LOST
            self._finished.append(
                AttemptOutcome(
                    held.attempt,
                    outcome,
                    command=SERVE,
                    exit_code=ended.exit_code,
                    tail=self.tail,
                    peak_memory=ended.peak_memory,
                )
            )
        self._held.clear()


async def _hello(conversation: Conversation, seconds: float) -> dict[str, Any] | None:
    """Greet the command; return its greeting, None when it says something else, nothing, or is not there."""
    try:
        async with asyncio.timeout(seconds):
            await conversation.write(orjson.dumps({"op": "hello", "protocol": PROTOCOL}, option=LINE))
            lines = await conversation.read()
        greeting: Any = orjson.loads(lines[0]) if len(lines) == 1 else None
    except (TimeoutError, ConversationOver, orjson.JSONDecodeError):
        return None
    return greeting if isinstance(greeting, dict) and greeting.get("protocol") == PROTOCOL else None


def _stated_unit(greeting: dict[str, Any]) -> float | None:
    unit: Any = greeting.get("unit")
    if isinstance(unit, bool) or not isinstance(unit, (int, float)):
        return None
    return float(unit) if 0 < unit < math.inf else None


def _how(ended: Ended, reason: str) -> str:
    return "it grew past its memory and was killed" if ended.cause == EndCause.OUT_OF_MEMORY else reason
