// The pages of job logs: the instances, one of them, and a tool of it. Every chart stands above its table, which can be
// taken away as CSV.
"use strict";

const OUTCOMES = { ok: "completed", error: "failed", deleted: "canceled", failed: "failed", stopped: "terminated", skipped: "disabled" };
const JOB_LOG_TABLE_ROWS = 15;
const QUARANTINED_SHOWN = 50;
const wholeTables = new Set(); // names of tables that somebody asked for
const day = (seconds) => (seconds === null || seconds === undefined ? "" : new Date(seconds * 1000).toLocaleDateString());
const percent = (share) => (share === null || share === undefined ? "" : `${(100 * share).toFixed(1)} %`);

// Where the page of an instance is, or of all (no id); of a tool there.
function placeOfJobs(id, tool) {
  return `/joblogs${id ? `/${id}` : ""}${tool ? `?tool=${encodeURIComponent(tool)}` : ""}`;
}

// A date; of all instances together only the month is told.
const dateIn = (id, text) => (text ?? "").slice(0, id ? 10 : 7);

// All rows of a table, as objects.
async function rowsOf(place, tool) {
  const asked = new URLSearchParams({ limit: 1000, ...(tool ? { tool } : {}) });
  const found = { columns: [], rows: [] };
  for (let next = ""; next !== null;) {
    if (next) asked.set("cursor", next);
    const page = await call(`${place}?${asked}`);
    found.columns = page.columns;
    found.rows.push(...page.rows.map((row) => Object.fromEntries(page.columns.map((column, index) => [column.name, row[index]]))));
    next = page.next ?? null;
  }
  return found;
}

function csv(found) {
  const quoted = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [found.columns.map((column) => column.name), ...found.rows.map((row) => found.columns.map((column) => row[column.name]))];
  return `${lines.map((line) => line.map(quoted).join(",")).join("\n")}\n`;
}

