"""Notices of interruption, from a server that behaves as the metadata service of a spot instance does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from knockem_dagster.jobs.interruptions import interruption_notice_at

NOTICE = '{"action": "terminate", "time": "2026-11-21T08:22:00Z"}'


@contextmanager
def metadata(*, wants_token: bool, looks_in_vain: int) -> Iterator[tuple[str, list[str]]]:
    """Give the address of the notice, which is there after so many looks, and the requests that came."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:  # as the base class spells it
            asked.append("token")
            self._answer(200, "a-token")

        def do_GET(self) -> None:
            if wants_token and self.headers.get("X-aws-ec2-metadata-token") != "a-token":
                self._answer(401, "")
                return
            asked.append("look")
            there = asked.count("look") > looks_in_vain
            self._answer(200 if there else 404, NOTICE if there else "")

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/latest/meta-data/spot/instance-action", asked
        server.shutdown()


@pytest.mark.parametrize("wants_token", [False, True])
def test_a_notice_is_heard_of(wants_token: bool) -> None:
    with metadata(wants_token=wants_token, looks_in_vain=3) as (address, asked):
        assert asyncio.run(interruption_notice_at(address, look_seconds=0.02)) == NOTICE
    assert asked == ["token"] * wants_token + ["look"] * 4


def test_a_machine_without_such_a_service_hears_nothing() -> None:
    async def wait() -> str:
        async with asyncio.timeout(0.3):
            return await interruption_notice_at("http://127.0.0.1:9/nothing", look_seconds=0.02)

    with pytest.raises(TimeoutError):
        asyncio.run(wait())
