// One enrollment of the Device Provisioning Service: what can be done with it, and the view of a group.

import { call } from "./api.js";
import { announce, button, confirm, copy, el, errorPlace, field, fill, form, tell } from "./dom.js";
import { watchList } from "./live.js";
import { forget, isOfRegistration, registrations } from "./registrations.js";
import { status } from "./status.js";
import { json } from "./text.js";

/** Return the address of a group within the page. */
export function groupHash(id) {
  return `#/provisioning/${encodeURIComponent(id)}`;
}

/** Return the path of an enrollment or group. */
export function enrollmentPath(id, isGroup) {
  return `${isGroup ? "/enrollmentGroups" : "/enrollments"}/${encodeURIComponent(id)}`;
}

/** Describe how devices prove what they are. */
export function kindOf({ attestation }) {
  const kinds = { symmetricKey: "symmetric key", x509: "X.509 certificate", tpm: "TPM" };
  if (attestation.x509?.caReferences) return "CA reference";
  return kinds[attestation.type] ?? attestation.type;
}

/** Make the buttons of an enrollment; `after` is called when it has changed, `gone` when it is deleted. */
export function actions(each, after, gone = after) {
  const isGroup = each.enrollmentGroupId !== undefined;
  const id = isGroup ? each.enrollmentGroupId : each.registrationId;
  const path = enrollmentPath(id, isGroup);
  const isOff = each.provisioningStatus === "disabled";

  async function toggle() {
    const now = await call("GET", path);
    await call("PUT", path, { ...now, provisioningStatus: isOff ? "enabled" : "disabled" }, { "If-Match": now.etag });
    announce(`${id} is ${isOff ? "enabled" : "disabled"}.`);
    await after();
  }

  async function remove() {
    const text = "Its registrations are deleted with it. Devices that it has assigned stay in the hub.";
    if (!(await confirm(`Delete ${id}?`, text, "Delete"))) return;
    await call("DELETE", path, undefined, { "If-Match": "*" });
    announce(`${id} is deleted.`);
    await gone();
  }

  return [
    each.attestation.type === "symmetricKey" && button("Copy key", async () => copy(await keyOf(id, isGroup), "Primary key"), { "aria-label": `Copy key of ${id}` }),
    button(isOff ? "Enable" : "Disable", toggle, { "aria-label": `${isOff ? "Enable" : "Disable"} ${id}` }),
    button("Details", () => tell(id, json(each)), { "aria-label": `Details of ${id}` }),
    !isGroup && each.registrationState?.status === "assigned" && forget(id, after, "Forget"),
    button("Delete", remove, { class: "danger", "aria-label": `Delete ${id}` }),
  ];
}

async function keyOf(id, isGroup) {
  const found = await call("POST", `${enrollmentPath(id, isGroup)}/attestationmechanism`);
  return found.symmetricKey.primaryKey;
}

/** The view of a group: its registrations, and the keys of its devices. */
export function group({ main, state, title, session }, id) {
  title(id);
  const badge = el("span", {});
  const kind = el("p", { class: "numbers" });
  const buttons = el("div", { class: "actions" });
  const keys = el("div", {});
  const error = errorPlace();
  const list = registrations(id, session);
  fill(
    main,
    el("p", { class: "crumbs" }, el("a", { href: "#/provisioning" }, "Provisioning")),
    el("div", { class: "title" }, el("h1", {}, id), badge, kind),
    buttons,
    error.place,
    list.view,
    keys,
  );

  async function read() {
    try {
      const found = await call("GET", enrollmentPath(id, true));
      fill(badge, status(found.provisioningStatus));
      fill(kind, kindOf(found));
      fill(buttons, actions(found, read, async () => { location.hash = "#/provisioning"; }));
      if (found.attestation.type === "symmetricKey" && !keys.childElementCount) fill(keys, deviceKey(id));
      error.show("");
      await list.read();
    } catch (problem) {
      error.show(problem.message);
    }
  }

  return watchList(isOfRegistration, { state, begin: read, read: list.read });
}

/** A form for the key of a device of a group: the device itself never has that of the group. */
function deviceKey(groupId) {
  const id = el("input", { autocomplete: "off", spellcheck: "false", maxlength: 128 });
  const view = form("Key of a device", field("Registration id", id, "The key is the HMAC-SHA256 of this id with the key of the group, in Base64."), "Copy the key", async () => {
    const name = id.value.trim();
    if (!name) throw new Error("The registration id is missing.");
    const bytes = Uint8Array.from(atob(await keyOf(groupId, true)), (each) => each.charCodeAt(0));
    const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const found = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(name));
    await copy(btoa(String.fromCharCode(...new Uint8Array(found))), `Key of ${name}`);
  });
  return el("section", { class: "card" }, el("h2", {}, "Key of a device"), view);
}
