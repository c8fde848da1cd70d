"""The HTTP API as one application: its parts, its specification, its errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from knockem_dagster.api.http import accounts, graphs, job_logs, service, submissions, work, workflows
from knockem_dagster.api.http.access_log import AccessLog
from knockem_dagster.api.http.bodies import BoundedBodies
from knockem_dagster.api.http.pages import routes
from knockem_dagster.api.http.problems import MEDIA_TYPE, Problem, explain_errors
from knockem_dagster.api.http.site import Site
from knockem_dagster.platform import Platform

VERSION = "1"
_REFERENCE = "#/components/schemas/{model}"
_ABOUT = (
    "Knockout studies, workflows and the work they bring, over HTTP. "
    "Every request but /healthz carries a token: `Authorization: Bearer knockem_...`. "
    "Errors are problem details (RFC 9457). Lists come in pages: `next` of one is the `cursor` of the next."
)
_PARTS = (submissions, workflows, graphs, accounts, work, job_logs)
_MODELS: tuple[type[BaseModel], ...] = (*(model for part in _PARTS for model in part.MODELS), Problem)
_PROBLEM = {
    "description": "A problem",
    "content": {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model=Problem.__name__)}}},
}


class _Api(FastAPI):
    """An application whose specification also tells of bodies that are read as they are, and of problems."""

    def openapi(self) -> dict[str, Any]:
        """Return the specification (OpenAPI 3.1)."""
        if self.openapi_schema is None:
            made = get_openapi(title=self.title, version=self.version, description=self.description, routes=self.routes)
            schemas = made["components"]["schemas"]
            _, bodies = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REFERENCE)
            schemas |= bodies["$defs"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            for path in made["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = _PROBLEM
                    operation["summary"] = operation["description"].partition("\n")[0].rstrip(".")
            self.openapi_schema = made
        return self.openapi_schema


def build_app(platform: Platform) -> FastAPI:
    """Return the API over these stores; it closes them when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        site = Site(platform)
        app.state.site = site
        try:
            yield
        finally:
            await site.close()

    app = _Api(
        title="knockem_dagster", version=VERSION, description=_ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    explain_errors(app)
    app.add_middleware(BoundedBodies, unbounded=job_logs.UPLOADS)
    app.add_middleware(AccessLog)
    for part in (*_PARTS, service, routes):
        app.include_router(part.router)
    app.include_router(job_logs.galaxy)
    return app
