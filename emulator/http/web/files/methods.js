// The direct methods of a device: those that wait, those that have ended, and a form to invoke one.

import { call, pathOf } from "./api.js";
import { add, el, fill, form } from "./dom.js";
import { hubNow } from "./live.js";
import { methodFields } from "./method_form.js";
import { Calls, outcome } from "./timeline.js";
import { body, clockTime, duration } from "./text.js";

const MOST = 20;

export function methods(key) {
  const open = new Calls();
  const list = el("ol", { class: "calls", "aria-label": "Calls, the newest first", reversed: true });
  const empty = el("p", { class: "dim" }, "No method was called since the page was opened.");
  const timer = setInterval(tick, 200);

  function tick() {
    for (const { row, began } of open.waiting.values()) {
      fill(row.time, `waiting for the answer: ${duration(Math.max(0, hubNow() - began))}`);
    }
  }

  const fields = methodFields();
  const answer = el("div", { role: "status" });
  const invoke = form(
    "Invoke a method",
    [fields.view, answer],
    "Invoke",
    async () => {
      const request = fields.read();
      fill(answer, el("p", { class: "dim" }, "Waiting for the device."));
      const began = performance.now();
      try {
        const result = await call("POST", pathOf("/twins", key, "/methods"), request);
        fill(answer, el("p", {}, `The device answered with status ${result.status} after ${duration(performance.now() - began)}.`));
      } catch (error) {
        fill(answer);
        throw error;
      }
    },
  );

  return {
    view: el(
      "section",
      { class: "card" },
      el("h2", {}, "Direct methods"),
      empty,
      list,
      el("details", {}, el("summary", {}, "Invoke a method"), invoke),
    ),

    /** Show a call that begins or ends. */
    take(item) {
      if (item.type === "MethodCalled") {
        const row = el("li", { class: "call waits" });
        row.time = el("span", { class: "badge waits" }, "waiting for the answer");
        row.end = el("div", {});
        const sent = item.payload.size ? el("details", {}, el("summary", {}, "Payload"), body(item.payload)) : null;
        add(row, el("div", { class: "line" }, clockTime(item.time), " ", el("code", {}, item.name), " ", row.time), sent, row.end);
        list.prepend(row);
        open.take(item, row);
        while (list.childElementCount > MOST) list.lastElementChild.remove();
      }
      const found = open.take(item.type === "MethodEnded" ? item : {});
      if (found) {
        const { row } = found;
        row.classList.remove("waits");
        row.time.className = item.error ? "badge bad" : "badge good";
        fill(row.time, `${outcome(item)} after ${duration(Date.parse(item.time) - found.began)}`);
        if (item.payload) fill(row.end, el("details", { open: true }, el("summary", {}, "Answer"), body(item.payload)));
      }
      empty.hidden = list.childElementCount > 0;
      tick();
    },

    clear() {
      open.clear();
      fill(list);
      empty.hidden = false;
    },

    close() {
      clearInterval(timer);
    },
  };
}
