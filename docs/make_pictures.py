"""Make every picture of the README from a fresh demo run: the report, a figure, the check, the Dagster UI.

    .venv/bin/python docs/make_pictures.py [--chromium /usr/bin/chromium]

Needs the development packages (they are in requirements.lock) and Debian's chromium.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1180
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def main() -> None:
    """Run the demo in a home of its own and photograph what a user sees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    chosen = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="knockem-pictures-") as home:
        environment = {**os.environ, "KNOCKEM_HOME": home, "COLUMNS": "96"}
        _knockem("demo", environment=environment)
        objects = Path(home, "objects", "submissions")
        [report] = objects.glob("*/report.html")
        checked = _knockem(
            "check", "deploy/organisms/explicit", "deploy/organisms/explicit/demo_genome.json",
            "--env", "EXPLICIT_MODE=exact", environment=environment,
        )  # fmt: skip
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chosen.chromium, args=FLAGS)
            _photograph(browser, report.as_uri(), PICTURES / "report.png", height=720)
            _photograph_figure(browser, report.parent / "figures" / "site_evidence.svg", "sites.png")
            _photograph_terminal(browser, checked, PICTURES / "check.png")
            _photograph_ui(browser, environment, report.parent.name)
            browser.close()


def _knockem(*arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [ROOT / "knockem", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def _photograph(browser: Browser, url: str, path: Path, *, height: int, settle: str | None = None) -> None:
    page = browser.new_page(viewport={"width": WIDTH, "height": height})
    page.goto(url, wait_until="load", timeout=120_000)
    if settle is not None:
        page.get_by_text(settle).first.wait_for(timeout=120_000)
        page.wait_for_timeout(3_000)
    page.screenshot(path=path)
    page.close()
    _shrink(path)


def _photograph_figure(browser: Browser, figure: Path, name: str) -> None:
    page = browser.new_page(viewport={"width": 640, "height": 420}, device_scale_factor=1.6)
    page.set_content(f"<body style='margin:12px;background:white'>{figure.read_text()}</body>")
    page.locator("svg").first.screenshot(path=PICTURES / name)
    page.close()
    _shrink(PICTURES / name)


def _photograph_terminal(browser: Browser, text: str, path: Path) -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(str(ROOT), "…")
    page = browser.new_page(viewport={"width": 960, "height": 600})
    style = "margin:0;padding:16px;background:#101418;color:#e6e6e6;font:14px/1.35 monospace;width:max-content"
    page.set_content(f"<body style='margin:0'><pre style='{style}'>{html.escape(plain.strip())}</pre></body>")
    page.locator("pre").screenshot(path=path)
    page.close()
    _shrink(path)


def _photograph_ui(browser: Browser, environment: dict[str, str], submission: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [ROOT / "knockem", "up", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            url = next(found[0] for line in up.stdout if (found := re.search(r"http://[0-9.]+:\d+", line)))
            page = f"{url}/assets/weights?view=partitions&partition={submission}"
            _photograph(browser, page, PICTURES / "ui.png", height=900, settle="Latest materialization")
        finally:
            up.send_signal(signal.SIGTERM)


def _shrink(path: Path) -> None:
    """Keep a picture small: 64 colours are enough for pages and plots."""
    Image.open(path).convert("RGB").quantize(colors=64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
