// The modules of a device, and a form to create one.

import { call, pathOf } from "./api.js";
import { button, dialog, el, errorPlace, field, fill, form, renew, table } from "./dom.js";
import { dateTime, link } from "./text.js";

export function modules(key) {
  const place = el("div", {}, el("p", { class: "dim" }, "Loading"));
  const error = errorPlace();

  async function load() {
    try {
      const found = await call("GET", pathOf("/devices", key, "/modules"));
      const rows = found.map((each) => [link(each), each.connectionState, dateTime(each.lastActivityTime)]);
      renew(place, rows.length ? table(`Modules of ${key.deviceId}`, ["Id", "State", "Last activity"], rows) : el("p", { class: "dim" }, "This device has no modules."));
    } catch (problem) {
      fill(place);
      if (problem.status !== 404) error.show(problem.message);
    }
  }

  async function create() {
    const made = await dialog("New module", (close) => {
      const id = el("input", { autocomplete: "off", spellcheck: "false", maxlength: 128, autofocus: true });
      return [
        form("New module", field("Module id", id), "Create", async () => {
          const module = { deviceId: key.deviceId, moduleId: id.value.trim() };
          if (!module.moduleId) throw new Error("The module id is missing.");
          await call("PUT", pathOf("/devices", module), module);
          close(module);
        }),
        button("Cancel", async () => close(), { class: "quiet" }),
      ];
    });
    if (made) load();
  }

  load();
  return el("section", { class: "card" }, el("div", { class: "head" }, el("h2", {}, "Modules"), button("New module", create)), error.place, place);
}
