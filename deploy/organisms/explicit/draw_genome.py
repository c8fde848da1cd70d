#!/usr/bin/env python3
"""Draw an explicit genome at random and print it: additive sites, and disjoint redundant sets.

Additive sites and sets are drawn independently, so a site can be both; effects and penalties are uniform.
demo_genome.json is what this prints without arguments.
"""

from __future__ import annotations

import argparse
import random

from explicit_genome import ExplicitGenome, Landscape

DECIMALS = 4


def draw_landscape(arguments: argparse.Namespace) -> Landscape:
    """Return the landscape that the command line describes."""
    draw = random.Random(arguments.seed)
    sites = range(arguments.sites)
    effects = {
        site: round(draw.uniform(0, arguments.additive_max), DECIMALS)
        for site in sorted(draw.sample(sites, arguments.additive))
    }
    members = draw.sample(sites, arguments.sets * arguments.set_size)
    sets = [
        (
            frozenset(members[start : start + arguments.set_size]),
            round(draw.uniform(arguments.penalty_min, arguments.penalty_max), DECIMALS),
        )
        for start in range(0, len(members), arguments.set_size)
    ]
    return Landscape(arguments.sites, effects, sets)


def parse_arguments() -> argparse.Namespace:
    """Read the command line; it ends the program when more sites are asked for than there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=1000, help="number of sites (default %(default)s)")
    parser.add_argument("--additive", type=int, default=50, help="number of additive sites (default %(default)s)")
    parser.add_argument("--additive-max", type=float, default=0.7, help="largest effect (default %(default)s)")
    parser.add_argument("--sets", type=int, default=10, help="number of redundant sets (default %(default)s)")
    parser.add_argument("--set-size", type=int, default=4, help="sites in each set (default %(default)s)")
    parser.add_argument("--penalty-min", type=float, default=0.7, help="smallest penalty (default %(default)s)")
    parser.add_argument("--penalty-max", type=float, default=1.6, help="largest penalty (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what decides every draw (default %(default)s)")
    arguments = parser.parse_args()
    if max(arguments.additive, arguments.sets * arguments.set_size) > arguments.sites:
        parser.error("there are fewer --sites than additive sites, or than members of sets")
    return arguments


if __name__ == "__main__":
    print(ExplicitGenome(draw_landscape(parse_arguments()), frozenset()).text(), end="")
