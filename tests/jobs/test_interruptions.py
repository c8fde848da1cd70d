"""Notices of interruption, from a server that behaves as the metadata service of a spot instance does."""

from __future__ import annotations

import asyncio

import pytest

from knockem_dagster.jobs.interruptions import interruption_notice_at
from tests.services.interruptions import NOTICE, notice_server


@pytest.mark.parametrize("wants_token", [False, True])
def test_a_notice_is_heard_of(wants_token: bool) -> None:
    with notice_server(wants_token=wants_token, looks_in_vain=3) as (address, asked):
        assert asyncio.run(interruption_notice_at(address, look_seconds=0.02)) == NOTICE
    assert asked == ["token"] * wants_token + ["look"] * 4


def test_a_machine_without_such_a_service_hears_nothing() -> None:
    async def wait() -> str:
        async with asyncio.timeout(0.3):
            return await interruption_notice_at("http://127.0.0.1:9/nothing", look_seconds=0.02)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
