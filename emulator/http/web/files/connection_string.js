// The connection string of a device or module.

import { call, pathOf } from "./api.js";

/** Read the connection string: it has the primary key, which the page does not keep. */
export async function connectionString(key, session) {
  const identity = await call("GET", pathOf("/devices", key));
  const secret = identity.authentication.symmetricKey?.primaryKey;
  const ids = key.moduleId ? `DeviceId=${key.deviceId};ModuleId=${key.moduleId}` : `DeviceId=${key.deviceId}`;
  const proof = secret ? `SharedAccessKey=${secret}` : "x509=true";
  return `HostName=${session.hostName};${ids};${proof}`;
}
