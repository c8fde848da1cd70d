"""What the unruly organism does to its competitions, and how often.

Troubles are drawn from the name of the attempt, so a retry of the same competition may fare better and a
given attempt always fares the same. What no retry should change, the number of updates, comes from the seed.

Two environment variables are for tests: UNRULY_SECONDS is how long an attempt usually dawdles (default 0.001), and
UNRULY_SALT makes a server's troubles the same each time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

from explicit_competition import UPDATES, wright_fisher

FAILING = 0.05
SLOW = 0.01
LOSING_ONE_SIDE = 0.01
NONSENSE = 0.02

USUAL_SECONDS = float(os.environ.get("UNRULY_SECONDS", "0.001"))
SLOWDOWN = 100
UPDATES_RANGE = 10
"""The most updates divided by the fewest; their geometric mean is the usual number."""

NONSENSES: tuple[dict[str, object], ...] = (
    {"numBeta": "many"},
    {"numBeta": float("nan")},
    {"numBeta": -1},
    {"numAlpha": 0, "numBeta": 0},
    {"updatesElapsed": 0},
)


class AttemptFailed(RuntimeError):
    """This attempt fails, for no reason that the competition could be blamed for."""


class Troubles:
    """What happens to one attempt."""

    def __init__(self, attempt: str) -> None:
        draw = random.Random(f"troubles of {attempt}")
        self.fails = draw.random() < FAILING
        self.seconds = USUAL_SECONDS * (SLOWDOWN if draw.random() < SLOW else 1)
        self.loses_one_side = draw.random() < LOSING_ONE_SIDE
        self.nonsense = draw.choice(NONSENSES) if draw.random() < NONSENSE else {}

    def distort(self, result: Mapping[str, object]) -> dict[str, object]:
        """Return the result as this attempt reports it. Raises AttemptFailed when it does not come that far."""
        if self.fails:
            raise AttemptFailed("this attempt failed at random; try again")
        one_sided = {"numBeta": 0} if self.loses_one_side else {}
        return {**result, **one_sided, **self.nonsense}


def wright_fisher_of_any_length(effect: float, seed: int) -> dict[str, int]:
    """Compete like the explicit organism, over a number of updates that the seed varies tenfold."""
    factor = UPDATES_RANGE ** random.Random(f"updates of {seed}").uniform(-0.5, 0.5)
    return wright_fisher(effect, seed, round(UPDATES * factor))


def serving_salt() -> str:
    """Return what distinguishes this server's attempts from those of others, whose requests may have the same ids."""
    return os.environ.get("UNRULY_SALT") or os.urandom(8).hex()
