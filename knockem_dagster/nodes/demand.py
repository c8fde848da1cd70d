"""How many nodes the work that is ready would fill. Pure: no scheduler and no queue is asked here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knockem_dagster.jobs.requirements import Capacity, Requirement


@dataclass(slots=True)
class ReadyWork:
    """Jobs of one owner and one class that could start at once, if there were slots and their owner had room."""

    owner: str
    requirement: Requirement
    number: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may still be asked for: nodes, and node-hours in all."""

    nodes: int
    hours: float

    def permits(self, hours: float) -> int:
        """Return how many nodes it permits of so many hours each."""
        return max(0, min(self.nodes, int(self.hours / hours + 1e-9)))

    def without(self, nodes: int, hours: float) -> Allowance:
        """Return what is left when nodes of so many hours each have been asked for."""
        return Allowance(self.nodes - nodes, self.hours - nodes * hours)


@dataclass(frozen=True, slots=True)
class Offer:
    """What one pool has on its way, and may ask for; `owners`: whose jobs its nodes do.

    `hours`: of one node; `shares`: it may ask only for what is left of what such pools may have together.
    """

    capacity: Capacity
    owners: frozenset[str]
    on_their_way: int
    own: Allowance
    hours: float
    shares: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """Of the nodes on their way, how many the ready work fills; how many more it would fill, of those permitted."""

    used: int
    more: int
    permitted: int


def demand_of(
    ready: Sequence[ReadyWork], rooms: Mapping[str, int], offers: Sequence[Offer], *, shared: Allowance | None = None
) -> list[Demand]:
    """Return what each pool's nodes are needed for, the earlier pools before the later.

    A job is put on one node only: nodes on their way take theirs first, of whichever pool. `rooms`: how many jobs more
    each owner may have in work; `shared`: what the pools that share may have together.
    """
    work = _Work([ReadyWork(each.owner, each.requirement, each.number) for each in ready], dict(rooms))
    used = [work.fill(offer, offer.on_their_way) for offer in offers]
    demands: list[Demand] = []
    for u, offer in zip(used, offers, strict=True):
        permitted = offer.own.permits(offer.hours)
        if offer.shares and shared is not None:
            permitted = min(permitted, shared.permits(offer.hours))
        more = work.fill(offer, permitted)
        if offer.shares and shared is not None:
            shared = shared.without(more, offer.hours)
        demands.append(Demand(u, more, permitted))
    return demands


@dataclass(frozen=True, slots=True)
class _Work:
    """What is on no node yet, and the room that its owners have."""

    left: Sequence[ReadyWork]
    rooms: dict[str, int]

    def fill(self, offer: Offer, most: int) -> int:
        """Put work on so many nodes at most; return how many have any."""
        for number in range(most):
            if not self._put_on_one(offer):
                return number
        return max(0, most)

    def _put_on_one(self, offer: Offer) -> bool:
        free, has_any = offer.capacity, False
        for work in self.left:
            if work.owner not in offer.owners:
                continue
            while work.number and self.rooms.get(work.owner, 0) > 0 and free.fits(work.requirement):
                free, has_any = free.without(work.requirement), True
                work.number -= 1
                self.rooms[work.owner] -= 1
        return has_any
