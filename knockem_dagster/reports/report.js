// The table of sites: searches and sorts all of them, and keeps one page of rows in the document. And the button that
// copies the methods. The page is complete without this script; everything it puts there is text, never markup.
"use strict";

const ROWS_OF_A_PAGE = 100;
const MISSING = "–";
const MINUS = "−";
const COMPARISONS = {
  "=": (value, bound) => value === bound,
  "<": (value, bound) => value < bound,
  ">": (value, bound) => value > bound,
  "<=": (value, bound) => value <= bound,
  ">=": (value, bound) => value >= bound,
};

// The text of a value: the same that stands in the page's own first rows.
function formatter(decimals) {
  if (decimals === null) return (value) => value ?? MISSING;
  const style = new Intl.NumberFormat("en-US", {
    minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay: "negative",
  });
  return (value) => (value === null ? MISSING : style.format(value).replace("-", MINUS));
}

// What is asked for, as a test of one row (its number in the data). Sites and ranges of sites are alternatives
// ("7, 100-200"); conditions on columns ("set 3", "effect > 0.5") and words must all hold.
function search(query, { columns, values, textOf }) {
  const names = columns.map((column) => column.name).join("|");
  const sites = values[columns.findIndex((column) => column.name === "site")];
  const ranges = [];
  const conditions = [];
  const condition = new RegExp(`\\b(${names})\\s*(<=|>=|<|>|=)?\\s*(-?\\d*\\.?\\d+)(?![\\w.])`, "g");
  const siteOrRange = /(?<![\w.-])(\d+)(?:\s*[-–]\s*(\d+))?(?![\w.])/g;
  const words = query.toLowerCase()
    .replaceAll(MINUS, "-")
    .replace(/(\d),(?=\d{3}(?!\d))/g, "$1")
    .replace(/\bsites?\s+(?=\d)/g, "")
    .replace(condition, (_, name, sign, bound) => {
      const column = values[columns.findIndex((each) => each.name === name)];
      const holds = COMPARISONS[sign ?? "="];
      conditions.push((row) => column[row] !== null && holds(column[row], Number(bound)));
      return " ";
    })
    .replace(siteOrRange, (_, first, last) => {
      ranges.push([Number(first), Number(last ?? first)]);
      return " ";
    })
    .split(/[\s,;]+/).filter(Boolean);
  return (row) =>
    (ranges.length === 0 || ranges.some(([first, last]) => first <= sites[row] && sites[row] <= last)) &&
    conditions.every((holds) => holds(row)) &&
    words.every((word) => textOf(row).includes(word));
}

// Rows by one column; what is missing comes last either way, what is equal stays in order of evidence.
function sort(rows, column, descending) {
  const direction = descending ? -1 : 1;
  return rows.sort((one, other) => {
    const [left, right] = [column[one], column[other]];
    if (left === right) return one - other;
    if (left === null || right === null) return left === null ? 1 : -1;
    return left < right ? -direction : direction;
  });
}

function asCsv({ columns, values }, rows) {
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = rows.map((row) => values.map((column) => quoted(String(column[row] ?? ""))).join(","));
  return [columns.map((column) => column.name).join(","), ...lines, ""].join("\r\n");
}

function save(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  // The browser has taken its copy when the click is over.
  setTimeout(() => URL.revokeObjectURL(link.href));
}

function showTable(place) {
  const data = JSON.parse(place.querySelector("script").textContent);
  const { columns, values } = data;
  const formatters = columns.map((column) => formatter(column.decimals));
  const cells = (row) => formatters.map((format, number) => format(values[number][row]));
  const texts = [];
  data.textOf = (row) => (texts[row] ??= cells(row).join(" ").toLowerCase().replaceAll(MINUS, "-"));

  const body = place.querySelector("tbody");
  const box = place.querySelector(".scroll");
  const told = place.querySelector("output");
  const field = place.querySelector("input");
  const headers = [...place.querySelectorAll("th")];
  const turns = [...place.querySelectorAll("[data-turn]")];
  const everySite = values[0].map((_, row) => row);
  let found = everySite;
  let first = 0;

  function draw() {
    const rows = found.slice(first, first + ROWS_OF_A_PAGE);
    body.replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.append(...cells(row).map((text, number) => {
        const cell = document.createElement("td");
        cell.className = columns[number].decimals === null ? "" : "numeric";
        cell.textContent = text;
        return cell;
      }));
      return line;
    }));
    box.scrollTop = 0;
    const count = found.length.toLocaleString("en-US");
    const range = `${(first + 1).toLocaleString("en-US")}–${(first + rows.length).toLocaleString("en-US")}`;
    told.textContent = rows.length ? `${range} of ${count} ${found.length === 1 ? "site" : "sites"}` : "No site matches";
    turns[0].disabled = first === 0;
    turns[1].disabled = first + ROWS_OF_A_PAGE >= found.length;
  }

  function find() {
    const sorted = headers.findIndex((header) => header.ariaSort !== "none");
    const rows = everySite.filter(search(field.value, data));
    found = sort(rows, values[sorted], headers[sorted].ariaSort === "descending");
    first = 0;
    draw();
  }

  headers.forEach((header, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const starts = columns[number].descending ? "descending" : "ascending";
      const other = starts === "descending" ? "ascending" : "descending";
      const next = header.ariaSort === starts ? other : starts;
      headers.forEach((each) => { each.ariaSort = "none"; });
      header.ariaSort = next;
      find();
    });
  });
  field.addEventListener("input", find);
  field.form.addEventListener("submit", (event) => event.preventDefault());
  turns.forEach((button) => button.addEventListener("click", () => {
    first += Number(button.dataset.turn) * ROWS_OF_A_PAGE;
    draw();
  }));
  const saving = place.querySelector("[data-save]");
  saving.addEventListener("click", () => save(asCsv(data, found), saving.dataset.save));
  place.querySelectorAll("[hidden]").forEach((element) => { element.hidden = false; });
  draw();
}

function offerCopy(button) {
  const said = button.textContent;
  button.parentElement.hidden = false;
  button.addEventListener("click", () => {
    // Selected text is copied from any page; the clipboard's own interface is closed to pages from a plain server.
    getSelection().selectAllChildren(document.querySelector(button.dataset.copy));
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it from here";
    setTimeout(() => { button.textContent = said; }, 2000);
  });
}

document.querySelectorAll("#sites").forEach(showTable);
document.querySelectorAll("[data-copy]").forEach(offerCopy);
