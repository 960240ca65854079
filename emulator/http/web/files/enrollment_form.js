// A form for a new enrollment, of one device or of a group.

import { call } from "./api.js";
import { announce, button, dialog, el, field, form } from "./dom.js";
import { enrollmentPath } from "./enrollment.js";
import { parseObject } from "./mistake.js";

const TWIN = '{"tags": {"floor": 2}, "properties": {"desired": {"interval": 30}}}';

/** Ask for an enrollment and create it. Resolves with whether it was created. */
export async function newEnrollment(isGroup) {
  const title = isGroup ? "New enrollment group" : "New enrollment";
  const input = () => el("input", { autocomplete: "off", spellcheck: "false", maxlength: 128 });
  const code = (rows) => el("textarea", { rows, class: "code", spellcheck: "false" });
  const made = await dialog(title, (close) => {
    const id = input();
    id.setAttribute("autofocus", "");
    const kinds = [["symmetricKey", "Symmetric key"], ["x509", isGroup ? "Signing certificate" : "X.509 certificate"]];
    if (isGroup) kinds.push(["ca", "CA that the hub knows"]);
    const kind = el("select", {}, kinds.map(([value, text]) => el("option", { value }, text)));
    const [key, pem, ca, deviceId, twin] = [input(), code(5), input(), input(), code(2)];
    const parts = {
      symmetricKey: field("Primary key", key, "Base64 of 16 to 64 bytes. Empty: the service makes one."),
      x509: field("Certificate", pem, isGroup ? "PEM of the CA that signs the certificates of the devices" : "PEM. Its common name is the registration id."),
      ca: field("Name of the CA", ca, "The name of a --client-ca file without its ending, or the common name of a CA in it"),
    };
    const choose = () => {
      for (const [name, part] of Object.entries(parts)) part.hidden = name !== kind.value;
    };
    kind.addEventListener("input", choose);
    choose();

    function attestation() {
      if (kind.value === "symmetricKey") return { type: "symmetricKey", symmetricKey: key.value.trim() ? { primaryKey: key.value.trim(), secondaryKey: key.value.trim() } : {} };
      if (kind.value === "ca") return { type: "x509", x509: { caReferences: { primary: ca.value.trim() } } };
      if (!pem.value.trim()) throw new Error("The certificate is missing. Paste it as PEM: -----BEGIN CERTIFICATE----- …");
      return { type: "x509", x509: { [isGroup ? "signingCertificates" : "clientCertificates"]: { primary: { certificate: pem.value } } } };
    }

    async function create() {
      const name = id.value.trim();
      if (!name) throw new Error(isGroup ? "The id of the group is missing." : "The registration id is missing.");
      const body = { [isGroup ? "enrollmentGroupId" : "registrationId"]: name, attestation: attestation() };
      if (deviceId.value.trim()) body.deviceId = deviceId.value.trim();
      if (twin.value.trim()) body.initialTwin = parseObject(twin.value, "The initial twin is");
      await call("PUT", enrollmentPath(name, isGroup), body);
      announce(`${name} is enrolled.`);
      close(true);
    }

    return [
      form(
        title,
        [
          field(isGroup ? "Group id" : "Registration id", id, "Letters, digits and - . _ :"),
          field("Attestation", kind),
          Object.values(parts),
          isGroup ? null : field("Device id", deviceId, "In the hub. Empty: the registration id."),
          field("Initial twin", twin, `JSON, or empty: ${TWIN}`),
        ],
        "Create",
        create,
      ),
      button("Cancel", async () => close(), { class: "quiet" }),
    ];
  });
  return made === true;
}
