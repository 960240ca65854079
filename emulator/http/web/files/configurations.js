// Automatic device configurations.

import { call } from "./api.js";
import { announce, button, confirm, el, errorPlace, fill, renew, table, tell } from "./dom.js";
import { edit } from "./configuration_form.js";
import { json } from "./text.js";

const COLUMNS = ["Id", "Priority", "Target condition", "Targeted", "Applied", "Metrics", "Actions"];

export function configurations({ main, title }) {
  title("Configurations");
  const place = el("div", {});
  const error = errorPlace();
  const create = async () => (await edit()) && read();
  fill(
    main,
    el(
      "div",
      { class: "title" },
      el("h1", {}, "Configurations"),
      el("div", { class: "actions end" }, button("Read again", read), button("New configuration", create, { class: "main" })),
    ),
    error.place,
    el("div", { class: "card" }, place),
  );
  read();

  async function read() {
    try {
      const found = await call("GET", "/configurations");
      renew(place, table("Configurations", COLUMNS, found.map(row), "There is no configuration. Create one with New configuration."));
      error.show("");
    } catch (problem) {
      error.show(problem.message);
    }
  }

  function row(each) {
    const numbers = each.systemMetrics?.results ?? {};
    const metrics = Object.entries(each.metrics?.queries ?? {}).map(([name]) => `${name}: ${each.metrics.results?.[name] ?? "too expensive"}`);
    return [
      el("code", {}, each.id),
      each.priority,
      el("code", {}, each.targetCondition ?? ""),
      numbers.targetedCount ?? 0,
      numbers.appliedCount ?? 0,
      metrics.join(", "),
      [
        button("Details", () => tell(`Configuration ${each.id}`, json(each)), { "aria-label": `Details of ${each.id}` }),
        button("Edit", async () => (await edit(each)) && read(), { "aria-label": `Edit ${each.id}` }),
        button("Delete", () => remove(each), { class: "danger", "aria-label": `Delete ${each.id}` }),
      ],
    ];
  }

  async function remove(each) {
    if (!(await confirm(`Delete the configuration ${each.id}?`, "What it has written to twins stays there, or is replaced by the next configuration.", "Delete"))) return;
    await call("DELETE", `/configurations/${encodeURIComponent(each.id)}`, undefined, { "If-Match": "*" });
    announce(`The configuration ${each.id} is deleted.`);
    await read();
  }

  return {};
}
