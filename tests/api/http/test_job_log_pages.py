"""The pages of job logs, seen in chromium: an instance sees its own, everybody what many run, nobody a single job."""

from __future__ import annotations

import math
import re
from pathlib import Path

import httpx
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from knockem_dagster.joblogs.instances import instance_called, local_instance, register, revoke
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.joblogs import QuarantineValue, ReportRecord, ReportState
from knockem_dagster.records.record import new_id
from tests.services.api_server import ADMINISTRATOR, ApiServer
from tests.services.joblogs import REAL, report_of, table

EVERY_MS = 5000


def job_logs_of(api: ApiServer) -> tuple[str, str]:
    """Take the real archives in, and one with bad metadata; return the ids of their instances, the large first."""
    records, objects = api.platform.records, api.platform.objects
    archives = sorted(REAL, key=lambda archive: archive.stat().st_size, reverse=True)
    for archive in archives:
        instance = local_instance(records, archive.parents[1].name)
        Ledger(records, objects).receive(instance.id, "0", archive, archive.with_name("0.json").read_bytes())
        Ledger(records, objects).receive(instance.id, "bad", Path(__file__), b"{}")
        Marts(records, objects).refresh(instance.id)
    large, small = (archive.parents[1].name for archive in archives)
    return large, small


@pytest.mark.parametrize("width", [390, 1200])
def test_an_instance_sees_its_jobs_and_tools(api: ApiServer, page: Page, width: int) -> None:
    id, other = job_logs_of(api)
    records = api.platform.records
    revoke(records, instance_called(records, id))
    token = register(records, id)[1]
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/joblogs/{id}#{token}")
    expect(page.get_by_role("heading", name="Most wasteful tools")).to_be_visible()
    expect(page.get_by_text("The metadata are not those of a report")).to_be_visible()
    expect(page.locator(".columns .column")).to_have_count(12)
    with page.expect_download() as taken:
        page.locator(".card", has=page.get_by_role("heading", name="Most used tools")).get_by_role(
            "button", name="CSV"
        ).click()
    rows = pd.read_csv(taken.value.path())
    assert rows["jobs"].sum() == 1940 and rows["tool"][0] == "Cut1"
    page.get_by_role("link", name="fastqc", exact=True).first.click()
    expect(page.get_by_role("heading", name="Memory that jobs used at most")).to_be_visible()
    recommended = page.locator(".card", has=page.get_by_role("heading", name="Recommended"))
    dates = r"2024-\d\d-\d\d 202\d-\d\d-\d\d"
    expect(recommended.get_by_role("row", name=re.compile(f"^all 98 1 .* {dates}$"))).to_be_visible()
    runtime = page.locator(".card", has=page.get_by_role("heading", name="How long jobs ran"))
    asked = {"tool": httpx.URL(page.url).params["tool"]}
    told = api.client(token=token).get(f"/v1/jobLogs/instances/{id}/tables/runtime", params=asked).json()["rows"]
    lowest, highest = (round(2 * math.log2(row[0])) for row in (told[0], told[-1]))
    assert len(told) <= highest - lowest, "some bins are empty"
    expect(runtime.locator(".columns .column")).to_have_count(highest - lowest + 1)
    allocation = page.locator(".card", has=page.get_by_role("heading", name="Allocation against use"))
    expect(allocation.locator("tbody tr").first.locator(".allocated")).to_be_visible()
    with page.expect_download() as taken:
        allocation.get_by_role("button", name="CSV").click()
    rows = pd.read_csv(taken.value.path())
    assert rows["used_share"].tolist() == pytest.approx((rows["used_gb_hours"] / rows["allocated_gb_hours"]).tolist())
    expect(page.get_by_role("cell", name="unknown", exact=True)).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"/joblogs/{other}")
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()


def test_of_all_instances_an_administrator_sees_a_list_and_others_what_many_run(api: ApiServer, page: Page) -> None:
    id, _ = job_logs_of(api)
    page.goto(f"/joblogs#{api.token(ADMINISTRATOR, Scope.ADMINISTRATOR)}")
    expect(page.get_by_role("heading", name="Instances")).to_be_visible()
    page.get_by_role("link", name=id).click()
    expect(page.get_by_role("heading", name="Most used tools")).to_be_visible()
    page.goto(f"/joblogs#{api.token()}")
    page.reload()
    expect(page.get_by_text("once three instances have run it")).to_be_visible()
    expect(page.get_by_role("heading", name="Instances")).to_be_hidden()
    expect(page.get_by_role("link", name="Cut1")).to_have_count(0)


def send_jobs(api: ApiServer, instance: str, name: str, rows: list[tuple[object, ...]], folder: Path) -> None:
    """Take in a report of these jobs, whose marts are not computed yet."""
    report = report_of(folder, {"jobs": table("jobs", rows)}, generated=name)
    ledger = Ledger(api.platform.records, api.platform.objects)
    metadata = report.metadata.model_dump_json(by_alias=True).encode()
    ledger.read(ledger.receive(instance, name, report.archive, metadata))


def jobs_of_months(number: int) -> list[tuple[object, ...]]:
    months = [f"{2024 + month // 12}-{1 + month % 12:02}-01 00:00:00" for month in range(number)]
    return [(id, "cat", "1.0", "ok", month) for id, month in enumerate(months)]


