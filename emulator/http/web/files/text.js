// How the page writes times, durations, contents and changes.

import { el, visible } from "./dom.js";

// A twin has 10 levels.
const MOST_LEVELS = 20;

/** Write a time as `09:03:17`, with the date as its title. */
export function clockTime(text) {
  const time = new Date(text);
  return el("time", { datetime: text, title: time.toLocaleString() }, time.toLocaleTimeString("en-GB"));
}

/** Write a time with its date; "never" where it never was. */
export function dateTime(text) {
  if (!text || text.startsWith("0001-")) return "never";
  const time = new Date(text);
  return el("time", { datetime: text }, `${time.toLocaleDateString("en-CA")} ${time.toLocaleTimeString("en-GB")}`);
}

/** Write a time of today without its date. */
export function recent(text) {
  const isToday = text && new Date(text).toDateString() === new Date().toDateString();
  return isToday ? clockTime(text) : dateTime(text);
}

/** Write a duration of milliseconds: `35 ms`, `20.1 s`. */
export function duration(ms) {
  return ms < 1000 ? `${Math.max(0, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Write a number with commas. */
export function count(number, noun) {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Return an id as people write it: `device`, or `device/module`. */
export function idOf({ deviceId, moduleId }) {
  return moduleId ? `${deviceId}/${moduleId}` : deviceId;
}

/** Write a text in the query language. */
export function quoted(text) {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}

/** Write a link to a device or module. */
export function link(key, current = null) {
  const name = idOf(key);
  if (current && name === current) return el("b", {}, name);
  return el("a", { href: hashOf(key), class: "id" }, name);
}

/** Return the address of a device or module within the page. */
export function hashOf({ deviceId, moduleId }) {
  const module = moduleId ? `/${encodeURIComponent(moduleId)}` : "";
  return `#/device/${encodeURIComponent(deviceId)}${module}`;
}

/** Return the address of a scheduled job within the page. */
export function jobHash(id) {
  return `#/jobs/${encodeURIComponent(id)}`;
}

/** Show a body as it was sent: JSON with lines, or text, or Base64. */
export function body(content) {
  if (!content || content.size === 0) return el("span", { class: "dim" }, "empty");
  const shown = content.text ?? content.base64;
  const note =
    content.base64 !== undefined
      ? `Base64 of ${count(content.size, "byte")}`
      : content.size > 4096
        ? `the first part of ${count(content.size, "byte")}`
        : "";
  let view = el("pre", { class: "body", tabindex: 0 }, shown);
  if (content.text !== undefined && content.size <= 4096) {
    try {
      const value = JSON.parse(content.text);
      if (typeof value === "object" && value !== null) view = json(value);
    } catch {
      // not JSON: the text itself
    }
  }
  return [view, note && el("p", { class: "dim" }, note)];
}

/** Write a body in one line, cut where it is long. */
export function short(content, most = 120) {
  if (!content || content.size === 0) return "";
  const text = content.text ?? `Base64 ${content.base64}`;
  return text.length > most ? `${text.slice(0, most)} …` : text;
}

/** Show a JSON value with its lines; members whose path is in `marked` are highlighted. */
export function json(value, marked = new Set(), empty = "{}") {
  const pre = el("pre", { class: "json", tabindex: 0 });
  if (typeof value === "object" && value !== null && !Object.keys(value).length) {
    pre.append(Array.isArray(value) ? "[]" : empty);
    return pre;
  }
  if (isDeep(value)) pre.append(visible(JSON.stringify(value)));
  else write(pre, value, "", [], marked);
  return pre;
}

/** Whether JSON is nested so deep that the spaces before its lines would be megabytes. */
function isDeep(value) {
  let level = [value];
  for (let depth = 0; depth <= MOST_LEVELS; depth += 1) {
    level = level.filter((each) => typeof each === "object" && each !== null).flatMap((each) => Object.values(each));
    if (!level.length) return false;
  }
  return true;
}

function write(place, value, indent, path, marked) {
  if (Array.isArray(value) || typeof value !== "object" || value === null) {
    const lines = JSON.stringify(value, null, 2) ?? "null";
    const kind = typeof value === "string" ? "text" : typeof value === "number" ? "number" : "word";
    const span = el("span", { class: kind });
    // The line ends are ours: those of a text are escaped in JSON.
    span.append(lines.split("\n").map(visible).join(`\n${indent}`));
    place.append(span);
    return;
  }
  place.append("{");
  const names = Object.keys(value);
  names.forEach((name, index) => {
    const inner = [...path, name];
    const isMarked = marked.has(JSON.stringify(inner));
    const line = isMarked ? el("mark", {}) : document.createDocumentFragment();
    line.append(el("span", { class: "name" }, JSON.stringify(name)), ": ");
    write(line, value[name], `${indent}  `, inner, marked);
    place.append(`\n${indent}  `, line, index < names.length - 1 ? "," : "");
  });
  place.append(names.length ? `\n${indent}}` : "}");
}

/** List the paths of the leaves of a patch, as `json` marks them. */
export function leaves(patch, path = []) {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return [path];
  return Object.entries(patch)
    .filter(([name]) => !name.startsWith("$"))
    .flatMap(([name, value]) => leaves(value, [...path, name]));
}

/** Describe what a write did to a section: `reported.temperature: 21 → 22`. */
export function describe(section, patch, before = null) {
  if (patch.$tooLarge) return [`${section} (${count(patch.$tooLarge, "byte")})`];
  const former = before?.$tooLarge ? {} : before;
  return leaves(patch).map((path) => {
    const name = [section, ...path].filter(Boolean).join(".");
    const [old, value] = [former, patch].map((each) => path.reduce((inner, step) => inner?.[step], each));
    if (value === null) return old === undefined ? `${name} removed` : `${name} removed, was ${line(old)}`;
    const text = line(value);
    if (old === undefined) return `${name} = ${text}`;
    return JSON.stringify(old) === JSON.stringify(value) ? `${name} = ${text}, as before` : `${name}: ${line(old)} \u2192 ${text}`;
  });
}

function line(value) {
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)} \u2026` : text;
}
