"""The example notebook runs as it stands, on a small finished study."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.services.command_line import ROOT, environment_of, knockem, tiny_submission


@pytest.mark.filterwarnings("default")  # other people's warnings, in starting a kernel
def test_example_notebook_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    submitted = knockem("submit", tiny_submission(tmp_path / "study"), "--wait", home=home)
    assert submitted.returncode == 0, submitted.stderr
    notebook = nbformat.read(ROOT / "docs" / "example.ipynb", as_version=4)
    # Figures' fonts and the kernel's files stay out of the user's own folders.
    private = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(cwd=str(tmp_path), env=environment_of(home, **private))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = {output["data"]["text/plain"] for output in outputs if "data" in output}
    assert any("Submission(" in text and "completed" in text for text in shown)
    assert any("detection thresholds" in text for text in shown)
    assert any("skeletonization" in text for text in shown)
