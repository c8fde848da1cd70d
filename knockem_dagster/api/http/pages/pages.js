// The pages: a list of what is one's own, a submission, a workflow. Everything shown is text from the API, put into the
// document as text; nothing is ever parsed as HTML.
"use strict";

const EVERY_MS = 5000;
const STATES = ["blocked", "ready", "running", "completed", "failed", "canceled", "terminated", "disabled"];
const KEY = "knockem-token";
const main = document.getElementById("main");
let session = 0; // raised when somebody logs in or out

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  return fill(made, ...children);
}

// Puts children into an element: nodes, lists of them, text; null is nothing.
function fill(place, ...children) {
  place.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined).map(
    (child) => (child instanceof Node ? child : String(child))));
  return place;
}

function entitle(name) { document.title = name ? `${name} · knockem` : "knockem"; }

function show(...children) { fill(main, ...children); }

function trouble(words) {
  const place = document.getElementById("trouble");
  place.hidden = !words;
  place.textContent = words || "";
}

class Refused extends Error {
  constructor(status, words) { super(words); this.status = status; }
}

// Asks the API. What was asked for somebody who has logged out is never answered, so that nothing more comes of it.
async function call(path, options) {
  const asked = session;
  try {
    return await answerTo(path, options);
  } finally {
    if (asked !== session) await new Promise(() => {});
  }
}

async function answerTo(path, { method = "GET", as = "json" } = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, headers: { Authorization: `Bearer ${localStorage.getItem(KEY) || ""}` } });
  } catch {
    throw new Refused(0, "The platform does not answer. This page goes on as soon as it does.");
  }
  if (answer.ok) return as === "json" ? answer.json() : answer.text();
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail || answer.statusText);
}

function nullIfGone(error) {
  if (error.status === 404) return null;
  throw error;
}

const counted = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
const moment = (text) => (text ? new Date(text).toLocaleString() : "");
const mebibytes = (bytes) => (bytes === null || bytes === undefined ? "" : `${Math.round(bytes / 1048576).toLocaleString("en")} MiB`);

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

function number(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) || Math.abs(value) >= 999.5) return Math.round(value).toLocaleString("en");
  return value.toPrecision(3).replace(/\.0+$|(\.\d*[1-9])0+$/, "$1");
}

function state(name, words = name) {
  return element("span", { class: "state" }, element("span", { class: "dot", style: `background: var(--${name})` }), words);
}

// The state of a workflow or submission; one that is over without all its jobs is no success.
function outcome(of) {
  return of.state === "completed" && of.hasFailed ? state("failed", "completed, not all jobs") : state(of.state);
}

function bar(counts, order, total) {
  return element("div", { class: "bar", role: "img", "aria-label": order.filter((each) => counts[each]).map((each) => `${counts[each]} ${each}`).join(", ") },
    order.filter((each) => counts[each]).map((each) => element("span", {
      title: `${counts[each].toLocaleString("en")} ${each}`,
      style: `background: var(--${each}); width: ${(100 * counts[each]) / Math.max(1, total)}%`,
    })));
}

// An exit code, or what ended a job that has none of its own.
function ending(result) {
  if (!result) return "";
  return ["timed out", "out of memory", "lost"].includes(result.outcome) ? result.outcome : result.exitCode ?? "";
}

function facts(pairs) {
  return element("dl", { class: "facts" }, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined).map(
    ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function table(columns, rows) {
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, columns.map(([name, kind]) => element("th", { class: kind }, name)))),
    element("tbody", {}, rows)));
}

// A button that cannot be pressed again while it acts; what goes wrong is told.
function button(words, act) {
  const made = element("button", { type: "button", onclick: async () => {
    made.disabled = true;
    try {
      await act();
      trouble("");
    } catch (error) {
      trouble(error.message);
    } finally {
      made.disabled = false;
    }
  } }, words);
  return made;
}

function deed(words, question, path, after) {
  return button(words, async () => {
    if (question && !window.confirm(question)) return;
    await call(path, { method: "POST" });
    await after();
  });
}

