// A twin as it changes: what the last change did is marked. Desired properties and tags can be edited.

import { call, pathOf } from "./api.js";
import { announce, button, dialog, el, field, fill, form } from "./dom.js";
import { parseObject } from "./mistake.js";
import { clockTime, describe, json, leaves } from "./text.js";

// How many values of a change are shown.
const MOST = 8;

const SECTIONS = [
  ["reported", "Reported properties", "The device writes them."],
  ["desired", "Desired properties", "Services write them, the device reads them."],
  ["tags", "Tags", "Only services see them."],
];

export function twin(key) {
  let value = null;
  const marked = { reported: new Set(), desired: new Set(), tags: new Set() };
  const note = el("div", { class: "change", hidden: true });
  const places = {};
  const versions = {};
  const views = SECTIONS.map(([name, label, hint]) => {
    places[name] = el("div", {});
    versions[name] = el("span", { class: "dim" });
    const edit = name === "reported" ? null : button("Edit", () => change(name, label), { "aria-label": `Edit ${label.toLowerCase()}` });
    return el("div", { class: "part" }, el("div", { class: "head" }, el("h3", { title: hint }, label), versions[name], edit), places[name]);
  });

  function sectionOf(name) {
    return own(name === "tags" ? value.tags : value.properties[name]);
  }

  function draw() {
    for (const [name] of SECTIONS) {
      fill(places[name], json(sectionOf(name), marked[name]));
      if (name !== "tags") fill(versions[name], `version ${value.properties[name].$version}`);
    }
  }

  async function change(name, label) {
    const before = sectionOf(name);
    const etag = value.etag;
    await dialog(`Edit ${label.toLowerCase()}`, (close) => {
      const text = el("textarea", { class: "code", rows: 14, spellcheck: "false", autofocus: true });
      text.value = JSON.stringify(before, null, 2);
      return [
        form(`Edit ${label.toLowerCase()}`, field("JSON", text, "A member that you remove is deleted in the twin."), "Save", async () => {
          const patch = difference(before, parseObject(text.value));
          if (patch === undefined) throw new Error("Nothing is changed.");
          const body = name === "tags" ? { tags: patch } : { properties: { desired: patch } };
          try {
            await call("PATCH", pathOf("/twins", key), body, { "If-Match": `"${etag}"` });
          } catch (error) {
            if (error.status !== 412) throw error;
            throw new Error("The twin was changed meanwhile. Close this dialog, and edit the new one.");
          }
          announce(`${label} saved.`);
          close();
        }),
        button("Cancel", async () => close(), { class: "quiet" }),
      ];
    });
  }

  return {
    view: el("section", { class: "card" }, el("h2", {}, "Twin"), note, views),

    /** Show a twin. */
    show(twinOfHub) {
      value = twinOfHub;
      draw();
    },

    /** Mark what a change did. */
    changed(item) {
      const parts = SECTIONS.map(([name]) => name).filter((each) => item[each]);
      for (const [name] of SECTIONS) {
        marked[name] = new Set(item[name] ? leaves(item[name]).map((path) => JSON.stringify(path)) : []);
      }
      const what = parts.flatMap((each) => describe(each, item[each], item.before?.[each]));
      const lines = what.slice(0, MOST);
      if (what.length > MOST) lines.push(`and ${what.length - MOST} more`);
      const writer = item.reported ? "the device" : "a service or the hub";
      fill(
        note,
        el("p", {}, "Last change at ", clockTime(item.time), ` by ${writer}${item.replaced ? ", which replaced the twin" : ""}:`),
        el("ul", {}, (lines.length ? lines : ["no values"]).map((each) => el("li", {}, each))),
      );
      note.hidden = false;
      if (value) draw();
    },
  };
}

/** Return the members of a section without those that the hub adds. */
function own(section) {
  return Object.fromEntries(Object.entries(section ?? {}).filter(([name]) => !name.startsWith("$")));
}

/** Return the patch that makes `after` of `before`; undefined if they are equal. */
function difference(before, after) {
  const isObject = (each) => typeof each === "object" && each !== null && !Array.isArray(each);
  if (!isObject(before) || !isObject(after)) return JSON.stringify(before) === JSON.stringify(after) ? undefined : after;
  const patch = {};
  for (const name of Object.keys(before)) if (!(name in after)) patch[name] = null;
  for (const [name, value] of Object.entries(after)) {
    const inner = name in before ? difference(before[name], value) : value;
    if (inner !== undefined) patch[name] = inner;
  }
  return Object.keys(patch).length ? patch : undefined;
}
