// The Device Provisioning Service: individual enrollments and groups, with what became of their devices.

import { button, copyable, el, errorPlace, fill, renew, table } from "./dom.js";
import { actions, group, groupHash, kindOf } from "./enrollment.js";
import { newEnrollment } from "./enrollment_form.js";
import { watchList } from "./live.js";
import { pager } from "./pager.js";
import { isOfRegistration, registrationState } from "./registrations.js";
import { serial } from "./serial.js";
import { status } from "./status.js";

const PAGE = 25;
const COLUMNS = ["Id", "Attestation", "Status", "Registration", "Actions"];

export function provisioning(context, id) {
  return id ? group(context, id) : all(context);
}

function all({ main, state, title, session }) {
  title("Provisioning");
  const lists = [list(session, false), list(session, true)];
  fill(
    main,
    el("div", { class: "title" }, el("h1", {}, "Provisioning"), el("div", { class: "actions end" }, button("Read again", read))),
    el(
      "section",
      { class: "card" },
      el("h2", {}, "For devices"),
      el("div", { class: "pair" }, copyable("Id scope", session.idScope), copyable("Provisioning host", session.hostName)),
    ),
    lists.map((each) => each.view),
  );

  async function read() {
    await Promise.all(lists.map((each) => each.read()));
  }

  return watchList(isOfRegistration, { state, begin: read });
}

/** The individual enrollments, or the groups. */
function list(session, isGroup) {
  const name = isGroup ? "Enrollment groups" : "Individual enrollments";
  const create = async () => (await newEnrollment(isGroup)) && read();
  const place = el("div", {});
  const error = errorPlace();
  const pages = pager(PAGE, () => read());

  const read = serial(async () => {
    try {
      await pages.query(isGroup ? "/enrollmentGroups/query" : "/enrollments/query", "SELECT *", show);
    } catch (problem) {
      error.show(problem.message);
    }
  });

  function show(found) {
    const columns = isGroup ? COLUMNS.filter((each) => each !== "Registration") : COLUMNS;
    const empty = isGroup ? "There is no group. Devices of a group share a key or a signing certificate." : "There is no enrollment. An enrollment is for one device.";
    renew(place, table(name, columns, found.map(row), empty));
    error.show("");
  }

  function row(each) {
    const id = isGroup ? el("a", { href: groupHash(each.enrollmentGroupId), class: "id" }, each.enrollmentGroupId) : el("code", {}, each.registrationId);
    const first = [id, kindOf(each), status(each.provisioningStatus)];
    const last = actions(each, read);
    return isGroup ? [...first, last] : [...first, registrationState(each.registrationState, session), last];
  }

  const head = el("div", { class: "head" }, el("h2", {}, name), button(isGroup ? "New group" : "New enrollment", create));
  return { view: el("section", { class: "card" }, head, error.place, place, pages.view), read };
}
