// The fields of a direct method, for a call and for a job.

import { el, field } from "./dom.js";
import { parseJson } from "./mistake.js";

/** Make the fields; `read()` returns the request of the service. */
export function methodFields() {
  const name = el("input", { autocomplete: "off", spellcheck: "false" });
  const payload = el("textarea", { rows: 2, class: "code", spellcheck: "false" });
  const response = el("input", { type: "number", min: 5, max: 300, value: 30 });
  const connect = el("input", { type: "number", min: 0, max: 300, value: 0 });
  return {
    view: [
      field("Method", name),
      field("Payload", payload, "JSON, or empty"),
      el("div", { class: "pair" }, field("Time for the answer, in s", response), field("Time to connect, in s", connect)),
    ],

    read() {
      if (!name.value.trim()) throw new Error("The name of the method is missing.");
      const request = {
        methodName: name.value.trim(),
        responseTimeoutInSeconds: Number(response.value),
        connectTimeoutInSeconds: Number(connect.value),
      };
      if (payload.value.trim()) request.payload = parseJson(payload.value, "The payload is", 'A text needs quotes: "text".');
      return request;
    },
  };
}
