"""How many nodes the ready work would fill: by hand, and by laws that hold for any work and any pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.jobs.requirements import Capacity, Requirement
from knockem_dagster.nodes.demand import Allowance, Offer, ReadyWork, demand_of

ALL = frozenset({"a", "b"})
NODE = Capacity(cpus=4, memory_mib=4096, seconds_left=600)
ONE = Requirement(cpus=1, memory_mib=1024, runtime="command")
LARGE = Requirement(cpus=8, memory_mib=1024, runtime="command")


ROOMY = {"a": 1000, "b": 1000}


def offer(
    capacity: Capacity = NODE,
    owners: frozenset[str] = ALL,
    *,
    on_their_way: int = 0,
    most: int = 100,
    hours: float = 1.0,
    shares: bool = False,
) -> Offer:
    return Offer(capacity, owners, on_their_way, Allowance(most, 1e6), hours, shares)


def demands(
    ready: Sequence[ReadyWork],
    pools: Sequence[Offer],
    rooms: Mapping[str, int] = ROOMY,
    shared: Allowance | None = None,
) -> list[tuple[int, int]]:
    return [(demand.used, demand.more) for demand in demand_of(ready, rooms, pools, shared=shared)]


def test_jobs_are_packed_onto_nodes() -> None:
    assert demands([ReadyWork("a", ONE, 9)], [offer()]) == [(0, 3)]


def test_nodes_on_their_way_take_theirs_first() -> None:
    assert demands([ReadyWork("a", ONE, 9)], [offer(on_their_way=2)]) == [(2, 1)]
    assert demands([ReadyWork("a", ONE, 3)], [offer(on_their_way=5)]) == [(1, 0)]
    assert demands([ReadyWork("a", ONE, 4)], [offer(), offer(on_their_way=1)]) == [(0, 0), (1, 0)]


def test_what_fits_no_node_takes_no_room_of_its_owner() -> None:
    work = [ReadyWork("a", LARGE, 2), ReadyWork("a", ONE, 10)]
    assert demands(work, [offer()], {"a": 2}) == [(0, 1)], "two of the ten may be in work"
    assert demands(work, [offer()], {"a": 5}) == [(0, 2)]
    assert demands(work, [offer(on_their_way=1)], {"a": 5}) == [(1, 1)], "what goes on one on its way takes room, too"
    assert demands(work, [offer()], {"a": 0}) == [(0, 0)]


def test_pools_that_share_have_no_more_together_than_is_left() -> None:
    work = [ReadyWork("a", ONE, 100), ReadyWork("b", ONE, 100)]
    pools = [offer(owners=frozenset({owner}), shares=True, hours=2) for owner in ("a", "b")]
    assert demands(work, pools, shared=Allowance(30, 1e6)) == [(0, 25), (0, 5)]
    assert demands(work, pools, shared=Allowance(1000, 53)) == [(0, 25), (0, 1)]
    assert demands(work, [*pools, offer()], shared=Allowance(-1, -1)) == [(0, 0), (0, 0), (0, 50)]


def test_what_fits_no_node_asks_for_none() -> None:
    slow = Requirement(cpus=1, memory_mib=1, seconds=601, runtime="command")
    elsewhere = Requirement(cpus=1, memory_mib=1, runtime="docker")
    work = [ReadyWork("a", each, 5) for each in (LARGE, slow, elsewhere)]
    assert demands(work, [offer()]) == [(0, 0)]


def test_a_later_pool_gets_what_the_earlier_may_not_take() -> None:
    work = [ReadyWork("a", ONE, 8), ReadyWork("b", ONE, 4), ReadyWork("a", LARGE, 1)]
    large = Capacity(cpus=8, memory_mib=8192, seconds_left=600)
    pools = [offer(most=1), offer(owners=frozenset({"b"})), offer(large)]
    assert demands(work, pools) == [(0, 1), (0, 1), (0, 2)]


requirements = st.builds(
    Requirement,
    cpus=st.integers(1, 8).map(float),
    memory_mib=st.integers(0, 8192),
    gpus=st.integers(0, 2),
    runtime=st.sampled_from(["command", "process"]),
)
works = st.lists(st.builds(ReadyWork, st.sampled_from(["a", "b"]), requirements, st.integers(1, 40)), max_size=6)
capacities = st.builds(
    Capacity, cpus=st.integers(1, 16).map(float), memory_mib=st.integers(1, 16384), gpus=st.integers(0, 4)
)
offers = st.lists(
    st.builds(
        offer,
        capacities,
        st.sets(st.sampled_from(["a", "b"])).map(frozenset),
        on_their_way=st.integers(0, 5),
        most=st.just(1000),
    ),
    min_size=1,
    max_size=3,
)


rooms = st.fixed_dictionaries({"a": st.integers(0, 300), "b": st.integers(0, 300)})


@given(works, rooms, offers)
def test_no_node_stays_empty_and_no_job_that_fits_stays_without_one(
    ready: list[ReadyWork], room: dict[str, int], pools: list[Offer]
) -> None:
    before = [work.number for work in ready]
    demands = demand_of(ready, room, pools)
    assert [work.number for work in ready] == before, "what was asked is not changed"
    fitting = sum(
        work.number
        for work in ready
        if any(work.owner in each.owners and each.capacity.fits(work.requirement) for each in pools)
        and room[work.owner]
    )
    nodes = sum(demand.used + demand.more for demand in demands)
    assert nodes <= min(fitting, sum(room.values()))
    assert (nodes > 0) == (fitting > 0)
    for demand, pool in zip(demands, pools, strict=True):
        assert demand.used <= pool.on_their_way
    alone = [ReadyWork(work.owner, work.requirement, 1) for work in ready for _ in range(work.number)]
    assert sum(d.used + d.more for d in demand_of(alone, room, pools)) == nodes, "how work is grouped does not matter"
