// A query, and its result as a table.

import { el, errorPlace, field, fill, form, table } from "./dom.js";
import { pager } from "./pager.js";
import { count, json, link } from "./text.js";

const EXAMPLES = [
  "SELECT * FROM devices",
  "SELECT deviceId, properties.reported FROM devices WHERE connectionState = 'Connected'",
  "SELECT status, COUNT() AS devices FROM devices GROUP BY status",
  "SELECT * FROM devices.modules",
  "SELECT * FROM devices.jobs",
];
const PAGE = 50;

let kept = EXAMPLES[0];

export function query({ main, title }) {
  title("Query");
  const text = el("textarea", { rows: 3, class: "code", spellcheck: "false", value: kept });
  const result = el("div", {});
  const note = el("p", { class: "numbers", role: "status" });
  const error = errorPlace();
  const pages = pager(PAGE, () => read().catch((problem) => error.show(problem.message)));
  let asked = ""; // the query whose pages are shown

  async function run() {
    kept = text.value;
    asked = text.value;
    pages.restart();
    pages.view.hidden = true;
    fill(result);
    fill(note);
    await read();
  }

  async function read() {
    await pages.query("/devices/query", asked, show);
  }

  function show(rows) {
    error.show("");
    fill(note, count(rows.length, "row"), !pages.view.hidden && " on this page");
    const names = [...new Set(rows.flatMap((each) => Object.keys(each)))];
    fill(result, rows.length ? table("Result", names, rows.map((row) => names.map((name) => cell(row, name)))) : null);
  }

  function cell(row, name) {
    const value = row[name];
    if (value === undefined) return "";
    if (name === "deviceId" && typeof value === "string") return link({ deviceId: value, moduleId: row.moduleId });
    if (typeof value !== "object" || value === null) return el("code", {}, typeof value === "string" ? value : JSON.stringify(value));
    return el("details", {}, el("summary", {}, Array.isArray(value) ? `[${value.length}]` : `{${Object.keys(value).length}}`), json(value));
  }

  const examples = el("select", { onchange: () => { if (examples.value) text.value = examples.value; } }, el("option", { value: "" }, "Choose"), EXAMPLES.map((each) => el("option", { value: each }, each)));
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) view.requestSubmit();
  });
  const view = form("Query", [field("Query", text, "Ctrl+Enter runs it."), field("Examples", examples)], "Run", run);
  fill(main, el("div", { class: "title" }, el("h1", {}, "Query"), note), el("section", { class: "card" }, view), el("div", { class: "result" }, result), error.place, pages.view);
  return {};
}
