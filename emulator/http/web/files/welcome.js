// What to do next: with an empty hub, and with a device that has never connected.

import { button, copyable, el } from "./dom.js";
import { connectionString } from "./connection_string.js";

/** What a hub without devices shows; `create` asks for a new device. */
export function emptyHub(create) {
  return el(
    "div",
    { class: "stack welcome" },
    el("h2", {}, "This hub has no device yet"),
    el("p", {}, "Create one here. Its own page then has what your program needs to connect."),
    button("Create the first device", create, { class: "main" }),
    el("p", {}, "Or do it in a console, in the folder of the emulator:"),
    copyable("Command to create a device", "python -m emulator device-identity create -d myDeviceId"),
    copyable("Command to play ten devices", "python -m emulator simulate -d demo --count 10"),
  );
}

/** What a device that has never connected shows. */
export function firstConnection(key, session) {
  const named = (secret) => `IOTHUB_DEVICE_CONNECTION_STRING='${secret}'`;
  const play = `python -m emulator simulate -d ${/^[\w.-]+$/.test(key.deviceId) ? key.deviceId : `'${key.deviceId.replace(/'/g, "'\\''")}'`}`;
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "It has never connected"),
    el("p", {}, "Give your program the connection string: in this variable, or as it reads it. Then this page shows what the device does."),
    copyable("Variable for a device", named(`HostName=${session.hostName};DeviceId=${key.deviceId};SharedAccessKey=\u2026`), async () => named(await connectionString(key, session))),
    el("p", {}, "Or let the emulator play the device:"),
    copyable("Command to play this device", play),
  );
}
