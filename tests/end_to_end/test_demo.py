"""The demo as a new user meets it: interrupted, repeated, and with an image nobody adapted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from knockem_dagster.containers.runtimes import has_engine
from tests.services.command_line import ROOT, command_line, environment_of, knockem

pytestmark = pytest.mark.slow
needs_engine = pytest.mark.skipif(not has_engine(), reason="no container engine answers here")


def test_demo_interrupted_and_repeated_goes_on_and_leaves_nothing_running(tmp_path: Path) -> None:
    environment = environment_of(tmp_path / "home")
    command = command_line("demo")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            done = re.search(r"([\d,]+) of about", line)
            if done is not None and int(done[1].replace(",", "")) > 1_000:
                demo.send_signal(signal.SIGINT)
                break
        said = demo.stderr.read()
    assert demo.returncode == 130
    assert "demo" in said
    assert not _left_running(tmp_path)

    repeated = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert repeated.returncode == 0, repeated.stderr
    assert not _left_running(tmp_path)
    [study] = json.loads(knockem("list", "--json", home=tmp_path / "home").stdout)
    assert study["state"] == "completed"
    report = re.search(r"The report: (.*)", repeated.stdout)
    assert report is not None
    assert "Knockout report" in Path(report[1]).read_text(encoding="utf-8")
    rows = {
        line.split("│")[1].strip(): line.split("│") for line in repeated.stdout.splitlines() if line.startswith("│")
    }
    assert float(rows["additive sites"][5]) == 50
    assert float(rows["functional sites"][3]) == pytest.approx(89, abs=10)


@pytest.mark.docker
@needs_engine
def test_unchanged_scripts_run_in_containers_without_network(tmp_path: Path, organism_images: None) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        f"genome: {ROOT}/deploy/organisms/additive/genome.txt\n"
        "containerImage: knockem/additive\ncontainerRuntime: docker\n"
        "assayTypes: [nulldist, screenCritical]\nuserEmail: someone@example.org\n"
    )
    home = tmp_path / "home"
    submitted = subprocess.run(
        command_line("submit", study, "--wait", "--json"),
        env=environment_of(home), capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    answer = json.loads(submitted.stdout)
    attempts = json.loads(knockem("logs", answer["id"], "--json", "--limit", "500", home=home).stdout)
    assert 150 <= len(attempts) <= 200
    assert {attempt["command"] for attempt in attempts} == {"knockem_compete_two"}


def _left_running(folder: Path) -> list[str]:
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), process.environ().get("KNOCKEM_HOME", "")]
        except psutil.Error:
            continue
        if any(str(folder) in part for part in told) and process.pid != psutil.Process().pid:
            found.append(" ".join(told))
    return found


@pytest.mark.docker
@needs_engine
def test_demo_in_containers_gives_the_same_estimates(tmp_path: Path, organism_images: None) -> None:
    home = tmp_path / "home"
    demo = subprocess.run(
        command_line("demo", "--runtime", "docker"),
        env=environment_of(home), capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert demo.returncode == 0, demo.stderr
    [study] = json.loads(knockem("list", "--json", home=home).stdout)
    attempts = json.loads(knockem("logs", study["id"], "--json", "--limit", "100", home=home).stdout)
    assert {attempt["command"] for attempt in attempts} == {"knockem_serve"}
    labelled = ["docker", "ps", "--all", "--quiet", "--filter", f"label=knockem.submission={study['id']}"]
    assert subprocess.run(labelled, capture_output=True, text=True, check=True).stdout == ""