def test_an_open_page_shows_marts_once_they_are_in_use_and_leaves_open_what_was_opened(
    api: ApiServer, page: Page, instance: dict[str, str], tmp_path: Path
) -> None:
    marts = Marts(api.platform.records, api.platform.objects)
    send_jobs(api, instance["id"], "1", jobs_of_months(16), tmp_path)
    marts.refresh(instance["id"])
    page.clock.install()
    page.goto(f"/joblogs/{instance['id']}#{instance['token']}")
    months = page.locator(".card", has=page.get_by_role("heading", name="Jobs over time"))
    months.get_by_role("button", name="All 16").click()
    expect(months.locator("tbody tr")).to_have_count(16)
    send_jobs(api, instance["id"], "2", jobs_of_months(17), tmp_path)
    page.clock.run_for(EVERY_MS)
    expect(page.locator("header.card")).to_contain_text("reports in use2")
    marts.refresh(instance["id"])
    page.clock.run_for(EVERY_MS)
    expect(months.locator("tbody tr")).to_have_count(17)
    marts.refresh(instance["id"], again=True)
    with page.expect_request("**/tables/months?*"):
        page.clock.run_for(EVERY_MS)
    expect(months.locator("tbody tr")).to_have_count(17)


def test_the_page_of_all_instances_asks_for_tables_only_when_there_are_others(
    api: ApiServer, page: Page, instance: dict[str, str], tmp_path: Path
) -> None:
    marts = Marts(api.platform.records, api.platform.objects)
    others = [local_instance(api.platform.records, name).id for name in ("second", "third")]
    for id in (instance["id"], *others):
        send_jobs(api, id, "1", jobs_of_months(40), tmp_path)
        marts.refresh(id)
    page.clock.install()
    page.goto(f"/joblogs#{api.token()}")
    months = page.locator(".card", has=page.get_by_role("heading", name="Jobs over time"))
    months.get_by_role("button", name="All").click()
    months.locator("h2").evaluate("(heading) => { heading.dataset.seen = true; }")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response("**/v1/jobLogs/marts"):
        page.clock.run_for(EVERY_MS)
    with page.expect_response("**/v1/jobLogs/marts"):
        page.clock.run_for(EVERY_MS)
    assert not [url for url in asked if "/tables/" in url]
    expect(months.locator("h2[data-seen]")).to_be_visible()
    shown = months.locator("tbody tr").count()
    for id in (instance["id"], *others):
        send_jobs(api, id, "2", jobs_of_months(42), tmp_path)
        marts.refresh(id)
    page.clock.run_for(EVERY_MS)
    expect(months.locator("tbody tr")).to_have_count(shown + 2)


def test_of_a_tool_that_many_run_everybody_sees_what_is_of_no_single_job(
    api: ApiServer, page: Page, instance: dict[str, str], tmp_path: Path
) -> None:
    seen = [(id, "tools/cat", "1.0", "ok", "2024-01-05 00:00:00") for id in range(30)]
    unseen = [(id, "tools/dog", "1.0", "ok", "2024-01-05 00:00:00") for id in range(30, 60)]
    others = [local_instance(api.platform.records, name).id for name in ("fourth", "fifth")]
    for id in (instance["id"], *others):
        send_jobs(api, id, "1", [*seen, *unseen] if id == instance["id"] else seen, tmp_path)
        Marts(api.platform.records, api.platform.objects).refresh(id)
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(f"/joblogs#{api.token()}")
    tools = page.locator(".card", has=page.get_by_role("heading", name="Most used tools"))
    expect(tools.get_by_role("columnheader", name="largest memory")).to_have_count(0)
    tools.get_by_role("link", name="cat", exact=True).click()
    expect(page).to_have_title(re.compile("^cat · job logs"))
    recommended = page.locator(".card", has=page.get_by_role("heading", name="Recommended"))
    recommended.get_by_role("button", name="Compute").click()
    expect(recommended.get_by_role("row", name=re.compile("^all 90 .* 2024-01 2024-01$"))).to_be_visible()
    versions = page.locator(".card", has=page.get_by_role("heading", name="Versions"))
    expect(versions.get_by_role("row", name=re.compile("^1.0 90 .* 2024-01$"))).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto("/joblogs?tool=tools/dog")
    expect(page.get_by_text("There is no tool 'tools/dog' of which enough is known.")).to_be_visible()


def test_what_is_quarantined_is_shown_however_many_reports_are_in_use(
    api: ApiServer, page: Page, instance: dict[str, str]
) -> None:
    reports = api.platform.records.job_log_reports
    of = ReportRecord(id="", instance_id=instance["id"], name="", archive_digest="", digest="")
    loaded = [{"id": new_id(), "name": f"a{number:04}", "state": ReportState.LOADED} for number in range(1000)]
    reports.add_many(of.model_copy(update=each) for each in loaded)
    why = QuarantineValue(what="It is spoiled", remedy="send it again")
    spoiled = {"state": ReportState.QUARANTINED, "quarantine": why}
    reports.add_many(of.model_copy(update={"id": new_id(), "name": f"z{number:02}", **spoiled}) for number in range(53))
    page.goto(f"/joblogs/{instance['id']}#{instance['token']}")
    expect(page.get_by_text("z00: It is spoiled: send it again.")).to_be_visible()
    expect(page.get_by_text("3 more are quarantined.")).to_be_visible()
    client = api.client(token=instance["token"])
    found = client.get(f"/v1/jobLogs/instances/{instance['id']}/reports", params={"state": "quarantined"}).json()
    assert [each["name"] for each in found["items"]] == [f"z{number:02}" for number in range(53)]
