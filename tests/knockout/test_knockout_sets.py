"""Knockout sets behave as sets of sites, and survive the record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knockem_dagster.knockout.knockouts import KnockoutSet


@st.composite
def site_sets(draw: st.DrawFn) -> tuple[int, set[int]]:
    num_sites = draw(st.integers(1, 300))
    return num_sites, draw(st.sets(st.integers(0, num_sites - 1)))


@settings(deadline=None)
@given(site_sets())
def test_a_knockout_set_survives_sites_bytes_and_bitset(given_sites: tuple[int, set[int]]) -> None:
    num_sites, sites = given_sites
    knockout = KnockoutSet.of(sites, num_sites)
    assert knockout.sites.tolist() == sorted(sites)
    assert knockout.dose == len(sites)
    assert KnockoutSet.from_bitset(knockout.bitset, num_sites) == knockout
    assert len(knockout.to_bytes()) == (num_sites + 7) // 8
    assert all((site in knockout) == (site in sites) for site in range(num_sites))


@settings(deadline=None)
@given(site_sets(), st.data())
def test_union_difference_and_subset_are_those_of_sets(given_sites: tuple[int, set[int]], data: st.DataObject) -> None:
    num_sites, left = given_sites
    right = data.draw(st.sets(st.integers(0, num_sites - 1)))
    one, other = KnockoutSet.of(left, num_sites), KnockoutSet.of(right, num_sites)
    assert set((one | other).sites.tolist()) == left | right
    assert set((one - other).sites.tolist()) == left - right
    assert one.issubset(other) == (left <= right)


@pytest.mark.parametrize("site", [-1, 8, 100])
def test_a_site_out_of_range_is_refused(site: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 7"):
        KnockoutSet.of([site], 8)
