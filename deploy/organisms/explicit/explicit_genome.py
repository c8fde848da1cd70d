"""The explicit genome: what is known of every site, its text form, and what a knockout costs.

Here belongs what a genome is. How two genomes compete is in explicit_competition.py.
Only the standard library of Python 3.9 is used, and little of it: a one-shot command pays for every import.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet

KEYS = ("sites", "effects", "sets", "knockouts")


class InputError(Exception):
    """What was given to a command cannot be used; the message says what would be."""


def run(command: Callable[[], object]) -> None:
    """Run a command (a function without arguments); bad input becomes a message on stderr and exit code 2."""
    try:
        command()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


class Landscape:
    """What every knockout of a genome costs, in effect units (1 = one detection threshold).

    `effects` maps a site to its additive effect; `sets` holds (sites, penalty) of redundant sets, whose
    penalty is paid when all their sites are knocked out; `functional` are the sites in either.
    """

    __slots__ = ("effects", "functional", "num_sites", "sets")

    def __init__(self, num_sites: int, effects: dict[int, float], sets: list[tuple[frozenset[int], float]]) -> None:
        self.num_sites = num_sites
        self.effects = effects
        self.sets = sets
        self.functional = frozenset(effects).union(*(members for members, _ in sets))

    def check(self, sites: list[int]) -> None:
        """Raise InputError unless all of `sites` (a list) are whole numbers from 0 to num_sites - 1."""
        if sites and not (set(map(type, sites)) == {int} and min(sites) >= 0 and max(sites) < self.num_sites):
            wrong = next(site for site in sites if type(site) is not int or not 0 <= site < self.num_sites)
            raise InputError(f"{wrong!r} is not a site of this genome; its sites are 0 to {self.num_sites - 1}")

    def effect(self, knocked_out: AbstractSet[int]) -> float:
        """Return the effect of a set of knocked-out sites; it does not depend on the set's order."""
        additive = [self.effects[site] for site in knocked_out if site in self.effects]
        penalties = [penalty for members, penalty in self.sets if members <= knocked_out]
        return math.fsum(additive + penalties)


class ExplicitGenome:
    """A landscape, and the sites of it that are knocked out."""

    __slots__ = ("knocked_out", "landscape")

    def __init__(self, landscape: Landscape, knocked_out: frozenset[int]) -> None:
        self.landscape = landscape
        self.knocked_out = knocked_out

    def knock_out(self, sites: list[int]) -> ExplicitGenome:
        """Return this genome with `sites` (a list) knocked out as well. Raises InputError for a site it has not."""
        self.landscape.check(sites)
        return ExplicitGenome(self.landscape, self.knocked_out.union(sites))

    def effect(self) -> float:
        """Return what its knockouts cost it, in effect units."""
        return self.landscape.effect(self.knocked_out)

    def text(self) -> str:
        """Return the genome as JSON text; the knocked-out sites are a hexadecimal number, bit i for site i."""
        content = {
            "sites": self.landscape.num_sites,
            "effects": {str(site): effect for site, effect in self.landscape.effects.items()},
            "sets": [{"sites": sorted(members), "penalty": penalty} for members, penalty in self.landscape.sets],
        }
        if self.knocked_out:
            bits = bytearray(self.landscape.num_sites // 8 + 1)
            for site in self.knocked_out:
                bits[site >> 3] |= 1 << (site & 7)
            content["knockouts"] = format(int.from_bytes(bits, "little"), "x")
        return json.dumps(content) + "\n"


def parse_genome(text: str) -> ExplicitGenome:
    """Read a genome from its JSON text. Raises InputError naming what is wrong with it."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f'the genome is not JSON ({error}); write {{"sites": 10, "effects": {{"3": 0.5}}}}') from None
    if not isinstance(content, dict) or not set(content) <= set(KEYS):
        raise InputError(f"a genome is a JSON object with the keys {', '.join(KEYS)} and no others")
    num_sites = content.get("sites")
    if type(num_sites) is not int or num_sites < 1:
        raise InputError(f'"sites" is {num_sites!r}; it must be the number of sites, at least 1')
    landscape = Landscape(num_sites, _effects(content.get("effects", {})), _sets(content.get("sets", [])))
    landscape.check(list(landscape.functional))
    knocked_out = _knocked_out(content.get("knockouts", "0"))
    landscape.check(knocked_out)
    return ExplicitGenome(landscape, frozenset(knocked_out))


def _effects(content: dict[str, float]) -> dict[int, float]:
    try:
        return {int(site): _number(effect) for site, effect in content.items()}
    except (AttributeError, ValueError):
        raise InputError('"effects" must map site numbers to effects, as in {"3": 0.5}') from None


def _sets(content: list[dict]) -> list[tuple[frozenset[int], float]]:
    try:
        return [(frozenset(_members(entry["sites"])), _number(entry["penalty"])) for entry in content]
    except (KeyError, TypeError, ValueError):
        raise InputError('"sets" must be a list of sets, as in [{"sites": [1, 2], "penalty": 0.9}]') from None


def _members(sites: list[int]) -> list[int]:
    if not sites or len(set(sites)) < len(sites):
        raise ValueError
    return sites


def _number(value: float) -> float:
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    raise ValueError


def _knocked_out(digits: str) -> list[int]:
    try:
        bits = int(digits, 16)
    except (TypeError, ValueError):
        raise InputError('"knockouts" must be a hexadecimal number, as knockem_apply_knockout writes it') from None
    return [site for site, bit in enumerate(reversed(format(bits, "b"))) if bit == "1"]
