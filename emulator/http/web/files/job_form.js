// A form for a new scheduled job.

import { call } from "./api.js";
import { announce, button, dialog, el, field, form } from "./dom.js";
import { hubNow } from "./live.js";
import { methodFields } from "./method_form.js";
import { parseObject } from "./mistake.js";
import { jobHash } from "./text.js";

const PATCH = '{\n  "tags": {},\n  "properties": { "desired": {} }\n}';

/** Ask for a new job, create it, and go to it. */
export async function newJob() {
  const made = await dialog("New job", (close) => {
    const id = el("input", { autocomplete: "off", spellcheck: "false", maxlength: 64, autofocus: true, value: freeId() });
    const kind = el("select", {}, el("option", { value: "scheduleUpdateTwin" }, "Update twins"), el("option", { value: "scheduleDeviceMethod" }, "Invoke a direct method"));
    const condition = el("textarea", { rows: 2, class: "code", spellcheck: "false", value: "*" });
    const start = el("input", { type: "number", min: 0, value: 0 });
    const limit = el("input", { type: "number", min: 1, value: 3600 });
    const patch = el("textarea", { rows: 6, class: "code", spellcheck: "false", value: PATCH });
    const method = methodFields();
    const forTwin = el("div", {}, field("Changes of the twins", patch, "JSON. A value null deletes a member."));
    const forMethod = el("div", { class: "stack", hidden: true }, method.view);
    kind.addEventListener("input", () => {
      forTwin.hidden = kind.value !== "scheduleUpdateTwin";
      forMethod.hidden = !forTwin.hidden;
    });
    const create = async () => {
      const jobId = id.value.trim();
      if (!jobId) throw new Error("The job id is missing.");
      const content = forMethod.hidden ? { updateTwin: { ...parseObject(patch.value, "The changes are"), etag: "*" } } : { cloudToDeviceMethod: method.read() };
      const seconds = whole(start, "Start in");
      const body = {
        jobId,
        type: kind.value,
        queryCondition: condition.value,
        startTime: seconds ? new Date(hubNow() + seconds * 1000).toISOString() : "",
        maxExecutionTimeInSeconds: whole(limit, "The time limit"),
        ...content,
      };
      await call("PUT", `/jobs/v2/${encodeURIComponent(jobId)}`, body);
      announce(`The job ${jobId} was created.`);
      close(jobId);
    };
    return [
      form(
        "New job",
        [
          el("div", { class: "pair" }, field("Job id", id), field("What it does", kind)),
          field("Devices", condition, "* is all devices. Or a condition: tags.floor = 2 AND status = 'enabled'. Or of modules: FROM devices.modules WHERE moduleId = 'camera'"),
          forTwin,
          forMethod,
          el("div", { class: "pair" }, field("Start in, in s", start, "0 is now"), field("Time limit, in s", limit)),
        ],
        "Create",
        create,
      ),
      button("Cancel", async () => close(), { class: "quiet" }),
    ];
  });
  if (made) location.hash = jobHash(made);
}

function freeId() {
  return `job-${new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-")}`;
}

function whole(input, name) {
  const value = Number(input.value);
  if (input.value.trim() && Number.isInteger(value) && value >= 0) return value;
  throw new Error(`${name} is not a number of seconds: ${input.value || "empty"}. Use a whole number, such as 60.`);
}
