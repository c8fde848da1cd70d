"""One line of JSON for each request: what was asked, what was answered, of which submission or workflow, how soon.

Neither headers nor queries are logged: a token may be in them.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from knockem_dagster.accounts.tokens import PREFIX
from knockem_dagster.records.record import now

_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{20,}}")
"""Somebody may put one into a path."""
_OWNER = re.compile(r"/v1/(submissions|workflows)/([^/]+)")
_PLACE = b"location"
"""The header that names what was created."""


class JsonLines(logging.Formatter):
    """Formats records as JSON, with the fields that they carry in `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        line = {"time": now(), "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return _TOKEN.sub("knockem_(hidden)", orjson.dumps(line, default=str).decode())


class AccessLog:
    """Logs every request when it has been answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = logging.getLogger("knockem.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, created = 500, ""

        async def noting(message: Message) -> None:
            nonlocal status, created
            if message["type"] == "http.response.start":
                status = message["status"]
                created = dict(message["headers"]).get(_PLACE, b"").decode("latin-1")
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            fields: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - began, 6)}
            if owner := _OWNER.match(scope["path"]) or _OWNER.match(created):
                fields[owner[1].removesuffix("s")] = owner[2]
            self._log.info("%s %s", scope["method"], scope["path"], extra={"fields": fields})
