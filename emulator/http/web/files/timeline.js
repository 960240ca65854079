// What happens, in sentences, the newest first. A direct method that waits counts its seconds.

import { add, el, fill } from "./dom.js";
import { hubNow } from "./live.js";
import { body, clockTime, count, describe, duration, jobHash, link, short } from "./text.js";

const NEGATIVE = new Set(["Refused", "Dropped"]);

/** The kinds of what happens, for filters: a name, and the types of it. */
export const KINDS = {
  Connections: ["Connected", "Subscribed", "Disconnected"],
  Messages: ["Telemetry", "CommandSent", "CommandEnded"],
  Methods: ["MethodCalled", "MethodEnded"],
  Twins: ["TwinChanged", "TwinDeleted"],
  Identities: ["IdentityCreated", "IdentityChanged", "IdentityDeleted"],
  Jobs: ["JobStarted", "JobEnded"],
  Files: ["UploadStarted", "UploadEnded"],
  Faults: ["FaultAdded", "FaultHit", "FaultEnded"],
  Provisioning: ["EnrollmentChanged", "RegistrationChanged"],
  Refusals: ["Refused"],
};

/** Calls of direct methods that wait, by device and request. */
export class Calls {
  constructor() {
    this.waiting = new Map();
  }

  /** Take a change; return the beginning of a call that has ended, in milliseconds. */
  take(item, row = null) {
    const name = JSON.stringify([item.deviceId, item.moduleId, item.requestId]);
    if (item.type === "MethodCalled") this.waiting.set(name, { item, row, began: Date.parse(item.time) });
    if (item.type !== "MethodEnded") return null;
    const found = this.waiting.get(name) ?? null;
    this.waiting.delete(name);
    return found;
  }

  clear() {
    this.waiting.clear();
  }
}

/** Describe how a call ended: its status, or its error. */
export function outcome(item) {
  return item.error ? `${item.error}: ${item.text}` : `status ${item.status}`;
}

/** A list of what happens. */
export class Timeline {
  /**
   * @param label its name for a screen reader
   * @param most how many rows it keeps
   * @param current the id that needs no link
   */
  constructor(label, { most = 200, current = null, keeps = () => true } = {}) {
    this.most = most;
    this.current = current;
    this.keeps = keeps;
    this.calls = new Calls();
    this.list = el("ol", { class: "timeline", "aria-label": label, reversed: true });
    this.empty = el("p", { class: "dim" }, "Nothing has happened yet.");
    this.view = el("div", {}, this.empty, this.list);
    this.timer = setInterval(() => this.tick(), 500);
  }

  /** Begin anew. */
  clear() {
    this.list.replaceChildren();
    this.calls.clear();
    this.empty.hidden = false;
  }

  /** End it. */
  close() {
    clearInterval(this.timer);
  }

  /** Add what happened, the oldest first. */
  take(items) {
    for (const item of items) {
      const row = this.row(item);
      if (row) {
        row.item = item;
        row.hidden = !this.keeps(item);
        this.list.prepend(row);
      }
    }
    while (this.list.childElementCount > this.most) this.list.lastElementChild.remove();
    this.empty.hidden = this.list.childElementCount > 0;
    this.tick();
  }

  /** Show the rows that the filter keeps. */
  filter(keeps) {
    this.keeps = keeps;
    for (const row of this.list.children) row.hidden = !keeps(row.item);
  }

  tick() {
    for (const { row, began } of this.calls.waiting.values()) {
      if (row) fill(row.badge, `waiting ${Math.max(0, Math.round((hubNow() - began) / 1000))} s`);
    }
  }

