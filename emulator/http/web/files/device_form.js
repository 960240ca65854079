// A form for a new device.

import { call, pathOf } from "./api.js";
import { announce, button, dialog, el, field, form } from "./dom.js";
import { hashOf } from "./text.js";

const KINDS = [
  ["sas", "Symmetric key"],
  ["selfSigned", "X.509 thumbprint"],
  ["certificateAuthority", "X.509, signed by a CA"],
];

/** Ask for a new device, create it, and go to it. */
export async function newDevice() {
  const key = await dialog("New device", (close) => {
    const id = el("input", { autocomplete: "off", spellcheck: "false", maxlength: 128, autofocus: true });
    const kind = el("select", {}, KINDS.map(([value, text]) => el("option", { value }, text)));
    const print = el("input", { autocomplete: "off", spellcheck: "false", class: "code" });
    const thumbprint = field("Thumbprint of the certificate", print, "SHA-1 or SHA-256, in hexadecimal digits");
    const edge = el("input", { type: "checkbox" });
    thumbprint.hidden = true;
    kind.addEventListener("input", () => {
      thumbprint.hidden = kind.value !== "selfSigned";
    });

    async function create() {
      const deviceId = id.value.trim();
      if (!deviceId) throw new Error("The device id is missing.");
      const identity = { deviceId, capabilities: { iotEdge: edge.checked } };
      if (kind.value !== "sas") identity.authentication = { type: kind.value };
      if (kind.value === "selfSigned") {
        // Tools write it with colons, and both thumbprints are required.
        const digits = print.value.replace(/[\s:]/g, "");
        if (!digits) throw new Error("The thumbprint is missing.");
        identity.authentication.x509Thumbprint = { primaryThumbprint: digits, secondaryThumbprint: digits };
      }
      await call("PUT", pathOf("/devices", { deviceId }), identity);
      announce(`The device ${deviceId} was created.`);
      close({ deviceId });
    }

    return [
      form(
        "New device",
        [
          field("Device id", id, "Letters, digits and - . + % _ # * ? ! ( ) , = @ $ ' : ;"),
          field("Authentication", kind, "The hub makes the keys."),
          thumbprint,
          el("label", { class: "check" }, edge, "An IoT Edge device"),
        ],
        "Create",
        create,
      ),
      button("Cancel", async () => close(), { class: "quiet" }),
    ];
  });
  if (key) location.hash = hashOf(key);
}
