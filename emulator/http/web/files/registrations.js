// What became of devices that registered: where they were assigned, or why not.

import { call } from "./api.js";
import { announce, button, confirm, el, errorPlace, renew, table } from "./dom.js";
import { pager } from "./pager.js";
import { serial } from "./serial.js";
import { status } from "./status.js";
import { dateTime, link } from "./text.js";

const PAGE = 25;

/** Return whether what happened can be of a registration: it writes the identity or its twin, or is refused. */
export function isOfRegistration(item) {
  return /^(Identity|Twin|Refused)/.test(item.type);
}

/** Describe the state of a registration in a line; a device of this hub is a link. */
export function registrationState(each, session) {
  if (!each?.status || each.status === "unassigned") return el("span", { class: "dim" }, "not registered yet");
  if (each.status !== "assigned") return [status(each.status), ` ${each.errorMessage ?? ""}`];
  const isOurs = each.assignedHub === session.hostName;
  return [status(each.status), " ", isOurs ? link(each) : `${each.deviceId} at ${each.assignedHub}`];
}

/** Make the button that deletes a registration. */
export function forget(id, after, label = "Delete") {
  const work = async () => {
    if (!(await confirm(`Delete the registration of ${id}?`, "Its next registration counts as its first. The device stays in the hub.", "Delete"))) return;
    await call("DELETE", `/registrations/${encodeURIComponent(id)}`);
    announce(`The registration of ${id} is deleted.`);
    await after();
  };
  return button(label, work, { class: "danger", "aria-label": `${label} the registration of ${id}` });
}

/** The registrations of a group, in pages. */
export function registrations(groupId, session) {
  const place = el("div", {});
  const error = errorPlace();
  const pages = pager(PAGE, () => read());

  const read = serial(async () => {
    try {
      await pages.query(`/registrations/${encodeURIComponent(groupId)}/query`, "SELECT *", (found) => {
        renew(place, table("Registrations", ["Registration id", "State", "Last", "Actions"], found.map(row), "No device of this group has registered yet."));
        error.show("");
      });
    } catch (problem) {
      error.show(problem.message);
    }
  });

  function row(each) {
    return [el("code", {}, each.registrationId), registrationState(each, session), dateTime(each.lastUpdatedDateTimeUtc), forget(each.registrationId, read)];
  }

  return { view: el("section", { class: "card" }, el("h2", {}, "Registrations"), error.place, place, pages.view), read };
}
