// The devices and modules of the hub, in pages, and what happens now beside them.

import { call, send } from "./api.js";
import { announce, button, el, errorPlace, field, fill, renew, table } from "./dom.js";
import { newDevice } from "./device_form.js";
import { watch } from "./live.js";
import { pager } from "./pager.js";
import { serial } from "./serial.js";
import { Timeline } from "./timeline.js";
import { count, idOf, link, recent } from "./text.js";
import { emptyHub } from "./welcome.js";

const PAGE = 25;
const WAIT_MS = 300;
// A search through a large hub takes its time: changes start at most so much of it.
const SHARE = 0.1;
const COLUMNS = "deviceId, connectionState, lastActivityTime, status";
const STATES = {
  All: "",
  Connected: "connectionState = 'Connected'",
  Disconnected: "connectionState = 'Disconnected'",
  Enabled: "status = 'enabled'",
  Disabled: "status = 'disabled'",
};

export function devices({ main, state, title }) {
  title("Devices");
  let shown = new Map();
  let timer = null;
  let chosen = false; // whether the person waits for the list
  let took = 0; // how long the last reading took, in ms
  const load = serial(read);
  const error = errorPlace();
  const numbers = el("p", { class: "numbers" });
  const place = el("div", { "aria-busy": "true" });
  const search = el("input", { type: "search", spellcheck: "false", autocomplete: "off", maxlength: 257 });
  const filter = el("select", {}, Object.entries(STATES).map(([name, condition]) => el("option", { value: condition }, name)));
  const kind = el("select", {}, el("option", { value: "devices" }, "Devices"), el("option", { value: "devices.modules" }, "Modules"));
  const condition = el("input", { class: "code", spellcheck: "false", autocomplete: "off" });
  const pages = pager(PAGE, () => load());
  const timeline = new Timeline("What happens now", { most: 60 });

  fill(
    main,
    el("div", { class: "title" }, el("h1", {}, "Devices"), numbers, button("New device", newDevice, { class: "main" })),
    el(
      "div",
      { class: "columns" },
      el(
        "section",
        { class: "card", "aria-label": "List" },
        el(
          "div",
          { class: "stack", role: "search" },
          el("div", { class: "tools" }, field("Id has", search), field("State", filter), field("Show", kind)),
          el("details", {}, el("summary", {}, "By tags and properties"), field("Condition", condition, "As after WHERE in a query; Enter runs it: tags.floor = 2 AND properties.reported.version = '1.2'")),
        ),
        error.place,
        place,
        pages.view,
      ),
      el("section", { class: "card" }, el("h2", {}, "What happens now"), timeline.view),
    ),
  );
  for (const each of [search, filter, kind]) each.addEventListener("input", choose);
  condition.addEventListener("change", choose);
  load();
  const stream = watch(null, { begin: () => timeline.clear(), take, state });

  /** Something has changed: read again, soon. */
  function changed() {
    timer ??= setTimeout(start, Math.max(WAIT_MS, took / SHARE));
  }

  function start() {
    clearTimeout(timer);
    timer = null;
    load();
  }

  function choose() {
    chosen = true;
    pages.restart();
    clearTimeout(timer);
    timer = setTimeout(start, WAIT_MS);
  }

  function text() {
    const own = condition.value.trim().replace(/^WHERE\b/i, "");
    const all = [filter.value, own && `(${own})`].filter(Boolean).join(" AND ");
    const modules = kind.value === "devices" ? "" : ", moduleId";
    return `SELECT ${COLUMNS}${modules} FROM ${kind.value}${all ? ` WHERE ${all}` : ""}`;
  }

  async function read() {
    const { turns } = pages;
    const began = performance.now();
    try {
      const body = { query: text(), id: search.value.trim() };
      const answer = await send("POST", "/_page/search", { body, headers: pages.headers() });
      const rows = answer.value;
      const ids = rows.map(idOf);
      const protocols = rows.length ? await call("POST", "/_page/protocols", { ids }) : {};
      const total = await statistics();
      if (turns !== pages.turns) return;
      error.show("");
      show(rows, protocols, total?.totalDeviceCount === 0);
      pages.show(rows, answer.headers);
      if (chosen) announce(`${count(rows.length, "row")} found${pages.view.hidden ? "" : " on this page"}.`);
      chosen = false;
      fill(numbers, total && count(total.totalDeviceCount, "device"), total?.disabledDeviceCount > 0 && `, ${total.disabledDeviceCount} disabled`);
    } catch (problem) {
      if (turns === pages.turns) error.show(problem.message);
    } finally {
      took = performance.now() - began;
      place.removeAttribute("aria-busy");
    }
  }

  function show(rows, protocols, isEmpty) {
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
        [cells.state, row.status === "disabled" && [" ", el("span", { class: "badge bad" }, "disabled")]],
        [cells.protocol, "cell-optional"],
        [cells.activity, "cell-optional"],
      ];
    });
    const columns = ["Id", "State", ["Protocol", "cell-optional"], ["Last activity", "cell-optional"]];
    const isAll = !search.value && !filter.value && !condition.value && kind.value === "devices";
    if (isEmpty && isAll) fill(place, emptyHub(newDevice));
    else renew(place, table(kind.value === "devices" ? "Devices" : "Modules", columns, lines, kind.value === "devices" ? "No device is like this." : "No module is like this."));
  }

  function take(items) {
    timeline.take(items);
    for (const item of items) {
      if (item.type === "IdentityCreated" || item.type === "IdentityDeleted" || item.type === "IdentityChanged") changed();
      const cells = item.deviceId ? shown.get(idOf(item)) : null;
      if (!cells) continue;
      if (item.type === "Connected" || item.type === "Disconnected") {
        mark(cells, item.type === "Connected");
        if (item.type === "Connected") changed();
        else fill(cells.protocol);
      }
      if (item.time) fill(cells.activity, recent(item.time));
    }
  }

  return {
    close() {
      clearTimeout(timer);
      stream.close();
      timeline.close();
    },
  };
}

/** Read how many devices there are; null if the policy of the session can't. */
async function statistics() {
  try {
    return await call("GET", "/statistics/devices");
  } catch (problem) {
    if (problem.status === 401) return null;
    throw problem;
  }
}

/** Show whether a device is connected. */
function mark(cells, connected) {
  cells.state.className = `state ${connected ? "on" : ""}`;
  fill(cells.state, connected ? "Connected" : "Disconnected");
}