  row(item) {
    const [sentence, detail] = this.sentence(item);
    if (!sentence) return null;
    const isMethod = KINDS.Methods.includes(item.type);
    const kind = Object.keys(KINDS).find((each) => KINDS[each].includes(item.type)) ?? "Other";
    const row = el("li", { class: `row kind-${kind.toLowerCase()}${NEGATIVE.has(item.type) || item.error ? " bad" : ""}` });
    row.badge = el("span", { class: item.type === "MethodCalled" ? "badge waits" : "badge" });
    add(row, item.time && clockTime(item.time), el("div", { class: "what" }, sentence, isMethod && [" ", row.badge], detail));
    const found = this.calls.take(item, row);
    if (found) {
      const took = duration(Date.parse(item.time) - found.began);
      if (found.row) fill(found.row.badge, `ended after ${took}`).className = "badge";
      fill(row.badge, `after ${took}`);
    }
    return row;
  }

  sentence(item) {
    const who = item.deviceId ? link(item, this.current) : null;
    const code = (text) => el("code", {}, text);
    switch (item.type) {
      case "Connected":
        return [[who, " connected"]];
      case "Disconnected":
        return [[who, item.reason === "DeviceNotOnline" ? " disconnected" : ` was disconnected: ${item.text}`]];
      case "IdentityCreated":
        return [[who, " was created"]];
      case "IdentityChanged":
        return [[who, ` was updated: it is ${item.status}`]];
      case "IdentityDeleted":
        return [[who, " was deleted"]];
      case "Telemetry":
        return [[who, " sent ", code(short(item.body) || "an empty message")], more(item)];
      case "CommandSent":
        return [["A message to ", who, " was queued: ", code(short(item.body) || "an empty message")]];
      case "CommandEnded":
        return [["A message to ", who, ` ended: ${item.status}`]];
      case "MethodCalled":
        return [[code(item.name), " was called on ", who], content(item.payload)];
      case "MethodEnded":
        return [[who, item.error ? " did not answer " : " answered ", code(item.name), `: ${outcome(item)}`], content(item.payload, "Answer")];
      case "TwinChanged":
        return [twin(item, who)];
      case "UploadStarted":
        return [[who, " began to upload ", code(item.blobName)]];
      case "UploadEnded":
        return [[who, item.isSuccess ? " uploaded " : " did not upload ", code(item.blobName)], item.text && el("div", {}, item.text.slice(0, 200))];
      case "JobStarted":
        return [["The job ", job(item), " began"]];
      case "JobEnded":
        return [["The job ", job(item), ` ended: ${item.status}`]];
      case "FaultAdded":
        return [["The fault ", code(item.kind), " is on", who ? [" for ", who] : " for all devices"]];
      case "FaultHit":
        return [["The fault ", code(item.kind), " happened", who && [" to ", who]]];
      case "FaultEnded":
        return [["The fault ", code(item.kind), " is off", who && [" for ", who]]];
      case "EnrollmentChanged":
      case "RegistrationChanged":
        return [[code(item.subject), `: ${item.what}`]];
      case "Refused":
        return [[item.text]];
      case "Dropped":
        return [[`Too much at once: ${count(item.changes + item.messages, "line")} left out`]];
      default:
        return [null];
    }
  }
}

function job(item) {
  return el("a", { href: jobHash(item.jobId), class: "id" }, item.jobId);
}

function twin(item, who) {
  const parts = ["reported", "desired", "tags"].filter((each) => item[each]);
  const what = parts.flatMap((each) => describe(each === "reported" ? "" : each, item[each], item.before?.[each]));
  const verb = parts.includes("reported") ? " reported " : " has a new twin: ";
  const text = what.slice(0, 4);
  if (what.length > 4) text.push(`${what.length - 4} more`);
  return [who, verb, el("code", {}, text.join(", ") || "nothing")];
}

function content(payload, name = "Payload") {
  return payload && payload.size > 0 && payload.text !== "null"
    ? el("details", {}, el("summary", {}, name), body(payload))
    : null;
}

function more(item) {
  const properties = { ...item.systemProperties, ...item.properties };
  if (!Object.keys(properties).length && item.body.size <= 120) return null;
  return el("details", {}, el("summary", {}, "Message"), body(item.body), list(properties));
}

/** Show names and values. */
function list(properties) {
  const rows = Object.entries(properties);
  return rows.length ? el("dl", {}, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value ?? "no value")])) : null;
}
