// The frame of the page: sign-in, the sections, and the light that says whether it is live.

import { ApiError, call } from "./api.js";
import { announce, button, el, field, fill, form, visible } from "./dom.js";
import { configurations } from "./configurations.js";
import { device } from "./device.js";
import { devices } from "./devices.js";
import { hub } from "./hub.js";
import { jobs } from "./jobs.js";
import { provisioning } from "./provisioning.js";
import { query } from "./query.js";

const SECTIONS = [
  ["#/", "Devices", devices],
  ["#/hub", "Hub", hub],
  ["#/query", "Query", query],
  ["#/jobs", "Jobs", jobs],
  ["#/configurations", "Configurations", configurations],
  ["#/provisioning", "Provisioning", provisioning],
];

const top = document.getElementById("top");
const main = document.getElementById("main");

let session = null;
let section = null;
const light = el("span", { class: "light" });

/** Show whether the page is live. */
function state(text) {
  fill(light, text);
  light.className = `light ${text === "Live" ? "on" : ""}`;
}

async function start() {
  try {
    session = await call("GET", "/_page/session");
  } catch (error) {
    session = null;
    end();
    fill(top);
    fill(main, el("h1", {}, "The page can't be shown"), el("p", { class: "error" }, error.message), button("Try again", start));
    return;
  }
  if (session.signedIn) open();
  else signIn();
}

// --- sign-in

function signIn() {
  end();
  const known = session?.knownKey;
  fill(top, el("span", { class: "brand" }, icon(), "Local IoT Hub"));
  const key = el("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const enter = async (credentials) => {
    session = await call("POST", "/_page/session", credentials);
    announce(`Signed in with the policy ${session.policy}.`);
    open();
    main.focus();
  };
  const manual = form(
    "Sign in with a key",
    field("Key or connection string", key, "Of a policy, such as iothubowner. The hub prints it as IOTHUB_CONNECTION_STRING."),
    "Sign in",
    () => enter({ key: key.value }),
  );
  const parts = [el("h1", {}, "Sign in")];
  if (known) {
    const place = el("p", { class: "error", role: "alert", hidden: true });
    const show = (text) => {
      place.hidden = !text;
      fill(place, text);
    };
    parts.push(
      el("p", {}, "This hub runs on this machine alone, with the well-known keys."),
      button("Use the well-known key", () => enter({ knownKey: true }), { class: "main wide" }, show),
      place,
      el("details", {}, el("summary", {}, "Use another key"), manual),
    );
  } else {
    parts.push(manual);
  }
  fill(main, el("section", { class: "card narrow" }, parts));
  document.title = "Sign in \u2013 Local IoT Hub";
}

async function signOut() {
  await call("DELETE", "/_page/session");
  announce("Signed out.");
  start();
}

let checking = false;

/** The hub refused a request: sign in again if the session has ended. */
async function check() {
  if (checking || !session?.signedIn) return;
  checking = true;
  try {
    const now = await call("GET", "/_page/session");
    if (!now.signedIn) {
      session = now;
      announce("The session has ended. Sign in again.");
      signIn();
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    state("Not connected");
  } finally {
    checking = false;
  }
}

// --- sections

function open() {
  const links = sections().map(([hash, name]) => el("a", { href: hash }, name));
  fill(
    top,
    el("a", { class: "skip", href: "#main", onclick: skip }, "Skip to the content"),
    el("a", { class: "brand", href: "#/", "aria-label": `Local IoT Hub ${session.hostName}` }, icon(), el("span", { class: "host" }, session.hostName)),
    el("nav", { "aria-label": "Sections" }, links),
    el("div", { class: "who" }, light, el("span", { class: "policy", title: session.rights.join(", ") }, session.policy), button("Sign out", signOut, { class: "quiet" })),
  );
  route();
}

/** Return the sections that the hub and the session have. */
function sections() {
  return SECTIONS.filter(([, , view]) => view !== provisioning || session.idScope);
}

function skip(event) {
  event.preventDefault();
  main.focus();
}

function end() {
  section?.close?.();
  section = null;
  state("");
}

function route() {
  if (!session?.signedIn) return;
  end();
  const [, name, ...rest] = location.hash.split("/");
  const context = { session, state, title, main: fill(main) };
  const hash = name === "device" || !name ? "#/" : `#/${name}`;
  for (const each of top.querySelectorAll("nav a")) {
    if (each.getAttribute("href") === hash) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  const ids = rest.map(decodeURIComponent);
  if (name === "device" && ids[0]) {
    const [deviceId, moduleId = null] = ids;
    section = device(context, { deviceId, moduleId });
    return;
  }
  const found = sections().find(([each]) => each === hash) ?? SECTIONS[0];
  section = found[2](context, ...ids);
}

function title(text) {
  document.title = `${visible(text)} \u2013 Local IoT Hub`;
}

function icon() {
  return el("img", { src: "/_page/icon.svg", alt: "", width: 28, height: 28 });
}

window.addEventListener("hashchange", () => {
  route();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
window.addEventListener("refused", check);
start();
