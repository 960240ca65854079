// A form for a cloud-to-device message.

import { call } from "./api.js";
import { el, field, fill, form } from "./dom.js";

export function command(key) {
  const text = el("textarea", { rows: 2, spellcheck: "false" });
  const properties = el("textarea", { rows: 2, spellcheck: "false", placeholder: "name=value" });
  const sent = el("p", { class: "dim", role: "status" });
  const send = form("Send a message", [field("Body", text), field("Properties", properties, "One in each line: name=value"), sent], "Send", async () => {
    fill(sent);
    await call("POST", `/_emulator/devices/${encodeURIComponent(key.deviceId)}/messages`, { body: text.value, properties: parse(properties.value) });
    fill(sent, "The message is queued. A device that is connected and subscribed receives it now.");
  });
  return el("details", { class: "card" }, el("summary", {}, el("h2", {}, "Send a message to the device")), send);
}

function parse(text) {
  const found = {};
  for (const line of text.split("\n").filter((each) => each.trim())) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`The property '${line}' has no value. Use name=value.`);
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}
