"""The examples of docs/http-api.md, run as they stand by a shell, against a real server with a worker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.http.test_workflows import a_worker
from tests.services.api_server import ApiServer

PAGE = Path(__file__).parents[3] / "docs" / "http-api.md"


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is missing")
def test_the_examples_do_what_the_page_says(api: ApiServer, tmp_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = "\n".join(["set -euo pipefail", *blocks])
    assert "http://127.0.0.1:3001" in script and "knockem_..." in script
    script = script.replace("http://127.0.0.1:3001", api.url).replace("knockem_...", api.token())
    with a_worker(api):
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = ended.stdout
    assert '"scope": "user"' in said
    assert '"jobs": 6' in said, "what the file stands for"
    assert re.findall(r'"(measure_\d)"', said) == ["measure_1", "measure_2"]
    assert "\n5\n" in said, "edges: gather waits for five"
    assert '"rating": 4' in said
    assert '"state": "accepted"' in said
    assert '"jobs[0].comand"' in said
