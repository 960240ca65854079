// What happens in the hub, by server-sent events. A hidden page has no stream.

const RETRY_MS = 3000;
// A list is read again when nothing has happened for this time.
const QUIET_MS = 500;

let offset = 0;

/** Return the present time of the hub, in milliseconds: its clock can be ahead of ours. */
export function hubNow() {
  return Date.now() + offset;
}

/**
 * Watch the hub, or a device or module of it, until `close()`.
 *
 * `begin()` is called when a stream begins: it repeats what was lately, so lists start anew.
 * `take(items)` gets what happens, and `state(text)` whether the page is live.
 */
export function watch(key, { begin = () => {}, take, state = () => {} }) {
  let source = null;
  let timer = null;

  function open() {
    close("Connecting");
    if (document.hidden) {
      state("Paused");
      return;
    }
    const url = new URL("/_emulator/changes", location.origin);
    if (key) url.searchParams.set("device", key.deviceId);
    if (key?.moduleId) url.searchParams.set("module", key.moduleId);
    source = new EventSource(url);
    source.onopen = () => {
      state("Live");
      begin();
    };
    source.onmessage = (event) => {
      const items = JSON.parse(event.data);
      const numbers = items.find((each) => each.type === "Numbers");
      if (numbers) offset = Date.parse(numbers.time) - Date.now();
      take(items);
    };
    source.onerror = () => {
      close("Not connected");
      window.dispatchEvent(new Event("refused"));
      timer = setTimeout(open, RETRY_MS);
    };
  }

  function close(text) {
    clearTimeout(timer);
    source?.close();
    source = null;
    state(text);
  }

  document.addEventListener("visibilitychange", open);
  open();
  return {
    close() {
      document.removeEventListener("visibilitychange", open);
      close("");
    },
  };
}

/**
 * Watch the hub for a list, until `close()`.
 *
 * `begin()` is called when a stream begins, and `read()` soon after something for which `matters(item)` is true.
 */
export function watchList(matters, { state, begin, read = begin }) {
  let timer = null;
  const stream = watch(null, {
    state,
    begin,
    take(items) {
      if (!items.some(matters)) return;
      clearTimeout(timer);
      timer = setTimeout(read, QUIET_MS);
    },
  });
  return {
    close() {
      clearTimeout(timer);
      stream.close();
    },
  };
}
