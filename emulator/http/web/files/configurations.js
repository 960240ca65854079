// Automatic device configurations.

import { call } from "./api.js";
import { announce, button, confirm, el, errorPlace, fill, table, tell } from "./dom.js";
import { json } from "./text.js";

export function configurations({ main, title }) {
  title("Configurations");
  const place = el("div", {});
  const error = errorPlace();
  fill(main, el("div", { class: "title" }, el("h1", {}, "Configurations"), button("Read again", read)), error.place, el("div", { class: "card" }, place));
  read();

  async function read() {
    try {
      const found = await call("GET", "/configurations");
      fill(place, table("Configurations", ["Id", "Priority", "Target condition", "Targeted", "Applied", "Actions"], found.map(row), "There is no configuration."));
      error.show("");
    } catch (problem) {
      error.show(problem.message);
    }
  }

  function row(each) {
    const numbers = each.systemMetrics?.results ?? {};
    return [
      el("code", {}, each.id),
      each.priority,
      el("code", {}, each.targetCondition ?? ""),
      numbers.targetedCount ?? 0,
      numbers.appliedCount ?? 0,
      [
        button("Details", () => tell(`Configuration ${each.id}`, json(each)), { "aria-label": `Details of ${each.id}` }),
        button("Delete", () => remove(each), { class: "danger", "aria-label": `Delete ${each.id}` }),
      ],
    ];
  }

  async function remove(each) {
    if (!(await confirm(`Delete the configuration ${each.id}?`, "What it has written to twins is removed, or replaced by that of the next configuration.", "Delete"))) return;
    await call("DELETE", `/configurations/${encodeURIComponent(each.id)}`, undefined, { "If-Match": "*" });
    announce(`The configuration ${each.id} is deleted.`);
    await read();
  }

  return {};
}
