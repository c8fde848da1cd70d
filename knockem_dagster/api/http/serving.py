"""Serving the API: one process, JSON lines as its log."""

from __future__ import annotations

import logging
import sys

import uvicorn

from knockem_dagster.api.http.access_log import JsonLines
from knockem_dagster.api.http.app import build_app
from knockem_dagster.platform import Platform

LEAVING_SECONDS = 5
"""How long requests may take that are being answered when the server is told to end."""


def serve(platform: Platform, *, host: str, port: int) -> None:
    """Answer requests until told to end."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True  # ours has no queries in it
    uvicorn.run(
        build_app(platform),
        host=host,
        port=port,
        loop="asyncio",  # containers are run from here, and uvloop's pipes are not asyncio's
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LEAVING_SECONDS,
    )
