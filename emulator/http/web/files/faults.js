// Faults of a device, on and off. docs/faults.md says what each kind does.

import { call } from "./api.js";
import { parseObject } from "./mistake.js";
import { announce, button, el, errorPlace, field, fill, form, renew } from "./dom.js";

// Those of docs/faults.md that a device can have: what happens, and members of their own.
const KINDS = {
  "drop-connection": ["The connection ends, once.", { how: "cut" }],
  "refuse-connection": ["No connection is accepted.", {}],
  "expire-token": ["The connection ends, as when its token expires.", {}],
  "drop-link": ["A link of AMQP ends, once.", { link: "telemetry" }],
  "slow-link": ["So many bytes pass in a second, each way.", { rate: 1000 }],
  "delay-puback": ["The acknowledgment of a message comes late, by seconds.", { delay: 5 }],
  "drop-puback": ["The acknowledgment of a message is lost.", {}],
  "twin-status": ["Twin requests of the device have this status.", { status: 429 }],
  "throttle": ["Requests of the device are throttled.", {}],
  "quota-exceeded": ["The messages of the day are used up.", {}],
  "server-error": ["Requests of the device fail with 500.", {}],
  "service-unavailable": ["Requests of the device fail with 503.", {}],
  "delay-method": ["A direct method reaches the device late, by seconds.", { delay: 5 }],
  "lose-method": ["A direct method does not reach the device.", {}],
  "fail-method": ["The call of a direct method fails with this status.", { status: 404 }],
  "delay-method-response": ["The response comes late, by seconds.", { delay: 5 }],
  "lose-method-response": ["The response is lost.", {}],
  "duplicate-c2d": ["A message to the device arrives twice.", {}],
  "reorder-c2d": ["A message to the device arrives behind the next one.", {}],
};
const READ_MS = 2000;

export function faults(key, parts) {
  const list = el("ul", { class: "plain" });
  const error = errorPlace();
  const kind = el("select", {}, Object.keys(KINDS).map((each) => el("option", { value: each }, each)));
  const more = el("textarea", { rows: 2, class: "code", spellcheck: "false" });
  const effect = el("p", { class: "dim" });
  const explain = () => {
    const [text, members] = KINDS[kind.value];
    fill(effect, text);
    more.value = Object.keys(members).length ? JSON.stringify(members) : "";
  };
  kind.addEventListener("input", explain);
  explain();

  async function read() {
    try {
      const all = await call("GET", "/_emulator/faults");
      const own = all.filter((each) => !each.device || each.device === key.deviceId);
      renew(
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

  const fault = form("Turn a fault on", [field("Kind", kind), effect, field("Details", more, 'JSON, or empty. All kinds can have a duration in seconds, and most a count: {"count": 3}')], "Turn on", async () => {
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
