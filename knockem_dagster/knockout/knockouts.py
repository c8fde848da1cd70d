"""Genomes as the assays see them: a number of sites, and sets of sites knocked out together."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Genome:
    """A wild type: its identifier and its number of sites. Assays never see the content."""

    id: str
    num_sites: int


@dataclass(frozen=True, slots=True)
class KnockoutSet:
    """A set of zero-based sites of a genome with `num_sites` sites, disabled together.

    `mask` has bit i set when site i is knocked out. The empty set is the wild type.
    """

    mask: int
    num_sites: int

    def __post_init__(self) -> None:
        if self.mask < 0 or self.mask.bit_length() > self.num_sites:
            raise ValueError(
                f"a knockout of a genome of {self.num_sites} sites names sites from 0 to {self.num_sites - 1}"
            )

    @classmethod
    def none(cls, num_sites: int) -> KnockoutSet:
        """Return the wild type: nothing knocked out."""
        return cls(0, num_sites)

    @classmethod
    def of(cls, sites: Iterable[int] | NDArray[np.integer], num_sites: int) -> KnockoutSet:
        """Return the set of these sites. Raises ValueError for a site out of range."""
        chosen = np.fromiter(sites, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= num_sites):
            raise ValueError(f"sites of a genome of {num_sites} sites run from 0 to {num_sites - 1}")
        flags = np.zeros(num_sites, dtype=bool)
        flags[chosen] = True
        return cls(int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little"), num_sites)

    @classmethod
    def from_bitset(cls, bitset: str, num_sites: int) -> KnockoutSet:
        """Read the base64 form that the record keeps."""
        return cls(int.from_bytes(base64.b64decode(bitset), "little"), num_sites)

    @property
    def bitset(self) -> str:
        """The base64 form that the record keeps: little-endian bytes, site 0 in the lowest bit."""
        return base64.b64encode(self.to_bytes()).decode("ascii")

    def to_bytes(self) -> bytes:
        """Return ceil(num_sites / 8) bytes, site 0 in the lowest bit of the first."""
        return self.mask.to_bytes((self.num_sites + 7) // 8, "little")

    @property
    def dose(self) -> int:
        """Return the number of sites knocked out."""
        return self.mask.bit_count()

    @property
    def sites(self) -> NDArray[np.int64]:
        """Return the knocked-out sites in ascending order, shape (dose,)."""
        bits = np.unpackbits(np.frombuffer(self.to_bytes(), dtype=np.uint8), bitorder="little")
        return np.flatnonzero(bits).astype(np.int64)

    @property
    def is_wild_type(self) -> bool:
        """Tell whether nothing is knocked out."""
        return self.mask == 0

    def __contains__(self, site: int) -> bool:
        return bool(self.mask >> site & 1)

    def __or__(self, other: KnockoutSet) -> KnockoutSet:
        return KnockoutSet(self.mask | other.mask, self.num_sites)

    def __sub__(self, other: KnockoutSet) -> KnockoutSet:
        return KnockoutSet(self.mask & ~other.mask, self.num_sites)

    def issubset(self, other: KnockoutSet) -> bool:
        """Tell whether every site of this set is in the other."""
        return self.mask & ~other.mask == 0

    def with_site(self, site: int) -> KnockoutSet:
        """Return this set with one more site."""
        return KnockoutSet(self.mask | 1 << site, self.num_sites)
