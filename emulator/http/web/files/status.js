// The status of a job, or of a registration, as a badge.

import { el } from "./dom.js";

const GOOD = new Set(["completed", "assigned", "enabled"]);
const BAD = new Set(["failed", "disabled"]);

/** Statuses in which a scheduled job can be cancelled. */
export const WAITING = new Set(["queued", "scheduled"]);

/** Statuses after which a job does nothing more. */
export const OVER = new Set(["completed", "failed", "cancelled"]);

export function status(text) {
  return el("span", { class: `badge ${BAD.has(text) ? "bad" : GOOD.has(text) ? "good" : ""}` }, text);
}
