"""The pages, seen in chromium: who logs in sees what is theirs, as it goes, and may act on it; others may not."""

from __future__ import annotations

import http.server
import re
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from knockem_dagster.assay_runs.tables import report_key, write_table
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.page import report_page
from knockem_dagster.stores.documents import Patch
from tests.api.http.test_workflows import a_worker, submit
from tests.reports import synthetic
from tests.services.api_server import ALICE, BOB, ApiServer
from tests.services.platforms import study
from tests.services.waiting import until

EVERY_MS = 5000


def test_who_logs_in_sees_what_is_theirs_and_nothing_after_logging_out(
    api: ApiServer, page: Page, tmp_path: Path
) -> None:
    mine = submit(api.client(), {"name": "a", "command": "true"}, folder=tmp_path)
    theirs = submit(api.client(BOB), {"name": "a", "command": "true"}, folder=tmp_path)
    page.goto("/")
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
    page.get_by_label("Token").fill("knockem_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("unknown, revoked or expired")).to_be_visible()
    page.get_by_label("Token").fill(api.token())
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text(f"{ALICE} (user)")).to_be_visible()
    expect(page.get_by_role("link", name=mine["id"][:8])).to_be_visible()
    assert page.get_by_role("link", name=theirs["id"][:8]).count() == 0
    page.goto(f"/workflows/{theirs['id']}")
    expect(page.get_by_role("heading", name="Not there")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.goto(f"/workflows/{mine['id']}")
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()


def test_numbers_are_shown_to_three_digits(page: Page) -> None:
    page.goto("/")
    told = {
        0: "0",
        0.5: "0.5",
        0.0354: "0.0354",
        12.3: "12.3",
        100.04: "100",
        120.3: "120",
        999.6: "1,000",
        8850.3: "8,850",
    }
    for value, words in told.items():
        assert page.evaluate("(value) => number(value)", value) == words
    assert page.evaluate("number(null)") == ""


def test_after_logging_out_nothing_more_is_asked_or_shown(api: ApiServer, page: Page, tmp_path: Path) -> None:
    made = submit(api.client(), {"name": "a", "command": "true"}, folder=tmp_path)
    place = f"/v1/workflows/{made['id']}"
    page.clock.install()
    page.goto(f"/workflows/{made['id']}#{api.token()}")
    expect(page.get_by_role("cell", name="a", exact=True)).to_be_visible()
    held: list[Route] = []
    page.route(f"**{place}", lambda route: held.append(route), times=1)  # noqa: PLW0108
    with page.expect_request(f"**{place}"):
        page.clock.run_for(EVERY_MS)
    expect(page).to_have_title("w · knockem")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("knockem")
    page.get_by_label("Token").fill("knockem_half")
    with page.expect_response(f"**{place}"):
        held.pop().continue_()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(3 * EVERY_MS)
    page.evaluate("async () => (await fetch('/healthz')).json()")
    assert asked == [f"{api.url}/healthz"]
    expect(page.get_by_label("Token")).to_have_value("knockem_half")
    expect(page.locator("#trouble")).to_be_hidden()
    page.get_by_label("Token").fill(api.token())
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("cell", name="a", exact=True)).to_be_visible()


