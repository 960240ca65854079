// Messages and calls in a second, over the last minute.

import { el, fill, svg } from "./dom.js";

const SECONDS = 60;
const WIDTH = 600;
const HEIGHT = 120;

export function chart() {
  let last = null;
  let rates = [];
  const lines = ["messages", "calls"].map((name) => [name, svg("polyline", { class: `series ${name}` })]);
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", "aria-hidden": true, preserveAspectRatio: "none" },
    svg("line", { x1: 0, y1: HEIGHT - 1, x2: WIDTH, y2: HEIGHT - 1, class: "base" }),
    lines.map(([, line]) => line),
  );
  const text = el("p", { class: "legend" });

  function draw() {
    const highest = Math.max(1, ...rates.flatMap(({ messages, calls }) => [messages, calls]));
    for (const [name, line] of lines) {
      const points = rates.map((rate, index) => {
        const x = WIDTH - (rates.length - 1 - index) * (WIDTH / (SECONDS - 1));
        return `${x.toFixed(1)},${(HEIGHT - 2 - (rate[name] / highest) * (HEIGHT - 20)).toFixed(1)}`;
      });
      line.setAttribute("points", points.join(" "));
    }
    const now = rates.at(-1) ?? { messages: 0, calls: 0 };
    const number = (value) => (value < 10 ? Number(value.toFixed(1)) : Math.round(value)).toLocaleString("en-US");
    fill(
      text,
      el("span", { class: "key messages" }, `${number(now.messages)} messages per second`),
      el("span", { class: "key calls" }, `${number(now.calls)} calls per second`),
      el("span", { class: "dim" }, `The most in the last minute: ${number(Math.max(0, ...rates.map((each) => each.messages)))} messages, ${number(Math.max(0, ...rates.map((each) => each.calls)))} calls`),
    );
  }

  draw();
  return {
    view: el("figure", {}, el("figcaption", { class: "unseen" }, "Messages and calls per second"), picture, text),

    /** Take the numbers of the hub. */
    take({ messages, calls }) {
      const at = performance.now();
      if (last && at > last.at) {
        const seconds = (at - last.at) / 1000;
        rates.push({ messages: Math.max(0, messages - last.messages) / seconds, calls: Math.max(0, calls - last.calls) / seconds });
        rates = rates.slice(-SECONDS);
        draw();
      }
      last = { at, messages, calls };
    },

    /** Begin anew: what was between two streams is not a rate. */
    clear() {
      last = null;
    },
  };
}
