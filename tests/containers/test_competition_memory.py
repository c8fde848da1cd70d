"""The memory of a one-shot competition is its own: that of all its processes, and not of the one before it."""

from __future__ import annotations

import asyncio

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.containers.runtime import Limits
from tests.containers.laboratory import Laboratory, attempt

MEGABYTE = 10**6
HOLD = """
    #!/usr/bin/env python3
    import os, subprocess, sys, time

    def hold(megabytes):
        has = int(next(line for line in open("/proc/self/status") if line.startswith("WHAT:")).split()[1]) << 10
        held = bytearray(max(0, megabytes * 10**6 - has))
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(0.2)

    if sys.argv[1:]:
        hold(int(sys.argv[1]))
    elif os.environ["KNOCKEM_NUM_KNOCKOUT_SITES"] == "1":
        subprocess.run(["sh", "-c", f"{sys.argv[0]} 300; true"])
    else:
        hold(50)
    with open(os.environ["KNOCKEM_RESULT"], "w") as result:
        result.write('{"updatesElapsed": 1, "numAlpha": 1, "numBeta": 1}')
"""
"""Holds 50 MB for 200 ms; of a single knockout a grandchild holds 300 MB."""
WATCHED, COUNTED = "VmHWM", "RssAnon"
"""What is a process's own: a container is not charged for pages of files that others have read before."""


def test_a_large_competition_and_the_small_one_after_it_are_recorded_with_their_own_peaks(
    laboratory: Laboratory,
) -> None:
    specification = laboratory.organism(
        limits=Limits(memory_mib=600, timeout_seconds=60),
        knockem_apply_knockout="cat",
        knockem_compete_two=HOLD.replace("WHAT", WATCHED if laboratory.watches_memory else COUNTED),
    )
    organism = Organism(laboratory.runtime, specification, wild_type="content")

    async def compete() -> list[int | None]:
        ends = [await organism.compete(attempt("large", beta=(1,)))]
        ends += [await organism.compete(attempt(f"small-{each}", beta=(1, 2))) for each in range(2)]
        assert {ended.outcome for ended in ends} == {Outcome.SUCCEEDED}, ends
        return [ended.peak_memory for ended in ends]

    large, *small = asyncio.run(compete())
    assert large == pytest.approx(300 * MEGABYTE, rel=0.1)
    assert small == pytest.approx([50 * MEGABYTE] * 2, rel=0.1)
