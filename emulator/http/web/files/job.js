// One scheduled job, and what it did to each device.

import { call } from "./api.js";
import { announce, button, confirm, el, errorPlace, fill, renew, table } from "./dom.js";
import { watch } from "./live.js";
import { pager } from "./pager.js";
import { serial } from "./serial.js";
import { WAITING, status } from "./status.js";
import { dateTime, json, link, quoted, recent } from "./text.js";

const PAGE = 25;
// How often a job that runs is read again: the stream has its start and its end.
const READ_MS = 1000;

/** Describe how far a job is. */
export function progress({ deviceJobStatistics: numbers }) {
  if (!numbers) return "";
  const failed = numbers.failedCount ? `, ${numbers.failedCount} failed` : "";
  return `${numbers.succeededCount} of ${numbers.deviceCount} succeeded${failed}`;
}

/** Make the button that cancels a scheduled job. */
export function cancel(id, after) {
  const work = async () => {
    if (!(await confirm(`Cancel the job ${id}?`, "What it has done stays done.", "Cancel the job"))) return;
    await call("POST", `/jobs/v2/${encodeURIComponent(id)}/cancel`);
    announce(`The job ${id} is cancelled.`);
    await after();
  };
  return button("Cancel", work, { "aria-label": `Cancel ${id}` });
}

export function job({ main, state, title }, id) {
  title(id);
  const badge = el("span", {});
  const done = el("p", { class: "numbers" });
  const actions = el("div", { class: "actions" });
  const facts = el("div", { class: "halves" });
  const rows = el("div", {});
  const error = errorPlace();
  const pages = pager(PAGE, () => readRows());
  let closed = false;
  let timer = null;

  fill(
    main,
    el("p", { class: "crumbs" }, el("a", { href: "#/jobs" }, "Jobs")),
    el("div", { class: "title" }, el("h1", {}, id), badge, done, actions),
    error.place,
    el("section", { class: "card" }, el("h2", {}, "What it does"), facts),
    el("section", { class: "card" }, el("h2", {}, "Devices"), rows, pages.view),
  );

  const read = serial(async () => {
    clearTimeout(timer);
    try {
      const found = await call("GET", `/jobs/v2/${encodeURIComponent(id)}`);
      if (found.status === "unknown") throw new Error(`The job ${id} is not on this hub.`);
      show(found);
      await readRows();
      if (!closed && found.status === "running") timer = setTimeout(() => document.hidden || read(), READ_MS);
    } catch (problem) {
      error.show(problem.message);
    }
  });

  function show(found) {
    const waits = WAITING.has(found.status);
    fill(badge, status(found.status));
    fill(done, progress(found));
    if (!waits || !actions.childElementCount) fill(actions, waits && cancel(id, read));
    const entries = [
      ["Type", found.type],
      ["Condition", el("code", {}, found.queryCondition ?? "")],
      ["Start", dateTime(found.startTime)],
      ["End", found.endTime ? dateTime(found.endTime) : ""],
      ["Time limit", `${found.maxExecutionTimeInSeconds} s`],
      ["Failed because", found.failureReason],
    ];
    renew(facts, el("dl", {}, entries.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])), json(found.updateTwin ?? found.cloudToDeviceMethod ?? {}));
    error.show("");
  }

  const readRows = serial(async () => {
    try {
      await pages.query("/devices/query", `SELECT * FROM devices.jobs WHERE jobId = ${quoted(id)}`, (found) => {
        renew(rows, table("Devices of the job", ["Device", "Status", "Started", "Ended", "Result"], found.map(row), "The job has no device yet."));
      });
    } catch (problem) {
      error.show(problem.message);
    }
  });

  const stream = watch(null, {
    state,
    begin: read,
    take(items) {
      if (items.some((each) => each.jobId === id)) read();
    },
  });
  return {
    close() {
      closed = true;
      clearTimeout(timer);
      stream.close();
    },
  };
}

function row(each) {
  const answer = each.outcome?.deviceMethodResponse;
  const result = each.error
    ? `${each.error.code}: ${each.error.description}`
    : answer && [`status ${answer.status} `, el("code", {}, JSON.stringify(answer.payload ?? null))];
  const time = (text) => (text ? recent(text) : "");
  return [link(each), status(each.status), time(each.startTimeUtc), time(each.endTimeUtc), result];
}
