// Faults of a device, on and off. docs/faults.md says what each kind does.

import { call } from "./api.js";
import { parseObject } from "./mistake.js";
import { announce, button, el, errorPlace, field, fill, form } from "./dom.js";

// Those of docs/faults.md that a device can have.
const KINDS = [
  "drop-connection", "refuse-connection", "expire-token", "drop-link", "slow-link", "delay-puback", "drop-puback", "twin-status", "throttle",
  "quota-exceeded", "server-error", "service-unavailable", "delay-method", "lose-method", "fail-method", "delay-method-response",
  "lose-method-response", "duplicate-c2d", "reorder-c2d",
];
const READ_MS = 2000;

export function faults(key, parts) {
  const list = el("ul", { class: "plain" });
  const error = errorPlace();
  const kind = el("select", {}, KINDS.map((each) => el("option", { value: each }, each)));
  const more = el("textarea", { rows: 2, class: "code", spellcheck: "false" });

  async function read() {
    try {
      const all = await call("GET", "/_emulator/faults");
      const own = all.filter((each) => !each.device || each.device === key.deviceId);
      fill(
        list,
        own.map((each) => {
          const { id, kind: name, device, hits, ...rest } = each;
          const off = button("Turn off", () => remove(id), { "aria-label": `Turn off ${name}` });
          return el("li", {}, el("code", {}, name), ` ${device ? "" : "for all devices, "}happened ${hits ?? 0} times `, Object.keys(rest).length ? el("code", {}, JSON.stringify(rest)) : null, " ", off);
        }),
        !own.length && el("li", { class: "dim" }, "No fault is on."),
      );
      error.show("");
    } catch (problem) {
      error.show(problem.message);
    }
  }

  async function remove(id) {
    await call("DELETE", `/_emulator/faults/${encodeURIComponent(id)}`);
    await read();
  }

  const fault = form("Turn a fault on", [field("Kind", kind), field("Details", more, 'JSON, or empty: {"delay": 5, "count": 3}')], "Turn on", async () => {
    const details = parseObject(more.value, "The details are");
    const module = key.moduleId ? { module: key.moduleId } : {};
    await call("POST", "/_emulator/faults", { kind: kind.value, device: key.deviceId, ...module, ...details });
    announce(`The fault ${kind.value} is on.`);
    await read();
  });
  const view = el("details", { class: "card" }, el("summary", {}, el("h2", {}, "Faults")), error.place, list, fault);
  let timer = null;
  view.addEventListener("toggle", () => {
    clearInterval(timer);
    timer = view.open ? setInterval(() => document.hidden || read(), READ_MS) : null;
    if (view.open) read();
  });
  parts.push({ close: () => clearInterval(timer) });
  return view;
}