function takeAway(found, name) {
  return element("button", { type: "button", onclick: () => {
    const link = element("a", { download: `${name}.csv`, href: URL.createObjectURL(new Blob([csv(found)], { type: "text/csv" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  } }, "CSV");
}

// A card with a chart, the table below it, and the table as CSV; long tables are shown in part until asked for, and from
// then on whole, also when there are other rows.
function tableCard({ title, about, found, name, chart, columns, line }) {
  const body = element("div", {});
  const isLong = found.rows.length > JOB_LOG_TABLE_ROWS && !wholeTables.has(name);
  const showRows = (rows) => fill(body, table(columns, rows.map(line)));
  showRows(isLong ? found.rows.slice(0, JOB_LOG_TABLE_ROWS) : found.rows);
  const more = isLong ? element("button", { type: "button", class: "more", onclick: () => { wholeTables.add(name); showRows(found.rows); more.remove(); } }, `All ${number(found.rows.length)}`) : null;
  return element("section", { class: "card" },
    element("div", { class: "row apart" }, element("h2", {}, title), takeAway(found, name)),
    about ? element("p", { class: "soft" }, about) : null,
    found.rows.length ? [chart, body, more] : element("p", { class: "soft" }, "Nothing is known of that."));
}

// Columns side by side, each of parts on top of one another: { label, parts: [[colour, number, words]] }.
function columnsChart(columns, words) {
  const total = (column) => column.parts.reduce((sum, [, number]) => sum + number, 0);
  const most = Math.max(1, ...columns.map(total));
  return element("figure", { class: "chart" },
    element("div", { class: "soft" }, `${number(most)} ${words}`),
    element("div", { class: "columns", role: "img", "aria-label": columns.map((column) => `${column.label}: ${number(total(column))}`).join(", ") },
      columns.map((column) => element("div", { class: "column", title: `${column.label}: ${column.parts.map(([, many, what]) => `${number(many)} ${what}`).join(", ")}` },
        column.parts.map(([colour, many]) => element("span", { style: `height: ${(100 * many) / most}%; background: var(--${colour})` }))))),
    element("div", { class: "row apart soft" }, element("span", {}, columns[0]?.label ?? ""), element("span", {}, columns.length > 1 ? columns.at(-1).label : "")));
}

function monthsCard(found) {
  const months = [...new Set(found.rows.map((row) => row.month))];
  const states = Object.keys(OUTCOMES);
  const chart = columnsChart(months.map((month) => ({
    label: month,
    parts: found.rows.filter((row) => row.month === month).sort((a, b) => states.indexOf(b.state) - states.indexOf(a.state))
      .map((row) => [OUTCOMES[row.state] ?? "blocked", row.jobs, row.state]),
  })), "jobs in a month");
  return tableCard({
    title: "Jobs over time", found, name: "months", chart,
    columns: [["month"], ["state"], ["jobs", "number"], ["hours", "number"]],
    line: (row) => element("tr", {}, element("td", {}, row.month), element("td", {}, state(OUTCOMES[row.state] ?? "blocked", row.state)),
      element("td", { class: "number" }, number(row.jobs)), element("td", { class: "number" }, number(row.hours))),
  });
}

function toolLink(id, row) {
  return element("a", { href: placeOfJobs(id, row.tool_id), title: row.tool_id }, row.tool);
}

function mostUsedCard(id, found) {
  return tableCard({
    title: "Most used tools", found, name: "tools",
    columns: [["tool"], ["jobs", "number"], ["failed", "number"], ["hours", "number"], ...(id ? [["largest memory", "number"]] : []), ["last used"]],
    line: (row) => element("tr", {}, element("td", {}, toolLink(id, row)), element("td", { class: "number" }, number(row.jobs)),
      element("td", { class: "number" }, percent(row.error_rate)), element("td", { class: "number" }, number(row.hours)),
      id ? element("td", { class: "number" }, gigabytes(row.memory_largest)) : null, element("td", { class: "date" }, dateIn(id, row.last_used))),
  });
}

const gigabytes = (value) => (value === null || value === undefined ? "unknown" : `${number(value)} GB`);

// What was allocated, as a bar, and within it what was used.
function allocation(row, most) {
  const share = (value) => `${Math.min(100, (100 * value) / most)}%`;
  return element("div", { class: "allocated", style: `width: ${share(row.allocated_gb_hours)}`, title: `${number(row.used_gb_hours)} of ${number(row.allocated_gb_hours)} GB h used` },
    element("span", { style: `width: ${Math.min(100, (100 * (row.used_gb_hours ?? 0)) / Math.max(row.allocated_gb_hours, 1e-9))}%` }));
}

function wastefulCard(id, tools) {
  const found = { columns: tools.columns, rows: tools.rows.filter((row) => row.wasted_gb_hours !== null).sort((a, b) => b.wasted_gb_hours - a.wasted_gb_hours) };
  const most = Math.max(1e-9, ...found.rows.map((row) => row.allocated_gb_hours));
  return tableCard({
    title: "Most wasteful tools", about: "Memory times how long jobs ran: blue is what they used at most, yellow what they were given beyond that.", found, name: "wasteful_tools",
    columns: [["tool"], ["used of what was allocated"], ["allocated, GB h", "number"], ["used, GB h", "number"], ["wasted, GB h", "number"]],
    line: (row) => element("tr", {}, element("td", {}, toolLink(id, row)), element("td", { class: "wide" }, allocation(row, most)),
      element("td", { class: "number" }, number(row.allocated_gb_hours)), element("td", { class: "number" }, number(row.used_gb_hours)),
      element("td", { class: "number" }, number(row.wasted_gb_hours))),
  });
}

function allocationCard(versions) {
  const found = { columns: versions.columns, rows: versions.rows.filter((row) => row.allocated_gb_hours !== null) };
  const most = Math.max(1e-9, ...found.rows.map((row) => row.allocated_gb_hours));
  return tableCard({
    title: "Allocation against use", found, name: "allocation",
    about: "Memory times how long jobs ran, of those whose memory, given and used, is known: blue is what they used at most, yellow what they were given beyond that.",
    columns: [["version"], ["used of what was allocated"], ["jobs", "number"], ["allocated, GB h", "number"], ["used, GB h", "number"], ["used", "number"]],
    line: (row) => element("tr", {}, element("td", {}, row.tool_version ?? "others"), element("td", { class: "wide" }, allocation(row, most)),
      element("td", { class: "number" }, number(row.allocation_known)), element("td", { class: "number" }, number(row.allocated_gb_hours)),
      element("td", { class: "number" }, number(row.used_gb_hours)), element("td", { class: "number" }, percent(row.used_share))),
  });
}

// Bins are told where there are jobs in them; the chart has the others, too: each ends at the square root of 2 times
// where it begins.
function binsOf(rows) {
  return rows.flatMap((row, index) => {
    const end = index ? rows[index - 1].high : row.low;
    const missing = Math.round(2 * Math.log2(row.low / end));
    return [...Array.from({ length: missing }, (_, place) => ({ low: end * 2 ** (place / 2), high: end * 2 ** ((place + 1) / 2), jobs: 0 })), row];
  });
}

function histogramCard(found, title, name, unit) {
  const label = (row) => `${number(row.low)} to ${number(row.high)} ${unit}`;
  return tableCard({
    title, found, name, chart: columnsChart(binsOf(found.rows).map((row) => ({ label: label(row), parts: [["running", row.jobs, "jobs"]] })), "jobs in a bin"),
    columns: [[unit], ["jobs", "number"]],
    line: (row) => element("tr", {}, element("td", {}, label(row)), element("td", { class: "number" }, number(row.jobs))),
  });
}

function versionsCard(id, found) {
  return tableCard({
    title: "Versions", found, name: "versions",
    columns: [["version"], ["jobs", "number"], ["failed", "number"], ["memory: median", "number"], ["95 %", "number"], ...(id ? [["largest", "number"]] : []),
      ["at its limit", "number"], ["time: median", "number"], ["95 %", "number"], ["last used"]],
    line: (row) => element("tr", {}, element("td", {}, row.tool_version ?? "others"), element("td", { class: "number" }, number(row.jobs)),
      element("td", { class: "number" }, percent(row.error_rate)), ...[row.memory_median, row.memory_95, ...(id ? [row.memory_largest] : [])].map((each) => element("td", { class: "number" }, gigabytes(each))),
      element("td", { class: "number" }, number(row.memory_at_limit)), element("td", { class: "number" }, duration(row.runtime_median)),
      element("td", { class: "number" }, duration(row.runtime_95)), element("td", {}, dateIn(id, row.last_used))),
  });
}

function recommendationsCard(id, found) {
  const shown = { columns: found.columns, rows: found.rows.filter((row) => !row.verdict || !row.tool_version) };
  return tableCard({
    title: "Recommended", found: shown, name: "recommendations",
    about: "From what its latest jobs used, for review: memory by the size of inputs, in GB. Failed tries are how many to expect in 100 jobs.",
    columns: [["version"], ["jobs", "number"], ["cores", "number"], ["memory, GB"], ["next try", "number"], ["failed tries", "number"], ["at its limit", "number"], ["time", "number"], ["jobs from"], ["to"]],
    line: (row) => element("tr", {}, element("td", {}, row.tool_version || "all"), element("td", { class: "number" }, number(row.jobs)),
      ...(row.verdict ? [element("td", { colspan: 6 }, row.verdict)] : [
        element("td", { class: "number" }, row.cores === null ? "unknown" : number(row.cores)), element("td", {}, row.memory_rule ?? "unknown"),
        element("td", { class: "number" }, row.next_try === null ? "" : `× ${number(row.next_try)}`), element("td", { class: "number" }, row.failed_tries === null ? "" : number(row.failed_tries)),
        element("td", { class: "number" }, percent(row.memory_at_limit)), element("td", { class: "number" }, row.runtime === null ? "unknown" : duration(row.runtime))]),
      ...[row.first_used, row.last_used].map((each) => element("td", { class: "date" }, dateIn(id, each)))),
  });
}

// Of all instances together nothing is kept of what is recommended, and it takes longer than the rest of the page.
function askForRecommendations(answered) {
  const card = element("section", { class: "card" }, element("h2", {}, "Recommended"), element("p", { class: "soft" }, "From the latest jobs of all instances together."),
    button("Compute", async () => card.replaceWith(await answered())));
  return card;
}

// What an instance is, for the header; what is quarantined, as far as it is shown.
function instanceHead(seen, quarantined) {
  const age = seen.lastGenerated === null ? null : Date.now() / 1000 - seen.lastGenerated;
  const unshown = seen.reports.quarantined - quarantined.length;
  return [
    element("div", { class: "row apart" }, element("h1", {}, element("a", { href: placeOfJobs(seen.id) }, seen.name)),
      seen.lastGenerated === null ? null : state(seen.isLate ? "ready" : "completed", seen.isLate ? "late" : "as usual")),
    seen.name === seen.id ? null : element("p", { class: "soft" }, seen.id),
    facts([
      ["jobs", number(seen.jobs)],
      ["reports in use", number(seen.reports.loaded)],
      ["not read yet", seen.reports.received || ""],
      ["quarantined", seen.reports.quarantined || ""],
      ["last good report", age === null ? "none" : `${day(seen.lastGenerated)}, ${duration(age)} ago`],
      ["usually one in", seen.usualInterval === null ? "" : duration(seen.usualInterval)],
    ]),
    quarantined.map((each) => element("p", { class: "warned" }, `${each.name}: ${each.quarantine}`)),
    unshown > 0 ? element("p", { class: "soft" }, `${number(unshown)} more are quarantined.`) : null,
  ];
}

const toolAsked = () => new URLSearchParams(location.search).get("tool");
const shortName = (tool) => tool.split("/").at(-1);

// What the marts say of an instance, or of all (no id): of their tools, or of the one that is asked for. Gives the place
// of that and a function that fills it when another generation of marts is in use, and else does nothing: what somebody
// opened or marked stays as it is.
function cardsOfMarts(id) {
  const tool = toolAsked();
  const tables = (...names) => Promise.all(names.map((each) => rowsOf(`/v1/jobLogs${id ? `/instances/${id}` : ""}/tables/${each}`, tool)));
  const ofTool = async () => {
    const [versions, memory, runtime, recommended] = await tables("versions", "memory", "runtime", ...(id ? ["recommendations"] : []));
    return [element("section", { class: "card" }, element("h1", {}, shortName(tool)), element("p", { class: "soft" }, tool)),
      recommended ? recommendationsCard(id, recommended) : askForRecommendations(async () => recommendationsCard(id, (await tables("recommendations"))[0])),
      versionsCard(id, versions), allocationCard(versions),
      histogramCard(memory, "Memory that jobs used at most", "memory", "GB"), histogramCard(runtime, "How long jobs ran", "runtime", "s")];
  };
  const ofTools = async () => {
    const [months, tools] = await tables("months", "tools");
    return [monthsCard(months), mostUsedCard(id, tools), wastefulCard(id, tools)];
  };
  let shown;
  const cards = element("div", { class: "cards" });
  return [cards, async (generation) => {
    if (generation === shown) return;
    fill(cards, ...(await (tool ? ofTool() : ofTools())));
    shown = generation;
  }];
}

// One instance: all its tools, or one of them.
function jobLogsOf(id) {
  const place = `/v1/jobLogs/instances/${id}`;
  const tool = toolAsked();
  const head = element("header", { class: "card" });
  const [cards, showCards] = cardsOfMarts(id);
  return async function refresh() {
    const seen = await call(place);
    const quarantined = seen.reports.quarantined ? (await call(`${place}/reports?state=quarantined&limit=${QUARANTINED_SHOWN}`)).items : [];
    entitle(tool ? `${shortName(tool)} · ${seen.name}` : seen.name);
    who({ userEmail: seen.name, scope: "job logs" });
    fill(head, ...instanceHead(seen, quarantined));
    await showCards(seen.marts);
    if (!head.isConnected) show(head, cards);
  };
}

// All instances together: for administrators the list of them, for everybody the tools that several of them run, or one
// of these.
function allJobLogs() {
  const tool = toolAsked();
  const list = element("div", { class: "cards" });
  const [cards, showCards] = cardsOfMarts(null);
  return async function refresh() {
    const [self, { generation }] = await Promise.all([call("/v1/self"), call("/v1/jobLogs/marts")]);
    const listed = self.scope === "administrator" && !tool ? call("/v1/jobLogs/instances?limit=1000") : { items: [] };
    entitle(tool ? `${shortName(tool)} · job logs` : "Job logs");
    const [{ items: instances }] = await Promise.all([listed, showCards(generation)]);
    fill(list, instances.length ? instancesCard(instances) : null);
    if (!list.isConnected) show(list, cards, element("p", { class: "soft" }, "A tool is shown here once three instances have run it, and 20 jobs of it are known."));
  };
}

function instancesCard(instances) {
  return element("section", { class: "card" }, element("h2", {}, "Instances"),
    table([["instance"], ["reports", "number"], ["quarantined", "number"], ["jobs", "number"], ["last good report"]], instances.map((each) => element("tr", {},
      element("td", {}, element("a", { href: placeOfJobs(each.id) }, each.name)), element("td", { class: "number" }, number(each.reports.loaded)),
      element("td", { class: "number" }, number(each.reports.quarantined)), element("td", { class: "number" }, number(each.jobs)),
      element("td", {}, each.lastGenerated === null ? "none" : state(each.isLate ? "ready" : "completed", day(each.lastGenerated)))))));
}