// Shows a page again and again for as long as it is looked at; what goes wrong is told, and tried again.
async function keepShowing(refresh) {
  const begun = session;
  while (begun === session) {
    if (!document.hidden) {
      try {
        await refresh();
        trouble("");
      } catch (error) {
        if (error.status === 401) { login("The token is unknown, revoked or expired."); return; }
        if (error.status === 404) { show(element("div", { class: "card" }, element("h1", {}, "Not there"), element("p", {}, error.message))); return; }
        trouble(error.message);
      }
    }
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

function login(why) {
  session += 1;
  entitle("");
  trouble("");
  const field = element("input", { type: "password", id: "token", autocomplete: "off", required: true, placeholder: "knockem_..." });
  fill(document.getElementById("who"));
  show(element("form", { class: "card", onsubmit: (event) => {
    event.preventDefault();
    localStorage.setItem(KEY, field.value.trim());
    start();
  } },
  element("h1", {}, "Who are you?"),
  element("p", {}, why || "Enter a token. ", why ? " " : "", "`./knockem token add` makes one; it stays in this browser until you log out."),
  element("label", { for: "token" }, "Token"), element("p", {}, field), element("button", {}, "Log in")));
  field.focus();
}

function who(self) {
  fill(document.getElementById("who"),
    `${self.userEmail} (${self.scope})`,
    element("button", { type: "button", onclick: () => { localStorage.removeItem(KEY); login(); } }, "Log out"));
}

// ---- the list

async function home() {
  const submissions = await call("/v1/submissions?limit=50");
  const workflows = await call("/v1/workflows?limit=50");
  const line = (place, name, about, of) => element("tr", {},
    element("td", {}, element("a", { href: place }, name)), element("td", {}, outcome(of)), element("td", {}, about),
    element("td", {}, of.userEmail), element("td", {}, moment(of.submitted)));
  const columns = (first, about) => [[first], ["state"], [about], ["user"], ["submitted"]];
  show(
    element("section", { class: "card" }, element("h2", {}, "Submissions"),
      submissions.items.length
        ? table(columns("submission", "study"), submissions.items.map((each) => line(
          `/submissions/${each.id}`, each.id.slice(0, 8), `${each.containerImage}, ${counted(each.numSites, "site")}`, each)))
        : element("p", { class: "soft" }, "None yet: `./knockem submit FILE`, or POST /v1/submissions.")),
    element("section", { class: "card" }, element("h2", {}, "Workflows"),
      workflows.items.length
        ? table(columns("workflow", "name"), workflows.items.map((each) => line(
          `/workflows/${each.id}`, each.id.slice(0, 8), each.name, each)))
        : element("p", { class: "soft" }, "None yet: `./knockem workflow submit FILE`, or POST /v1/workflows.")));
}

// ---- a submission

function submission(id) {
  const place = `/v1/submissions/${id}`;
  const report = element("section", { class: "card", hidden: true });
  let shown = false;
  return async function refresh() {
    const seen = await call(place);
    entitle(`${seen.organism} ${id.slice(0, 8)}`);
    const names = (await call(`${place}/results?limit=1000`)).items;
    const told = ["interim_estimates", "estimates"].find((each) => names.includes(each));
    // The interim ones may be gone by now: the stage has its estimates, which come next time.
    const estimates = told ? await call(`${place}/results/${told}?limit=1000`).catch(nullIfGone) : null;
    const going = ["accepted", "running"].includes(seen.state);
    const part = Math.min(1, seen.done / Math.max(1, seen.total));
    const failures = Object.entries(seen.attempts).filter(([outcome]) => outcome !== "succeeded");
    show(
      element("header", { class: "card" },
        element("div", { class: "row apart" },
          element("h1", {}, `${seen.organism}, ${counted(seen.sites, "site")}`),
          element("div", { class: "row" }, state(seen.state),
            going ? deed("Cancel", "End this submission? What is recorded is kept.", `${place}/cancel`, refresh) : null,
            ["failed", "canceled"].includes(seen.state) ? deed("Resume", null, `${place}/resume`, refresh) : null)),
        element("p", { class: "soft" }, `${seen.id} · ${seen.userEmail} · submitted ${moment(seen.submitted)}`),
        seen.reason ? element("p", {}, seen.reason) : null,
        bar({ completed: seen.done, running: seen.active }, ["completed", "running"], Math.max(seen.total, seen.done + seen.active)),
        facts([
          ["competitions", `${number(seen.done)} of ${going ? "about " : ""}${number(seen.total)}`],
          ["done", `${Math.round(100 * part)} %`],
          ["assays", `${seen.assaysDone} of ${seen.assaysTotal}`],
          ["rate", seen.rate === null ? "" : `${number(seen.rate)} / s`],
          ["time left", going && seen.secondsLeft !== null ? `about ${duration(seen.secondsLeft)}` : ""],
          ["interruptions", seen.interruptions || ""],
        ])),
      element("section", { class: "card" }, element("h2", {}, seen.state === "completed" ? "Estimates" : "Estimates so far"),
        estimates?.number ? estimateTable(estimates) : element("p", { class: "soft" },
          going ? "None yet: they come with the first wave of competitions that says anything." : "None were made."),
        names.length ? element("p", { class: "soft" }, `Tables: ${names.join(", ")}`) : null),
      failures.length || seen.untestable ? element("section", { class: "card" }, element("h2", {}, "What failed"),
        facts([...failures.map(([outcome, many]) => [`attempts: ${outcome}`, number(many)]), ["competitions given up", number(seen.untestable)]]),
        seen.givenUp.map((each) => element("p", { class: "soft" }, `${each.assayType} ${each.purpose}: ${each.reason}`))) : null,
      report);
    if (seen.state === "completed" && !shown) {
      shown = true;
      const page = new Blob([await call(`${place}/report`, { as: "text" })], { type: "text/html" });
      report.hidden = false;
      fill(report, element("h2", {}, "Report"),
        element("iframe", { title: "Report", sandbox: "allow-scripts allow-popups allow-downloads", src: URL.createObjectURL(page) }));
    }
  };
}

function estimateTable(found) {
  const at = (row, name) => row[found.columns.findIndex((each) => each.name === name)];
  return table([["quantity"], ["value", "number"], ["interval", "number"], ["level", "number"], ["method"]], found.rows.map((row) =>
    element("tr", {},
      element("td", {}, String(at(row, "quantity")).replaceAll("_", " ")),
      element("td", { class: "number" }, number(at(row, "value"))),
      element("td", { class: "number" }, at(row, "low") === null ? "" : `${number(at(row, "low"))} to ${number(at(row, "high"))}`),
      element("td", { class: "number" }, at(row, "level") === null ? "" : `${Math.round(100 * at(row, "level"))} %`),
      element("td", {}, String(at(row, "method") ?? "")))));
}

// ---- a workflow

function workflow(id) {
  const place = `/v1/workflows/${id}`;
  const head = element("header", { class: "card" });
  const picture = element("div", { class: "scroll picture" });
  const jobs = element("div", {});
  const detail = element("dialog", {});
  const wanted = { state: "", name: "", limit: 50 };
  const byState = element("select", { "aria-label": "state", onchange: (event) => { wanted.state = event.target.value; again(); } },
    element("option", { value: "" }, "all states"), STATES.map((each) => element("option", { value: each }, each)));
  const byName = element("input", { type: "search", "aria-label": "name", placeholder: "name begins with", oninput: (event) => {
    wanted.name = event.target.value;
    clearTimeout(byName.timer);
    byName.timer = setTimeout(again, 250);
  } });
  let built = false;

  function again() { if (jobs.isConnected) showJobs().catch((error) => trouble(error.message)); }

  function showHead(seen) {
    entitle(seen.name);
    fill(head,
      element("div", { class: "row apart" },
        element("h1", {}, seen.name),
        element("div", { class: "row" }, outcome(seen),
          seen.state === "running" ? deed("Cancel", "End this workflow? What is recorded is kept.", `${place}/cancel`, refresh) : null,
          ["completed", "canceled"].includes(seen.state)
            ? deed("Restart what did not complete or has changed", null, `${place}/restart`, refresh) : null)),
      element("p", { class: "soft" }, `${seen.id} · ${seen.userEmail} · submitted ${moment(seen.submitted)}`),
      seen.description ? element("p", {}, seen.description) : null,
      bar(seen.jobs, STATES, seen.number),
      element("div", { class: "row" }, STATES.filter((each) => seen.jobs[each]).map((each) =>
        element("span", { class: "state" }, state(each), number(seen.jobs[each]))), element("span", { class: "soft" }, `of ${counted(seen.number, "job")}`)));
  }

  async function showPicture() {
    let text;
    try {
      text = await call(`${place}/graph`, { as: "text" });
    } catch (error) {
      if (error.status !== 409) throw error;
      fill(picture, element("p", { class: "soft" }, error.message));
      return;
    }
    const drawn = document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
    drawn.querySelectorAll(".node").forEach((node) => node.addEventListener("click", () => {
      byName.value = wanted.name = node.getAttribute("data-name").split("#")[0];
      again();
      jobs.scrollIntoView({ behavior: "smooth", block: "nearest" });
    }));
    const { scrollLeft, scrollTop } = picture;
    fill(picture, drawn);
    picture.scrollTo(scrollLeft, scrollTop);
  }

  async function showJobs() {
    const asked = new URLSearchParams({ limit: wanted.limit, name: wanted.name });
    if (wanted.state) asked.set("state", wanted.state);
    const page = await call(`${place}/jobs?${asked}`);
    const rows = page.items.map(({ job, state: name, result }) => element("tr", {
      class: "opens", tabindex: "0", onclick: () => open(job.id), onkeydown: (event) => { if (event.key === "Enter") open(job.id); },
    },
    element("td", {}, job.name), element("td", {}, state(name)),
    element("td", { class: "number" }, ending(result)), element("td", { class: "number" }, duration(result?.wallSeconds)),
    element("td", { class: "number" }, mebibytes(result?.peakMemory)), element("td", { class: "number" }, `${number(job.resources.memoryMiB)} MiB`)));
    fill(jobs,
      rows.length
        ? table([["job"], ["state"], ["exit code", "number"], ["time", "number"], ["memory used", "number"], ["memory requested", "number"]], rows)
        : element("p", { class: "soft" }, "No job is like that."),
      page.next ? element("button", { type: "button", onclick: () => { wanted.limit = Math.min(1000, wanted.limit * 2); again(); } }, "More") : null);
  }

  async function open(job) {
    try {
      const seen = await call(`${place}/jobs/${job}`);
      const tries = (await call(`${place}/jobs/${job}/tries`)).items.sort((a, b) => a.datetime.localeCompare(b.datetime));
      fill(detail,
        element("div", { class: "row apart" }, element("h2", {}, seen.job.name), state(seen.state)),
        element("pre", {}, seen.job.command.at(-1)),
        facts([["CPUs", number(seen.job.resources.cpus)], ["memory", `${number(seen.job.resources.memoryMiB)} MiB`],
          ["time at most", seen.job.resources.seconds ? duration(seen.job.resources.seconds) : "no limit"], ["folder", seen.job.folder ?? "the worker's"]]),
        tries.length ? tries.map((each, place) => element("section", {},
          element("p", { class: "soft" }, `Try ${place + 1}: ${each.outcome}, exit code ${each.exitCode ?? "none"}, ${duration(each.wallSeconds)}, `
            + `${mebibytes(each.peakMemory)} at most, on ${each.computeNode}`),
          each.tail ? element("pre", {}, each.tail) : null)) : element("p", { class: "soft" },
          ["blocked", "ready", "running"].includes(seen.state) ? "It has not ended yet." : `It is ${seen.state}, and no try at it is recorded.`),
        element("button", { type: "button", onclick: () => detail.close() }, "Close"));
      detail.showModal();
    } catch (error) {
      trouble(error.message);
    }
  }

  async function refresh() {
    showHead(await call(place));
    await showPicture();
    await showJobs();
    if (!built) {
      built = true;
      show(head, element("section", { class: "card" }, element("h2", {}, "Graph"), picture),
        element("section", { class: "card" }, element("div", { class: "row apart" }, element("h2", {}, "Jobs"), element("div", { class: "row" }, byName, byState)), jobs), detail);
    }
  }
  return refresh;
}

async function start() {
  session += 1;
  const given = location.hash.slice(1);
  if (given.startsWith("knockem_")) {
    localStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  if (!localStorage.getItem(KEY)) { login(); return; }
  const [, kind, id] = location.pathname.split("/");
  try {
    // An instance's token is nobody's: it shows that instance's pages, and nothing else.
    if (kind !== "joblogs" || !id) who(await call("/v1/self"));
  } catch (error) {
    login(error.status === 401 ? "The token is unknown, revoked or expired." : error.message);
    return;
  }
  const pages = { submissions: submission, workflows: workflow, joblogs: id ? jobLogsOf : allJobLogs };
  await keepShowing(pages[kind] ? pages[kind](id) : home);
}

start();
