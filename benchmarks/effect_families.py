"""What effects of additive sites may be like, in the simulator's unit: the paper's family, and others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

Effects = Callable[[Generator, int], np.ndarray]


def uniform(rng: Generator, count: int) -> np.ndarray:
    """Draw effects U(0, .7), as the paper."""
    return rng.uniform(0, 0.7, count)


def constant(rng: Generator, count: int) -> np.ndarray:
    """Return equal effects."""
    del rng
    return np.full(count, 0.35)


def exponential(rng: Generator, count: int) -> np.ndarray:
    """Draw exponential effects of mean .35."""
    return rng.exponential(0.35, count)


def beta(rng: Generator, count: int) -> np.ndarray:
    """Draw effects up to 1.4, most of them small."""
    return 1.4 * rng.beta(0.5, 1.5, count)


def mixed(rng: Generator, count: int) -> np.ndarray:
    """Draw half of the effects U(0, .2), half U(.4, 1.2)."""
    return np.where(rng.random(count) < 0.5, rng.uniform(0, 0.2, count), rng.uniform(0.4, 1.2, count))


FAMILIES: dict[str, Effects] = {each.__name__: each for each in (uniform, constant, exponential, beta, mixed)}
