// Work that runs once at a time.

/** Return a function that does the work; calls during it make it once more, after it. */
export function serial(work) {
  let running = null;
  let again = false;

  async function run() {
    do {
      again = false;
      await work();
    } while (again);
  }

  return async () => {
    if (running) {
      again = true;
      return running;
    }
    running = run().finally(() => {
      running = null;
    });
    return running;
  };
}
