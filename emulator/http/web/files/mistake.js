// JSON that a person wrote. An error says where the mistake is: the browser's own often has no place.

const TOKEN = /\s*(?:("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))|(true|false|null)(?!\w)|([{}[\],:]))/y;

/** Parse JSON; the error begins with `subject`, such as "The payload is", and ends with `hint`. */
export function parseJson(text, subject = "This is", hint = "") {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${subject} not JSON: ${mistake(text)}.${hint && ` ${hint}`}`);
  }
}

/** Parse a JSON object; an empty text is an empty object. */
export function parseObject(text, subject = "This is") {
  const value = text.trim() ? parseJson(text, subject) : {};
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new Error(`${subject} not an object. Use a JSON object, such as {"name": "value"}.`);
}

/** Describe the first mistake in a JSON text: `line 2, column 8: expected a value, found '}'`. */
function mistake(text) {
  const stack = [];
  let expected = "a value";
  TOKEN.lastIndex = 0;
  while (expected !== "the end") {
    const start = TOKEN.lastIndex;
    const found = TOKEN.exec(text);
    if (!found) return place(text, start, expected);
    const [, string, number, word, mark] = found;
    const isValue = string !== undefined || number !== undefined || word !== undefined;
    const ends = mark === "}" || mark === "]";
    if (expected.startsWith("a value") && (isValue || mark === "{" || mark === "[")) {
      if (mark) stack.push(mark);
      expected = mark === "{" ? "a name in quotes, or }" : mark === "[" ? "a value, or ]" : after(stack);
    } else if (expected.startsWith("a name") && string !== undefined) {
      expected = ":";
    } else if (expected === ":" && mark === ":") {
      expected = "a value";
    } else if (expected.startsWith(",") && mark === ",") {
      expected = stack.at(-1) === "{" ? "a name in quotes" : "a value";
    } else if (ends && expected.endsWith(`or ${mark}`)) {
      stack.pop();
      expected = after(stack);
    } else {
      return place(text, start, expected);
    }
  }
  return text.slice(TOKEN.lastIndex).trim() ? place(text, TOKEN.lastIndex, "the end") : "it nests too deep";
}

function after(stack) {
  if (!stack.length) return "the end";
  return stack.at(-1) === "{" ? ", or }" : ", or ]";
}

function place(text, start, expected) {
  const rest = text.slice(start);
  const at = start + rest.length - rest.trimStart().length;
  const lines = text.slice(0, at).split("\n");
  const found = text.slice(at, at + 10).split("\n")[0];
  return `line ${lines.length}, column ${lines.at(-1).length + 1}: expected ${expected}, found ${found ? `'${found}'` : "the end"}`;
}
