// Elements, made without HTML text: what devices send can never become markup.

// C0 and C1 controls, marks that are invisible or change the direction of text, and half surrogates.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

const NAMES = { 0x00: "NUL", 0x09: "TAB", 0x0a: "LF", 0x0d: "CR", 0x1b: "ESC" };

/** Return a text in which every control character can be seen. */
export function visible(text) {
  return String(text).replace(UNSEEN, (found) => {
    const code = found.codePointAt(0);
    return `\u27e8${NAMES[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}\u27e9`;
  });
}

/** Make an element. Children are nodes, texts (made visible), or arrays of both. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  set(element, properties);
  return fill(element, ...children);
}

/** Make an SVG element. */
export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(element, properties);
  return fill(element, ...children);
}

/** Replace what an element contains. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(isShown).map(toNode));
  return element;
}

/** Replace what an element contains, as `fill`; what has the focus keeps it, found by its name. */
export function renew(element, ...children) {
  const active = document.activeElement;
  const nameOf = (each) => each.getAttribute("aria-label") ?? each.textContent;
  const name = element.contains(active) ? nameOf(active) : null;
  fill(element, ...children);
  if (name !== null) [...element.querySelectorAll(active.tagName)].find((each) => nameOf(each) === name)?.focus({ preventScroll: true });
  return element;
}

/** Add children to an element. */
export function add(element, ...children) {
  element.append(...children.flat(Infinity).filter(isShown).map(toNode));
  return element;
}

function isShown(child) {
  return child !== null && child !== undefined && child !== false;
}

function toNode(child) {
  return child instanceof Node ? child : document.createTextNode(visible(child));
}

function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : visible(value));
  }
}

/** Say something to a screen reader. */
export function announce(text) {
  fill(document.getElementById("status"), text);
}

let fields = 0;

/** Make a field with its label; `input` is an element. */
export function field(label, input, hint = "") {
  fields += 1;
  input.id = `field-${fields}`;
  const note = hint && el("span", { class: "hint", id: `hint-${fields}` }, hint);
  if (note) input.setAttribute("aria-describedby", note.id);
  return el("div", { class: "field" }, el("label", { for: input.id }, label), input, note);
}

/** Make a place for an error; `show(text)` shows it, and an empty text hides it. */
export function errorPlace() {
  const place = el("p", { class: "error", role: "alert", hidden: true });
  return {
    place,
    show(text) {
      place.hidden = !text;
      fill(place, text);
    },
  };
}

/** Make a button that shows that it works, and shows the error if it fails. */
export function button(label, work, properties = {}, show = null) {
  const made = el("button", { type: "button", ...properties }, label);
  made.addEventListener("click", () => attempt(made, work, show));
  return made;
}

/** Do the work of a button; an error goes to `show`, or to a dialog. */
async function attempt(made, work, show) {
  if (made.getAttribute("aria-disabled") === "true") return;
  made.setAttribute("aria-disabled", "true");
  if (show) show("");
  try {
    await work();
  } catch (error) {
    if (show) show(error.message);
    else await tell("It did not work", error.message);
  } finally {
    made.removeAttribute("aria-disabled");
  }
}

/** Make a form. Enter and its button do the work; an error is shown in it. */
export function form(label, contents, submit, work) {
  const error = errorPlace();
  const send = el("button", { type: "submit", class: "main" }, submit);
  const made = el("form", { "aria-label": label, novalidate: true }, contents, error.place, send);
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(send, work, error.show);
  });
  return made;
}

/** Show a dialog; resolves with what `close` is called with, or undefined. */
export function dialog(title, build) {
  return new Promise((resolve) => {
    let result;
    const box = el("dialog", { "aria-label": title });
    const close = (value) => {
      result = value;
      box.close();
    };
    add(box, el("h2", {}, title), build(close));
    box.addEventListener("close", () => {
      box.remove();
      resolve(result);
    });
    document.body.append(box);
    box.showModal();
  });
}

/** Show a text until it is closed. */
export function tell(title, ...contents) {
  return dialog(title, (close) => [
    el("div", { class: "text" }, contents),
    el("div", { class: "actions" }, el("button", { type: "button", class: "main", onclick: () => close() }, "Close")),
  ]);
}

/** Ask before something that can't be undone; resolves with true or false. */
export async function confirm(title, text, action) {
  const answer = await dialog(title, (close) => [
    el("p", {}, text),
    el(
      "div",
      { class: "actions" },
      el("button", { type: "button", autofocus: true, onclick: () => close(false) }, "Cancel"),
      el("button", { type: "button", class: "danger", onclick: () => close(true) }, action),
    ),
  ]);
  return answer === true;
}

/** Copy a text; where the browser refuses this, show the text. */
export async function copy(text, name) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${name} copied.`);
    return true;
  } catch {
    await tell(`Copy the ${name.toLowerCase()}`, el("textarea", { readonly: true, rows: 4, "aria-label": name, value: text }));
    return false;
  }
}

/** Make a text that can be copied, with its label; `read` returns the whole text where it holds a secret. */
export function copyable(label, text, read = async () => text) {
  const copied = async () => copy(await read(), label);
  return el(
    "div",
    { class: "field" },
    el("b", {}, label),
    el("div", { class: "copyable" }, el("code", {}, text), button("Copy", copied, { "aria-label": `Copy the ${label.toLowerCase()}` })),
  );
}

/** Make a table; each row is an array of cells, or of [cell, class]. */
export function table(caption, columns, rows, empty = "There is nothing to show.") {
  const cell = (tag, content, extra = {}) =>
    Array.isArray(content) && content.length === 2 && typeof content[1] === "string" && content[1].startsWith("cell-")
      ? el(tag, { class: content[1], ...extra }, content[0])
      : el(tag, extra, content);
  const head = el("tr", {}, columns.map((each) => cell("th", each, { scope: "col" })));
  const body = rows.length
    ? rows.map((row) => el("tr", {}, row.map((each) => cell("td", each))))
    : el("tr", {}, el("td", { colspan: columns.length, class: "empty" }, empty));
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, head), el("tbody", {}, body)),
  );
}
