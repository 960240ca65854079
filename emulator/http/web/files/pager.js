// The pages of a long list: one at a time, each by the continuation of the page before.

import { send } from "./api.js";
import { el, fill } from "./dom.js";

/**
 * Make the buttons of a list in pages.
 *
 * @param size how many rows a page has
 * @param load reads and shows the present page
 */
export function pager(size, load) {
  let turns = 0;
  let pages = [null]; // the continuation of each page up to the present one
  let next = null;
  const where = el("span", { class: "dim" });
  const back = el("button", { type: "button", disabled: true, onclick: () => turn(-1) }, "Previous");
  const forward = el("button", { type: "button", disabled: true, onclick: () => turn(1) }, "Next");

  function turn(step) {
    if (step > 0) pages.push(next);
    else pages.pop();
    stop();
    load();
  }

  /** Until a page is shown, no other one can be chosen. */
  function stop() {
    turns += 1;
    back.disabled = true;
    forward.disabled = true;
  }

  return {
    /** How often another page was chosen: an answer for an earlier choice is not shown. */
    get turns() {
      return turns;
    },

    view: el("div", { class: "pager", hidden: true }, back, where, forward),

    /** Return the headers of a request for the present page. */
    headers() {
      const headers = { "x-ms-max-item-count": String(size) };
      if (pages.at(-1)) headers["x-ms-continuation"] = pages.at(-1);
      return headers;
    },

    /** Begin with the first page: the next one of the list before is no page of the new list. */
    restart() {
      pages = [null];
      stop();
    },

    /** Read the present page of a query, and show its rows; not if another page is chosen meanwhile. */
    async query(path, query, show) {
      const before = turns;
      const answer = await send("POST", path, { body: { query }, headers: this.headers() });
      if (before !== turns) return;
      this.show(answer.value, answer.headers);
      show(answer.value);
    },

    /** Show which rows of the list the page has, by the headers of the answer. */
    show(rows, headers) {
      next = headers.get("x-ms-continuation");
      const number = (value) => value.toLocaleString("en-US");
      const first = (pages.length - 1) * size;
      fill(where, rows.length ? `${number(first + 1)} to ${number(first + rows.length)}` : "");
      back.disabled = pages.length === 1;
      forward.disabled = !next;
      this.view.hidden = back.disabled && forward.disabled;
    },
  };
}
