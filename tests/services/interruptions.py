"""A server that tells of interruptions as the metadata service of a spot instance does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOTICE = '{"action": "terminate", "time": "2026-11-21T08:22:00Z"}'


@contextmanager
def notice_server(
    *, wants_token: bool = False, looks_in_vain: int = 0, given: threading.Event | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Give the address of the notice, which is there after so many looks, once `given`; and the requests that came."""
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
            there = asked.count("look") > looks_in_vain and (given is None or given.is_set())
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
