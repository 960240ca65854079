// Scheduled jobs, and import and export jobs.

import { call, send } from "./api.js";
import { button, confirm, el, errorPlace, fill, renew, table, tell } from "./dom.js";
import { cancel, job, progress } from "./job.js";
import { newJob } from "./job_form.js";
import { watchList } from "./live.js";
import { serial } from "./serial.js";
import { OVER, WAITING, status } from "./status.js";
import { count, jobHash, json, recent } from "./text.js";

// How many jobs are shown, the newest.
const MOST = 100;
// How many pages of jobs are read for them.
const PAGES = 50;

export function jobs(context, id) {
  return id ? job(context, id) : all(context);
}

function all({ main, state, title }) {
  title("Jobs");
  const scheduled = el("div", {});
  const transfers = el("div", {});
  const more = el("p", { class: "dim" });
  const error = errorPlace();
  fill(
    main,
    el("div", { class: "title" }, el("h1", {}, "Jobs"), el("div", { class: "actions end" }, button("Read again", () => read()), button("New job", newJob, { class: "main" }))),
    error.place,
    el("section", { class: "card" }, el("h2", {}, "Scheduled jobs"), scheduled, more),
    el("section", { class: "card" }, el("h2", {}, "Import and export jobs"), transfers),
  );

  const read = serial(async () => {
    try {
      const [found, left] = await newest();
      renew(scheduled, table("Scheduled jobs", ["Id", "Type", "Status", "Started", "Devices", "Actions"], found.map(row), "There is no scheduled job. Create one with New job."));
      fill(more, left > 0 && `${count(left, "older job")} not shown.`);
      const others = await call("GET", "/jobs");
      renew(transfers, table("Import and export jobs", ["Id", "Type", "Status", "Started", "Actions"], others.map(transfer), "There is no import or export job."));
      error.show("");
    } catch (problem) {
      error.show(problem.message);
    }
  });

  function row(each) {
    return [el("a", { href: jobHash(each.jobId), class: "id" }, each.jobId), each.type, status(each.status), recent(each.startTime), progress(each), WAITING.has(each.status) && cancel(each.jobId, read)];
  }

  function transfer(each) {
    const stop = async () => {
      if (!(await confirm(`Cancel the job ${each.jobId}?`, "What it has done stays done.", "Cancel the job"))) return;
      await call("DELETE", `/jobs/${encodeURIComponent(each.jobId)}`);
      await read();
    };
    const actions = [
      button("Details", () => tell(`Job ${each.jobId}`, json(each)), { "aria-label": `Details of ${each.jobId}` }),
      !OVER.has(each.status) && button("Cancel", stop, { "aria-label": `Cancel ${each.jobId}` }),
    ];
    return [el("code", {}, each.jobId), each.type, status(each.status), recent(each.startTimeUtc), actions];
  }

  return watchList((each) => each.type === "JobStarted" || each.type === "JobEnded", { state, begin: read });
}

/** Read the newest jobs, and how many older ones there are: the hub lists the oldest first. */
async function newest() {
  const headers = {};
  let found = [];
  let left = 0;
  for (let page = 0; page < PAGES; page += 1) {
    const answer = await send("GET", "/jobs/v2/query", { headers });
    found = [...found, ...answer.value];
    left += Math.max(0, found.length - MOST);
    found = found.slice(-MOST);
    headers["x-ms-continuation"] = answer.headers.get("x-ms-continuation");
    if (!headers["x-ms-continuation"]) break;
  }
  return [found.reverse(), left];
}
