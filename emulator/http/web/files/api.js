// The REST API of the hub. The cookie of the session stands for a SAS token.

const VERSION = "2021-04-12";

/** An error of the hub, with its text for a person. */
export class ApiError extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

/** Send a request; return its JSON, and its headers as `response.headers`. */
export async function send(verb, path, { body, headers = {}, query = {} } = {}) {
  const url = new URL(path, location.origin);
  if (!path.startsWith("/_emulator/")) url.searchParams.set("api-version", VERSION);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  let response;
  try {
    response = await fetch(url, {
      method: verb,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    throw new ApiError(0, "Offline", "The hub does not answer. Check that it is running.");
  }
  const text = await response.text();
  if (!response.ok) throw errorOf(response, text);
  return { value: text ? JSON.parse(text) : null, headers: response.headers };
}

/** Send a request; return its JSON. */
export async function call(verb, path, body, headers) {
  return (await send(verb, path, { body, headers })).value;
}

/** Write the path of a device or module: `pathOf("/twins", key)`. */
export function pathOf(start, { deviceId, moduleId }, end = "") {
  const module = moduleId ? `/modules/${encodeURIComponent(moduleId)}` : "";
  return `${start}/${encodeURIComponent(deviceId)}${module}${end}`;
}

function errorOf(response, text) {
  let message = text;
  for (const name of ["Message", "message"]) {
    // The answer to a method is JSON inside JSON.
    try {
      message = JSON.parse(message)[name] ?? message;
    } catch {
      break;
    }
  }
  let code = response.headers.get("iothub-errorcode") ?? String(response.status);
  const found = /^ErrorCode:(\w+);(.*)$/s.exec(message);
  if (found) [, code, message] = found;
  if (response.status === 401) {
    window.dispatchEvent(new Event("refused"));
    if (message.startsWith("Unauthorized")) message = "The hub refused this: the policy of this session does not have the right, or the device is disabled.";
  }
  message = message.replace(/(^|: )BadRequest: /, "$1");
  return new ApiError(response.status, code, message || `The hub answered ${response.status} ${code}.`);
}
