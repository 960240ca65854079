// One device or module: its twin, its direct methods and its messages, as they happen.

import { call, pathOf } from "./api.js";
import { connectionString } from "./connection_string.js";
import { announce, button, confirm, copy, el, errorPlace, fill } from "./dom.js";
import { command } from "./command_form.js";
import { faults } from "./faults.js";
import { watch } from "./live.js";
import { methods } from "./methods.js";
import { modules } from "./modules.js";
import { Timeline } from "./timeline.js";
import { twin } from "./twin.js";
import { dateTime, hashOf, idOf, link } from "./text.js";
import { firstConnection } from "./welcome.js";

export function device({ main, state, title, session }, key) {
  const name = idOf(key);
  title(name);
  let last = null; // the twin
  let protocol = "";
  const connection = el("span", { class: "state" });
  const facts = el("p", { class: "numbers" });
  const error = errorPlace();
  const toggle = button("Disable", setStatus);
  const timeline = new Timeline(`Messages and changes of ${name}`, { most: 100, current: name });
  const properties = twin(key);
  const calls = methods(key);
  const start = el("div", { hidden: true }, firstConnection(key, session));
  const parts = [];

  fill(
    main,
    el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Devices"), key.moduleId && [" / ", link({ deviceId: key.deviceId })]),
    el("div", { class: "title" }, el("h1", {}, key.moduleId ?? key.deviceId), connection, facts),
    el(
      "div",
      { class: "actions" },
      button("Copy connection string", copyConnectionString),
      !key.moduleId && toggle,
      button("Delete", remove, { class: "danger" }),
    ),
    error.place,
    start,
    el(
      "div",
      { class: "columns" },
      el("div", { class: "stack" }, properties.view, !key.moduleId && modules(key)),
      el(
        "div",
        { class: "stack" },
        calls.view,
        el("section", { class: "card" }, el("h2", {}, "What happens"), timeline.view),
        !key.moduleId && command(key),
        faults(key, parts),
      ),
    ),
  );

  const stream = watch(key, {
    state,
    begin() {
      timeline.clear();
      calls.clear();
      if (last) read();
    },
    take(items) {
      timeline.take(items);
      for (const item of items) note(item);
    },
  });
  read();

  async function read() {
    try {
      const value = await call("GET", pathOf("/twins", key));
      const protocols = await call("POST", "/_page/protocols", { ids: [name] });
      protocol = protocols[name] ?? "";
      show(value);
      error.show("");
    } catch (problem) {
      error.show(problem.status === 404 ? `${name} is not registered on this hub.` : problem.message);
    }
  }

  function note(item) {
    if (item.type === "Twin") show(item.twin);
    if (item.type === "TwinChanged") properties.changed(item);
    if (item.type === "MethodCalled" || item.type === "MethodEnded") calls.take(item);
    if (item.type === "IdentityDeleted") error.show(`${name} was deleted.`);
    if (["Connected", "Disconnected", "IdentityChanged"].includes(item.type)) read();
    if (item.type === "Telemetry" && last) {
      last.lastActivityTime = item.time;
      present();
    }
  }

  function show(value) {
    last = value;
    properties.show(value);
    present();
  }

  function present() {
    const connected = last.connectionState === "Connected";
    start.hidden = Boolean(key.moduleId) || connected || !last.lastActivityTime.startsWith("0001-") || last.authenticationType !== "sas";
    connection.className = `state ${connected ? "on" : ""}`;
    fill(connection, connected ? "Connected" : "Disconnected", connected && protocol && ` by ${protocol}`);
    fill(facts, "Last activity ", dateTime(last.lastActivityTime), last.status === "disabled" && [" ", el("span", { class: "badge bad" }, "disabled")]);
    fill(toggle, last.status === "disabled" ? "Enable" : "Disable");
  }

  async function copyConnectionString() {
    await copy(await connectionString(key, session), "Connection string");
  }

  async function setStatus() {
    const identity = await call("GET", pathOf("/devices", key));
    const status = identity.status === "disabled" ? "enabled" : "disabled";
    await call("PUT", pathOf("/devices", key), { ...identity, status }, { "If-Match": `"${identity.etag}"` });
    announce(`${name} is ${status}.`);
    await read();
  }

  async function remove() {
    const sure = await confirm(`Delete ${name}?`, "Its identity, its twin and its messages are deleted. This can't be undone.", "Delete");
    if (!sure) return;
    await call("DELETE", pathOf("/devices", key), undefined, { "If-Match": "*" });
    announce(`${name} was deleted.`);
    location.hash = key.moduleId ? hashOf({ deviceId: key.deviceId }) : "#/";
  }

  return {
    close() {
      stream.close();
      timeline.close();
      calls.close();
      for (const each of parts) each.close();
    },
  };
}