def test_a_workflow_is_followed_filtered_opened_and_run_again(api: ApiServer, page: Page, tmp_path: Path) -> None:
    client = api.client()
    made = submit(
        client,
        {"name": "<b>prepare</b>", "command": "echo '<i>ready</i>'"},
        {"name": "measure_{i:02d}", "command": "true", "depends_on": ["<b>prepare</b>"], "parameters": {"i": "1:60"}},
        {"name": "check", "command": "echo too few >&2; test -e there", "depends_on_regexes": ["^measure_"]},
        folder=tmp_path,
    )
    page.goto(f"/workflows/{made['id']}#{api.token()}")
    expect(page.get_by_role("heading", name="w", exact=True)).to_be_visible()
    assert "knockem_" not in page.url, "the token does not stay in the address"
    expect(page.locator(".picture .node")).to_have_count(3)
    with a_worker(api):
        until(lambda: client.get(f"/v1/workflows/{made['id']}").json()["state"] == "completed")
    expect(page.locator("header .state", has_text="completed, not all jobs")).to_be_visible()
    expect(page.locator(".picture .node", has_text="60 jobs")).to_be_visible()
    page.goto("/")
    expect(page.locator("tr", has_text=made["id"][:8])).to_contain_text("completed, not all jobs")
    page.goto(f"/workflows/{made['id']}")
    page.get_by_label("state").select_option("failed")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text(re.compile(r"[1-9]\d* MiB1,024 MiB$"))
    page.locator("tbody tr", has_text="check").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Try 1: failed, exit code 1")).to_be_visible()
    expect(dialog.get_by_text("too few", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    page.get_by_label("state").select_option("")
    page.locator(".picture .node", has_text="measure_").click()
    expect(page.locator("tbody tr").first).to_contain_text("measure_01")
    page.get_by_role("button", name="More").click()
    expect(page.locator("tbody tr")).to_have_count(60)
    page.get_by_label("name").fill("<b>")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody tr").press("Enter")
    expect(dialog.get_by_text("<i>ready</i>", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    (tmp_path / "there").touch()
    page.get_by_role("button", name="Restart what did not complete or has changed").click()
    expect(page.locator("header .state", has_text="running").first).to_be_visible()
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("header .state", has_text="canceled").first).to_be_visible()


def test_a_submission_is_followed(api: ApiServer, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = api.client().post("/v1/submissions", json=study(userEmail=None, containerImage="additive", seed=77))
    assert made.status_code == 201, made.text
    page.goto(f"/submissions/{made.json()['id']}#{api.token()}")
    expect(page.get_by_role("heading", name="additive, 12 sites")).to_be_visible()
    expect(page.get_by_text("0 of about")).to_be_visible()
    expect(page.get_by_text("None yet")).to_be_visible()
    weighed = ["additive sites", 5.0, 3.0, 9.0, "sites", 0.95, "weighing", 700]
    frame = pd.DataFrame([weighed], columns=[column.name for column in TABLES["interim_estimates"].columns])
    write_table(api.platform.objects, made.json()["id"], "interim_estimates", frame)
    expect(page.get_by_role("heading", name="Estimates so far")).to_be_visible()
    expect(page.get_by_role("cell", name="3 to 9")).to_be_visible()
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("canceled by the user")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("header .state", has_text="accepted")).to_be_visible()


def test_the_report_within_its_page_is_whole(api: ApiServer, page: Page) -> None:
    """Its script runs, and it alone: the policies of the page and of the report both hold."""
    id = api.client().post("/v1/submissions", json=study(userEmail=None, containerImage="additive")).json()["id"]
    report = report_page(synthetic.inputs(num_sites=300)).replace("</main>", "<script>owned()</script></main>")
    api.platform.objects.put(report_key(id), report.encode(), content_type="text/html; charset=utf-8")
    api.platform.records.submissions.patch(id, Patch(set={"state": "completed"}))
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text) if said.type == "error" else None)
    page.goto(f"/submissions/{id}#{api.token()}")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("1–100 of 300 sites")).to_be_visible()
    expect(frame.get_by_role("button", name="Copy")).to_be_visible()
    with page.expect_download() as saving:
        frame.get_by_role("button", name="Save as CSV").click()
    assert len(pd.read_csv(saving.value.path())) == 300
    assert refused and all("Executing inline script" in each for each in refused)


def test_another_origin_can_do_nothing(api: ApiServer, browser: Browser, tmp_path: Path) -> None:
    """Somebody is logged in; a page of another port of the same machine tries to read, to act, and to frame."""
    mine = submit(api.client(), {"name": "a", "command": "true"}, folder=tmp_path)
    (tmp_path / "evil.html").write_text(f'<iframe src="{api.url}/workflows/{mine["id"]}"></iframe>')
    handler = lambda *given: http.server.SimpleHTTPRequestHandler(*given, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        context = browser.new_context()
        victim = context.new_page()
        victim.goto(f"{api.url}/#{api.token()}")
        expect(victim.get_by_role("link", name=mine["id"][:8])).to_be_visible()
        assert context.cookies() == []
        evil = context.new_page()
        evil.goto(f"http://127.0.0.1:{other.server_port}/evil.html")
        tried: dict[str, Any] = evil.evaluate(
            """async ([url, id]) => {
                const attempt = async (path, options) => {
                    try { return (await fetch(url + path, options)).status } catch { return "refused" }
                };
                const cancel = `/v1/workflows/${id}/cancel`;
                return {
                    read: await attempt("/v1/workflows", {credentials: "include"}),
                    act: await attempt(cancel, {method: "POST", credentials: "include"}),
                    blind: await attempt(cancel, {method: "POST", mode: "no-cors", credentials: "include"}),
                    stored: localStorage.length,
                };
            }""",
            [api.url, mine["id"]],
        )
        assert tried == {"read": "refused", "act": "refused", "blind": 0, "stored": 0}
        frame = next(each for each in evil.frames if each != evil.main_frame)
        assert "Who are you" not in frame.content() and mine["id"] not in frame.content()
        context.close()
        other.shutdown()
    assert api.client().get(f"/v1/workflows/{mine['id']}").json()["state"] == "running"


def test_pages_hold_no_data_and_load_nothing_from_elsewhere(api: ApiServer) -> None:
    nobody = api.client(token="")
    for path in ("/", "/submissions/x", "/workflows/x"):
        answer = nobody.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "http" not in answer.text.replace("http-equiv", "")
    assert "innerHTML" not in nobody.get("/pages.js").text
