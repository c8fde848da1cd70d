"""How two explicit genomes compete: exactly, or as a Wright-Fisher population.

Both take the effect of beta's knockouts beyond alpha's (positive: beta is the worse) and return what the
container contract reports. The environment variable EXPLICIT_MODE chooses between them.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

from explicit_genome import InputError

INDIVIDUALS = 1000
UPDATES = 100
SELECTION = 0.0176
"""Loss of relative fitness for one unit of effect."""

EXACT_INDIVIDUALS = 10**6
EXACT_UNIT = 0.25
"""The exact score of one unit of effect, which is its detection threshold."""
EXACT_BOUND = (1 - 2 / EXACT_INDIVIDUALS) / EXACT_UNIT
"""The largest effect an exact competition tells: one individual of the worse side is left."""
EXACT_DECIMALS = 9
"""What an effect is rounded to, so that one of exactly 1 is not lost in the last bit of a sum."""

if sys.version_info >= (3, 10):  # noqa: UP036 (organisms run on the Python of their image)
    count_ones = int.bit_count
else:

    def count_ones(number: int) -> int:
        """Count the binary ones of a number, five times slower than what Python 3.10 brought."""
        return bin(number).count("1")


def counts(updates: int, num_alpha: int, total: int) -> dict[str, int]:
    """Return the result of a competition, as the contract names its parts."""
    return {"updatesElapsed": updates, "numAlpha": num_alpha, "numBeta": total - num_alpha}


def exact(effect: float, seed: int) -> dict[str, int]:
    """Report the effect itself, and none below the detection threshold; the seed does not matter."""
    effect = round(effect, EXACT_DECIMALS)
    if abs(effect) < 1:
        effect = 0
    effect = max(-EXACT_BOUND, min(EXACT_BOUND, effect))
    return counts(1, round(EXACT_INDIVIDUALS * (1 + EXACT_UNIT * effect) / 2), EXACT_INDIVIDUALS)


def wright_fisher(effect: float, seed: int, updates: int = UPDATES) -> dict[str, int]:
    """Let a half-and-half population reproduce for `updates` generations; the seed decides every draw.

    The worse side has relative fitness 1 - SELECTION * |effect|. Without selection the standard deviation of
    fracAlpha - fracBeta after 100 generations is .309; one unit of effect shifts its mean by 2.24 of these.
    """
    random_bits = random.Random(seed).getrandbits
    fitness_of_worse = max(0.0, 1 - SELECTION * abs(effect))
    fitness_alpha, fitness_beta = (1.0, fitness_of_worse) if effect > 0 else (fitness_of_worse, 1.0)
    num_alpha = INDIVIDUALS // 2
    for _ in range(updates):
        if num_alpha in (0, INDIVIDUALS):
            break
        offspring_alpha = num_alpha * fitness_alpha
        offspring_beta = (INDIVIDUALS - num_alpha) * fitness_beta
        num_alpha = binomial(random_bits, INDIVIDUALS, offspring_alpha / (offspring_alpha + offspring_beta))
    return counts(updates, num_alpha, INDIVIDUALS)


def binomial(random_bits: Callable[[int], int], trials: int, probability: float) -> int:
    """Draw from the binomial distribution, exactly, with about two random bits a trial.

    Each trial compares a uniform number with the probability, binary digit by digit from the first; a digit
    decides half of the trials still open. As trials are exchangeable, only counts of them are needed.
    """
    successes = 0
    while trials and probability:
        probability *= 2
        ones = count_ones(random_bits(trials))
        if probability >= 1:
            probability -= 1
            successes += trials - ones
            trials = ones
        else:
            trials -= ones
    return successes


MODES = {"exact": exact, "wright-fisher": wright_fisher}


def mode_from_environment() -> Callable[[float, int], dict[str, int]]:
    """Return the competition that EXPLICIT_MODE names. Raises InputError for a name that is none."""
    name = os.environ.get("EXPLICIT_MODE", "wright-fisher")
    if name not in MODES:
        raise InputError(f"EXPLICIT_MODE is {name!r}; it must be one of {', '.join(MODES)}")
    return MODES[name]
