// The devices and modules of the hub, in pages, and what happens now beside them.

import { call, pathOf, send } from "./api.js";
import { announce, button, dialog, el, errorPlace, field, fill, form, table } from "./dom.js";
import { watch } from "./live.js";
import { Timeline } from "./timeline.js";
import { count, hashOf, link, recent } from "./text.js";

const PAGE = 25;
const WAIT_MS = 300;
const COLUMNS = "deviceId, connectionState, lastActivityTime, status";
const STATES = { all: "", connected: "connectionState = 'Connected'", disabled: "status = 'disabled'" };

export function devices({ main, state, title }) {
  title("Devices");
  let pages = [null]; // the continuation of each page up to the present one
  let next = null;
  let shown = new Map();
  let loading = 0;
  let timer = null;
  let waiting = null; // what the timer calls
  const error = errorPlace();
  const numbers = el("p", { class: "numbers" });
  const place = el("div", { "aria-busy": "true" });
  const search = el("input", { type: "search", spellcheck: "false", autocomplete: "off" });
  const filter = el("select", {}, el("option", { value: "all" }, "All"), el("option", { value: "connected" }, "Connected"), el("option", { value: "disabled" }, "Disabled"));
  const kind = el("select", {}, el("option", { value: "devices" }, "Devices"), el("option", { value: "devices.modules" }, "Modules"));
  const where = el("span", { class: "dim" });
  const back = el("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const forward = el("button", { type: "button", onclick: () => turn(1) }, "Next");
  const timeline = new Timeline("What happens now", { most: 60 });

  fill(
    main,
    el("div", { class: "title" }, el("h1", {}, "Devices"), numbers, button("New device", create, { class: "main" })),
    el(
      "div",
      { class: "columns" },
      el(
        "section",
        { class: "card", "aria-label": "List" },
        el("div", { class: "tools", role: "search" }, field("Id begins with", search), field("State", filter), field("Show", kind)),
        error.place,
        place,
        el("div", { class: "pager" }, back, where, forward),
      ),
      el("section", { class: "card" }, el("h2", {}, "What happens now"), timeline.view),
    ),
  );
  for (const each of [search, filter, kind]) each.addEventListener("input", choose);
  load();
  const stream = watch(null, { begin: () => timeline.clear(), take, state });

  function later(work) {
    clearTimeout(timer);
    waiting = waiting === restart ? restart : work; // a change does not undo another choice
    timer = setTimeout(() => {
      const now = waiting;
      waiting = null;
      now();
    }, WAIT_MS);
  }

  /** The next page of the list before is no page of the new one. */
  function choose() {
    next = null;
    forward.disabled = true;
    later(restart);
  }

  function restart() {
    pages = [null];
    load();
  }

  function turn(step) {
    if (step > 0 && next) pages.push(next);
    if (step < 0 && pages.length > 1) pages.pop();
    load();
  }

  function text() {
    const conditions = [STATES[filter.value]];
    const start = search.value.trim();
    if (start) conditions.push(`STARTSWITH(deviceId, '${start.replace(/[\\']/g, "\\$&")}')`);
    const all = conditions.filter(Boolean).join(" AND ");
    const modules = kind.value === "devices" ? "" : ", moduleId";
    return `SELECT ${COLUMNS}${modules} FROM ${kind.value}${all ? ` WHERE ${all}` : ""}`;
  }

  async function load() {
    loading += 1;
    const mine = loading;
    try {
      const headers = { "x-ms-max-item-count": String(PAGE) };
      if (pages.at(-1)) headers["x-ms-continuation"] = pages.at(-1);
      const answer = await send("POST", "/devices/query", { body: { query: text() }, headers });
      const rows = answer.value;
      const ids = rows.map(idOf);
      const protocols = rows.length ? await call("POST", "/_page/protocols", { ids }) : {};
      if (mine !== loading) return;
      next = answer.headers.get("x-ms-continuation");
      error.show("");
      show(rows, protocols);
      await total(mine);
    } catch (problem) {
      if (mine === loading) error.show(problem.message);
    } finally {
      place.removeAttribute("aria-busy");
    }
  }

  async function total(mine) {
    const answer = await call("GET", "/statistics/devices");
    if (mine !== loading) return;
    fill(numbers, count(answer.totalDeviceCount, "device"), answer.disabledDeviceCount ? `, ${answer.disabledDeviceCount} disabled` : "");
  }

  function show(rows, protocols) {
    shown = new Map();
    const lines = rows.map((row) => {
      const cells = {
        state: el("span", {}),
        protocol: el("span", {}, protocols[idOf(row)] ?? ""),
        activity: el("span", {}, recent(row.lastActivityTime)),
      };
      mark(cells, row.connectionState === "Connected");
      shown.set(idOf(row), cells);
      return [
        link(row),
        cells.state,
        [cells.protocol, "cell-optional"],
        [cells.activity, "cell-optional"],
        row.status === "disabled" ? el("span", { class: "badge bad" }, "disabled") : "enabled",
      ];
    });
    const columns = ["Id", "State", ["Protocol", "cell-optional"], ["Last activity", "cell-optional"], "Status"];
    const empty = search.value || filter.value !== "all" ? "No device is like this." : "There is no device yet. Create one with New device.";
    fill(place, table(kind.value === "devices" ? "Devices" : "Modules", columns, lines, empty));
    const first = (pages.length - 1) * PAGE;
    fill(where, rows.length ? `${(first + 1).toLocaleString("en-US")} to ${(first + rows.length).toLocaleString("en-US")}` : "");
    back.disabled = pages.length === 1;
    forward.disabled = !next;
  }

  function take(items) {
    timeline.take(items);
    for (const item of items) {
      if (item.type === "IdentityCreated" || item.type === "IdentityDeleted" || item.type === "IdentityChanged") later(load);
      const cells = item.deviceId ? shown.get(idOf(item)) : null;
      if (!cells) continue;
      if (item.type === "Connected" || item.type === "Disconnected") {
        mark(cells, item.type === "Connected");
        if (item.type === "Connected") later(load);
        else fill(cells.protocol);
      }
      if (item.time) fill(cells.activity, recent(item.time));
    }
  }

  async function create() {
    const key = await dialog("New device", (close) => {
      const id = el("input", { autocomplete: "off", spellcheck: "false", maxlength: 128, autofocus: true });
      return [
        form("New device", field("Device id", id, "Letters, digits and - . + % _ # * ? ! ( ) , = @ $ ' : ;"), "Create", async () => {
          const deviceId = id.value.trim();
          if (!deviceId) throw new Error("The device id is missing.");
          await call("PUT", pathOf("/devices", { deviceId }), { deviceId });
          announce(`The device ${deviceId} was created.`);
          close({ deviceId });
        }),
        button("Cancel", async () => close(), { class: "quiet" }),
      ];
    });
    if (key) location.hash = hashOf(key);
  }

  return {
    close() {
      clearTimeout(timer);
      stream.close();
      timeline.close();
    },
  };
}

/** Show whether a device is connected. */
function mark(cells, connected) {
  cells.state.className = `state ${connected ? "on" : ""}`;
  fill(cells.state, connected ? "Connected" : "Disconnected");
}

function idOf({ deviceId, moduleId }) {
  return moduleId ? `${deviceId}/${moduleId}` : deviceId;
}
