// The hub: its rates, all that happens, refusals, the clock, and reset.

import { call } from "./api.js";
import { announce, button, confirm, el, errorPlace, field, fill, form, renew, table } from "./dom.js";
import { chart } from "./chart.js";
import { hubNow, watch } from "./live.js";
import { KINDS, Timeline } from "./timeline.js";
import { clockTime, count } from "./text.js";

// A flood of refusals is not read once for each.
const WAIT_MS = 500;

export function hub({ main, state, title }) {
  title("Hub");
  const rates = chart();
  const numbers = el("p", { class: "numbers" });
  const words = el("input", { type: "search", spellcheck: "false", autocomplete: "off" });
  const boxes = Object.keys(KINDS).map((name) => [name, el("input", { type: "checkbox", checked: true })]);
  const timeline = new Timeline("What happens in the hub", { most: 300, keeps });
  const refusals = el("div", {});
  const hold = el("button", { type: "button", "aria-pressed": "false", onclick: pause }, "Pause");
  let held = null; // what came while the list is paused
  let soon = null; // the timer of the next reading of the refusals
  const timers = [];

  function keeps(item) {
    const box = boxes.find(([name]) => KINDS[name].includes(item.type));
    const text = words.value.trim().toLowerCase();
    return (!box || box[1].checked) && (!text || JSON.stringify(item).toLowerCase().includes(text));
  }

  function pause() {
    const items = held;
    held = held ? null : [];
    hold.setAttribute("aria-pressed", String(held !== null));
    fill(hold, held ? "Continue" : "Pause");
    if (items) timeline.take(items);
  }

  for (const input of [words, ...boxes.map(([, each]) => each)]) {
    input.addEventListener("input", () => timeline.filter(keeps));
  }

  fill(
    main,
    el("div", { class: "title" }, el("h1", {}, "Hub"), numbers),
    el("section", { class: "card" }, el("h2", {}, "Messages and calls"), rates.view),
    el(
      "div",
      { class: "columns" },
      el(
        "section",
        { class: "card" },
        el("div", { class: "head" }, el("h2", {}, "What happens"), hold),
        el("div", { class: "tools" }, field("Filter by text", words)),
        el("fieldset", { class: "kinds" }, el("legend", { class: "unseen" }, "Kinds"), boxes.map(([name, box]) => el("label", {}, box, name))),
        timeline.view,
      ),
      el(
        "div",
        { class: "stack" },
        el("section", { class: "card" }, el("h2", {}, "Refusals"), el("p", { class: "dim" }, "What the hub refused, with the reason that the client does not get."), refusals),
        clock(timers),
        reset(),
      ),
    ),
  );

  const stream = watch(null, {
    state,
    begin() {
      timeline.clear();
      rates.clear();
      if (held) held = [];
      readRefusals();
    },
    take(items) {
      for (const item of items) {
        if (item.type !== "Numbers") continue;
        rates.take(item);
        fill(numbers, `${item.connected.toLocaleString("en-US")} connected, ${count(item.messages, "message")} since the beginning`);
      }
      if (items.some((each) => each.type === "Refused")) soon ??= setTimeout(readRefusals, WAIT_MS);
      if (held) held = [...held, ...items].slice(-300);
      else timeline.take(items);
    },
  });

  async function readRefusals() {
    clearTimeout(soon);
    soon = null;
    try {
      const found = await call("GET", "/_emulator/refusals");
      const rows = found.reverse().slice(0, 30).map((each) => [clockTime(each.time), each.text]);
      renew(refusals, table("Refusals", ["Time", "What and why"], rows, "The hub refused nothing."));
    } catch (error) {
      fill(refusals, el("p", { class: "error" }, error.message));
    }
  }

  return {
    close() {
      stream.close();
      timeline.close();
      for (const each of [...timers, soon]) clearTimeout(each);
    },
  };
}

/** The clock of the hub, and a form to advance it. */
function clock(timers) {
  const now = el("p", { class: "clock" });
  const ahead = el("p", { class: "dim" });
  const step = el("input", { value: "PT1H", spellcheck: "false", autocomplete: "off" });
  const error = errorPlace();

  function show(value) {
    fill(ahead, value.advancedBy ? `${value.advancedBy.toLocaleString("en-US")} s ahead of this machine` : "The same as this machine");
  }

  call("GET", "/_emulator/clock").then(show, (problem) => error.show(problem.message));
  timers.push(setInterval(() => fill(now, new Date(hubNow()).toISOString().replace("T", " ").slice(0, 19), " UTC"), 1000));
  const advance = form("Advance the clock", field("Advance by", step, "An ISO 8601 duration: PT30S, PT1H, P1D; or seconds"), "Advance", async () => {
    const text = step.value.trim();
    show(await call("POST", "/_emulator/clock", { advance: /^\d+(\.\d+)?$/.test(text) ? Number(text) : text }));
    announce("The clock was advanced.");
  });
  return el("section", { class: "card" }, el("h2", {}, "Clock"), now, ahead, error.place, advance);
}

/** A button that resets the hub. */
function reset() {
  const error = errorPlace();
  const work = async () => {
    const text = "All devices, twins, messages, jobs and configurations are deleted, and every connection is closed. The devices of the hub's options are created again.";
    if (!(await confirm("Reset the hub?", text, "Reset"))) return;
    await call("POST", "/_emulator/reset", { scope: "all" });
    announce("The hub is reset.");
    location.hash = "#/";
  };
  return el("section", { class: "card" }, el("h2", {}, "Reset"), el("p", {}, "Make the hub as it was at its first start."), error.place, button("Reset the hub", work, { class: "danger" }, error.show));
}
