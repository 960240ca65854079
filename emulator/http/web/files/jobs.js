// Scheduled jobs, and import and export jobs.

import { call } from "./api.js";
import { announce, button, confirm, el, errorPlace, fill, table, tell } from "./dom.js";
import { watch } from "./live.js";
import { dateTime, json } from "./text.js";

const OVER = new Set(["completed", "failed", "cancelled"]);

export function jobs({ main, state, title }) {
  title("Jobs");
  const scheduled = el("div", {});
  const transfers = el("div", {});
  const error = errorPlace();
  fill(
    main,
    el("div", { class: "title" }, el("h1", {}, "Jobs"), button("Read again", read)),
    error.place,
    el("section", { class: "card" }, el("h2", {}, "Scheduled jobs"), scheduled),
    el("section", { class: "card" }, el("h2", {}, "Import and export jobs"), transfers),
  );

  async function read() {
    try {
      const found = await call("GET", "/jobs/v2/query");
      fill(scheduled, table("Scheduled jobs", ["Id", "Type", "Status", "Started", "Devices", "Actions"], found.reverse().map(row), "There is no scheduled job."));
      const others = await call("GET", "/jobs");
      fill(transfers, table("Import and export jobs", ["Id", "Type", "Status", "Started", "Actions"], others.map(transfer), "There is no import or export job."));
      error.show("");
    } catch (problem) {
      error.show(problem.message);
    }
  }

  function row(job) {
    const numbers = job.deviceJobStatistics;
    const path = `/jobs/v2/${encodeURIComponent(job.jobId)}/cancel`;
    const devices = numbers ? `${numbers.succeededCount} of ${numbers.deviceCount} succeeded${numbers.failedCount ? `, ${numbers.failedCount} failed` : ""}` : "";
    return [el("code", {}, job.jobId), job.type, status(job), dateTime(job.startTime), devices, actions(job, () => call("POST", path))];
  }

  function transfer(job) {
    const path = `/jobs/${encodeURIComponent(job.jobId)}`;
    return [el("code", {}, job.jobId), job.type, status(job), dateTime(job.startTimeUtc), actions(job, () => call("DELETE", path))];
  }

  function status(job) {
    return el("span", { class: `badge ${job.status === "failed" ? "bad" : job.status === "completed" ? "good" : ""}` }, job.status);
  }

  function actions(job, cancel) {
    const stop = async () => {
      if (!(await confirm(`Cancel the job ${job.jobId}?`, "What it has done stays done.", "Cancel the job"))) return;
      await cancel();
      announce(`The job ${job.jobId} is cancelled.`);
      await read();
    };
    return [
      button("Details", () => tell(`Job ${job.jobId}`, json(job)), { "aria-label": `Details of ${job.jobId}` }),
      !OVER.has(job.status) && button("Cancel", stop, { "aria-label": `Cancel ${job.jobId}` }),
    ];
  }

  const stream = watch(null, {
    state,
    begin: read,
    take(items) {
      if (items.some((each) => each.type === "JobStarted" || each.type === "JobEnded")) read();
    },
  });
  return stream;
}
