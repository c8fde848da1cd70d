"""How many nodes the work that is ready would fill. Pure: no scheduler and no queue is asked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from knockem_dagster.jobs.requirements import Capacity, Requirement


@dataclass(slots=True)
class ReadyWork:
    """Jobs of one owner and one class that could start at once, if there were slots."""

    owner: str
    requirement: Requirement
    number: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What one pool has on its way, and may ask for; `owners`: whose jobs its nodes do."""

    capacity: Capacity
    owners: frozenset[str]
    on_their_way: int
    permitted: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Of the nodes on their way, how many the ready work fills; and how many more it would fill."""

    used: int
    more: int


def demand_of(ready: Sequence[ReadyWork], offers: Sequence[Offer]) -> list[Demand]:
    """Return what each pool's nodes are needed for, the earlier pools before the later.

    A job is put on one node only: nodes on their way take theirs first, of whichever pool.
    """
    left = [ReadyWork(work.owner, work.requirement, work.number) for work in ready]
    used = [_filled(left, offer, offer.on_their_way) for offer in offers]
    return [Demand(u, _filled(left, offer, offer.permitted)) for u, offer in zip(used, offers, strict=True)]


def _filled(left: Sequence[ReadyWork], offer: Offer, most: int) -> int:
    """Put work on so many nodes at most; return how many have any."""
    for number in range(most):
        if not _put_on_one(left, offer):
            return number
    return max(0, most)


def _put_on_one(left: Sequence[ReadyWork], offer: Offer) -> bool:
    free, has_any = offer.capacity, False
    for work in left:
        if work.owner not in offer.owners:
            continue
        while work.number and free.fits(work.requirement):
            free, has_any = free.without(work.requirement), True
            work.number -= 1
    return has_any
