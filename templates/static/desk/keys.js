// Keyboard: single letters outside of fields, all of them listed on `?`.
import { tell } from "./dialog.js";
import { element } from "./format.js";

const bound = new Map();
const NAMES = { ArrowDown: "↓", ArrowUp: "↑" };
let prefix = "";

/** Bind keys: { "n": ["New ticket", work], "g b": ["Go to the blotter", work] }. */
export function keys(bindings) { for (const [key, [what, work]] of Object.entries(bindings)) bound.set(key, { what, work }); }

export const typing = (event) => Boolean(event.target.closest?.("input:not([type=checkbox], [type=radio]), select, textarea, dialog"));

function help() {
  tell("Keys", element("dl", { class: "keys" }, ...[...bound].flatMap(([key, { what }]) =>
    [element("dt", {}, ...key.split(" ").flatMap((k, i) => (i ? [" ", element("kbd", {}, k)] : [element("kbd", {}, k)]))), element("dd", {}, what)])));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event) || event.key === "Shift") return;
  const pressed = NAMES[event.key] ?? event.key, key = prefix ? `${prefix} ${pressed}` : pressed;
  prefix = "";
  if (event.key === "g" && key === "g") { prefix = "g"; setTimeout(() => { prefix = ""; }, 1500); return; }
  const found = bound.get(key);
  if (!found) return;
  event.preventDefault();
  found.work(event);
});
keys({
  "?": ["This list", help],
  "g b": ["Blotter", () => { location.href = "/"; }],
  "g p": ["Positions", () => { location.href = "/positions/"; }],
  "g r": ["Risk", () => { location.href = "/risk/"; }],
});
if (document.querySelector('nav a[href="/operations/"]')) keys({ "g o": ["Operations", () => { location.href = "/operations/"; }] });
