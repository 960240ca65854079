// A query, and its result as a table.

import { send } from "./api.js";
import { button, el, field, fill, form, table } from "./dom.js";
import { json, link } from "./text.js";

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
  let rows = [];

  async function run(continuation = null) {
    kept = text.value;
    const headers = { "x-ms-max-item-count": String(PAGE) };
    if (continuation) headers["x-ms-continuation"] = continuation;
    else fill(result);
    const answer = await send("POST", "/devices/query", { body: { query: text.value }, headers });
    rows = continuation ? [...rows, ...answer.value] : answer.value;
    show(answer.headers.get("x-ms-continuation"));
  }

  function show(next) {
    fill(note, `${rows.length.toLocaleString("en-US")} ${rows.length === 1 ? "row" : "rows"}${next ? ", and there are more" : ""}`);
    const names = [...new Set(rows.flatMap((each) => Object.keys(each)))];
    const lines = rows.map((row) => names.map((name) => cell(row, name)));
    fill(result, rows.length ? table("Result", names, lines) : null, next && button("More", () => run(next)));
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
  const view = form("Query", [field("Query", text, "Ctrl+Enter runs it."), field("Examples", examples)], "Run", () => run());
  fill(main, el("div", { class: "title" }, el("h1", {}, "Query"), note), el("section", { class: "card" }, view), el("div", { class: "result" }, result));
  return {};
}
