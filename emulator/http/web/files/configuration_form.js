// A form for a new configuration, and for changes of one.

import { call } from "./api.js";
import { announce, button, dialog, el, field, form } from "./dom.js";
import { parseObject } from "./mistake.js";
import { json } from "./text.js";

const CONTENT = '{\n  "deviceContent": {\n    "properties.desired.interval": 30\n  }\n}';

// Errors that do not say which field they are about.
const PLACES = { InvalidConfigurationTargetCondition: "Target condition", InvalidConfigurationCustomMetricsQuery: "Metrics" };

/** Ask for a configuration and save it; `before` is the one to change. Resolves with whether it was saved. */
export async function edit(before = null) {
  const title = before ? `Edit ${before.id}` : "New configuration";
  const saved = await dialog(title, (close) => {
    const id = el("input", { autocomplete: "off", spellcheck: "false", maxlength: 128, autofocus: !before });
    const priority = el("input", { type: "number", min: 0, value: before?.priority ?? 10 });
    const condition = el("textarea", { rows: 2, class: "code", spellcheck: "false", value: before?.targetCondition ?? "", autofocus: Boolean(before) });
    const content = el("textarea", { rows: 6, class: "code", spellcheck: "false", value: CONTENT });
    const metrics = el("textarea", { rows: 4, class: "code", spellcheck: "false", value: text(before?.metrics?.queries) });
    const labels = el("textarea", { rows: 2, class: "code", spellcheck: "false", value: text(before?.labels) });
    const save = async () => {
      const name = before?.id ?? id.value.trim();
      if (!name) throw new Error("The id is missing.");
      const body = {
        id: name,
        priority: Number(priority.value),
        targetCondition: condition.value,
        content: before?.content ?? parseObject(content.value, "The content is"),
        metrics: { queries: parseObject(metrics.value, "The metrics are") },
        labels: parseObject(labels.value, "The labels are"),
      };
      try {
        await call("PUT", `/configurations/${encodeURIComponent(name)}`, body, before ? { "If-Match": `"${before.etag}"` } : {});
      } catch (error) {
        if (PLACES[error.code]) throw new Error(`${PLACES[error.code]}: ${error.message}`);
        if (error.status !== 412) throw error;
        throw new Error("The configuration was changed meanwhile. Close this dialog, and edit the new one.");
      }
      announce(`The configuration ${name} is saved.`);
      close(true);
    };
    return [
      form(
        title,
        [
          before ? null : field("Id", id, "a-z, 0-9 and - + % _ * ! '"),
          field("Priority", priority, "Where two configurations write the same, the higher one counts."),
          field("Target condition", condition, "tags.floor = 2, or * for all devices; of modules: FROM devices.modules WHERE moduleId = 'camera'. Empty is no device."),
          before ? el("div", { class: "field" }, el("b", {}, "Content"), json(before.content), el("span", { class: "hint" }, "A hub changes no content. Create another configuration instead.")) : field("Content", content, "JSON with deviceContent, moduleContent or modulesContent"),
          field("Metrics", metrics, 'JSON, or empty: {"warm": "SELECT deviceId FROM devices WHERE properties.reported.temperature > 30"}'),
          field("Labels", labels, 'JSON, or empty: {"owner": "ann"}'),
        ],
        before ? "Save" : "Create",
        save,
      ),
      button("Cancel", async () => close(), { class: "quiet" }),
    ];
  });
  return saved === true;
}

function text(value) {
  return value && Object.keys(value).length ? JSON.stringify(value, null, 2) : "";
}
