"""Serving the pages: the same shell for each place, its script and its style; no data, and nothing from elsewhere.

The token stays in the browser's storage for this address and port, and goes into the Authorization header of each call.
There is no cookie, so that a page of another origin has nothing to act by.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from knockem_dagster.api.http.site import site_of
from knockem_dagster.reports.script import SCRIPT_SOURCE

_FOLDER = Path(__file__).parent
_SHELL = (_FOLDER / "shell.html").read_text(encoding="utf-8")
_STYLE = (_FOLDER / "pages.css").read_bytes()
_SCRIPTS = {f"/{path.name}": path.read_bytes() for path in _FOLDER.glob("*.js")}
_PLACE_OF_LINK = "<!-- Dagster UI -->"
# The report within a page is under the page's policy as well as its own: its one script and its icon are permitted.
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self' {SCRIPT_SOURCE}; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data:; frame-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
@router.get("/submissions/{submission}", response_class=HTMLResponse)
@router.get("/workflows/{workflow}", response_class=HTMLResponse)
@router.get("/joblogs", response_class=HTMLResponse)
@router.get("/joblogs/{instance}", response_class=HTMLResponse)
async def page(request: Request) -> HTMLResponse:
    """Return the shell of a page."""
    url = site_of(request).platform.settings.ui_url
    link = "" if url is None else f'<a href="{url}">Dagster UI</a>'
    return HTMLResponse(_SHELL.replace(_PLACE_OF_LINK, link), headers=_HEADERS)


@router.get("/pages.css")
async def style() -> Response:
    """Return how the pages look."""
    return Response(_STYLE, media_type="text/css", headers=_HEADERS)


@router.get("/pages.js")
@router.get("/job_logs.js")
async def script(request: Request) -> Response:
    """Return what the pages do."""
    return Response(_SCRIPTS[request.url.path], media_type="text/javascript", headers=_HEADERS)
