"""What an organism knows of its own genome, for the report to set beside the estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from knockem_dagster.containers.results import loads_lenient
from knockem_dagster.errors import ContractError


@dataclass(frozen=True, slots=True)
class Truth:
    """True effects: of single sites (in the organism's units), and sets of sites that stand in for each other."""

    effects: dict[int, float]
    sets: list[list[int]]


def parse_truth(output: bytes, *, num_sites: int) -> Truth:
    """Read what knockem_describe_truth printed. Raises ContractError for nonsense and sites out of range."""
    try:
        described = loads_lenient(output)
        effects = {int(site): float(effect) for site, effect in described["effects"].items()}
        sets = [[_whole(site) for site in members] for members in described["sets"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ContractError(
            'knockem_describe_truth must print {"effects": {site: effect}, "sets": [[site, ...]]}; '
            f"what it printed cannot be read ({type(error).__name__}: {error})"
        ) from error
    if not all(map(math.isfinite, effects.values())):
        raise ContractError("knockem_describe_truth told an effect that is not a finite number")
    for site in [*effects, *(site for members in sets for site in members)]:
        if not 0 <= site < num_sites:
            raise ContractError(
                f"knockem_describe_truth names site {site}; sites of this genome run from 0 to {num_sites - 1}"
            )
    return Truth(effects, sets)


def _whole(site: Any) -> int:
    if isinstance(site, bool) or not isinstance(site, int):
        raise TypeError(f"{site!r} is no site number")
    return site
