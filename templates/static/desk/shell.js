// What every page has: account choice, theme, connection state, halts, keys.
import { get } from "./api.js";
import { clock, words } from "./format.js";
import { keys } from "./keys.js";

export const desk = JSON.parse(document.getElementById("desk").textContent);
export const can = (...roles) => roles.some((r) => desk.roles.includes(r));
const picker = document.getElementById("account");

export const remembered = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
export const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* only a convenience */ } };

if (picker && desk.accounts.includes(remembered("account"))) picker.value = remembered("account");
export const account = () => picker?.value ?? null;

export function onAccount(change) {
  if (!picker) return;
  picker.addEventListener("change", () => { remember("account", picker.value); change(picker.value); });
  change(picker.value);
}

// The badge says how it stands now; once what is shown may be old, a bar says since when, and the figures turn pale.
const badge = document.getElementById("connection"), bar = document.getElementById("stale");
const LABELS = { live: "live", connecting: "connecting", stale: "stale", offline: "offline" };
const DELAY_MS = 2500;
let heard = null, late = null;

export function showState(state, detail) {
  if (state === "live") heard = new Date();
  if (badge.dataset.state === state && !detail) return;
  badge.dataset.state = state;
  badge.textContent = detail || LABELS[state];
  badge.title = state === "live" ? "Connected: what you see is what the desk knows." : "";
  if (state === "live") {
    clearTimeout(late);
    late = null;
    showOld("");
  } else if (!detail) late ??= setTimeout(tellOld, DELAY_MS); // trying again and failing again does not start it anew
}
function tellOld() {
  if (badge.dataset.state !== "live") showOld(heard ? `No connection to the desk since ${clock(heard.toISOString())}. What stands here may be old; trying again.` : "The desk has not answered yet; trying again.");
}
function showOld(text) {
  bar.hidden = !text;
  bar.textContent = text;
  if (text && heard) document.body.dataset.old = "yes"; else delete document.body.dataset.old;
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember("theme", root.dataset.theme);
}
document.getElementById("theme").addEventListener("click", toggleTheme);
document.getElementById("keys").addEventListener("click", () => dispatchEvent(new KeyboardEvent("keydown", { key: "?" })));
keys({
  t: ["Dark or light", toggleTheme],
  a: ["Next account", () => {
    if (!picker) return;
    picker.selectedIndex = (picker.selectedIndex + 1) % picker.options.length;
    picker.dispatchEvent(new Event("change"));
  }],
});

export const scopeText = (scope) => { const [kind, key] = Object.entries(scope)[0]; return key === true ? (kind === "all" ? "everything" : kind) : `${kind} ${key}`; };

/** Show the sections that stand below something that grows while it is filled the first time. */
export const settled = () => { for (const late of document.querySelectorAll("[data-late]")) late.hidden = false; };

export async function showHalts() {
  const banner = document.getElementById("halts");
  try {
    const { results } = await get("risk/halts", { engaged: "true" });
    banner.hidden = !results.length;
    banner.textContent = results.map((h) => `${words(h.mode).toUpperCase()} ${scopeText(h.scope)} since ${clock(h.engaged_at)}: ${h.reason}`).join(" · ");
  } catch { /* the badge already tells of trouble */ }
}
showHalts();
