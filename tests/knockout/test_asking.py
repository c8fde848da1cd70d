"""Asking side by side: results in order, and one failure ends the rest."""

from __future__ import annotations

import asyncio

import pytest

from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.asking import side_by_side


def test_results_come_in_the_order_of_the_parts_whoever_finishes_first() -> None:
    async def run() -> list[int]:
        second_is_done = asyncio.Event()

        async def first() -> int:
            await second_is_done.wait()
            return 1

        async def second() -> int:
            second_is_done.set()
            return 2

        return await side_by_side([first(), second()])

    assert asyncio.run(run()) == [1, 2]


def test_the_first_failure_cancels_parts_that_would_wait_for_ever() -> None:
    canceled: list[bool] = []

    async def waiting() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.append(True)
            raise

    async def failing() -> None:
        raise AssayError("no answer")

    async def run() -> None:
        await asyncio.wait_for(side_by_side([waiting(), failing(), waiting()]), timeout=20)

    with pytest.raises(AssayError, match="no answer"):
        asyncio.run(run())
    assert canceled == [True, True]
