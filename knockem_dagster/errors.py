"""The one tree of exceptions. Every message tells its reader what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class KnockemError(Exception):
    """The root of everything this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: the field, the value found, and what is allowed there."""

    field: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is not allowed; {self.allowed}"


class InvalidInput(KnockemError):
    """An input with one or more faults; nothing of it was stored."""

    def __init__(self, what: str, faults: Sequence[Fault]) -> None:
        self.what = what
        self.faults = tuple(faults)
        super().__init__("\n".join([what, *(f"  {fault}" for fault in self.faults)]))


class SettingsError(KnockemError):
    """A setting is missing or contradicts another."""


class StoreError(KnockemError):
    """A store cannot be reached or refused to write; what was being written is not half there."""


class Conflict(KnockemError):
    """What is asked for does not fit how things are: it is there already, over, or somebody else's turn."""


class NotPermitted(KnockemError):
    """Whoever asks may not have what they ask for, or not so much of it."""


class NotFound(KnockemError):
    """No document, object or submission has this name."""


class ContainerError(KnockemError):
    """A container engine, image or organism folder cannot be used at all."""


class ImageNotFound(ContainerError):
    """The image or organism folder does not exist where it was looked for."""


class NotOffered(ContainerError):
    """This worker runs nothing as what is asked for; another may."""


class ContractError(ContainerError):
    """An image does not keep the container contract: a command is missing or answers nonsense."""


class BadResult(ContractError):
    """A competition reported something that is no answer: text, a negative count, nobody left."""


class ConversationOver(ContainerError):
    """The command one was talking to has ended."""


class AssayError(KnockemError):
    """An assay cannot answer, for instance because too many of its competitions were untestable."""


class SubmissionBusy(Conflict):
    """Another run holds the lease on this submission."""


class SubmissionCanceled(KnockemError):
    """The submission was canceled while it ran."""


class QueueAway(StoreError):
    """The queue server does not answer at this moment: what is asked again later may succeed."""


class WorkersAway(StoreError):
    """No worker takes what was left to workers, or ends it: what is asked again later may succeed."""


class LeaseLapsed(KnockemError):
    """A worker did not renew its lease in time: what it held has been taken from it."""


class SpawnerLost(KnockemError):
    """The process that starts a worker's commands ended, or cannot start any: they did not fail, they were lost."""
