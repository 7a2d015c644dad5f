// What every page has: account choice, theme, connection badge, halts.
import { get } from "./api.js";
import { clock, words } from "./format.js";

export const desk = JSON.parse(document.getElementById("desk").textContent);
export const can = (...roles) => roles.some((r) => desk.roles.includes(r));
const picker = document.getElementById("account");

const remembered = (() => { try { return localStorage.getItem("account"); } catch { return null; } })();
if (picker && desk.accounts.includes(remembered)) picker.value = remembered;
export const account = () => picker?.value ?? null;

export function onAccount(change) {
  if (!picker) return;
  picker.addEventListener("change", () => {
    try { localStorage.setItem("account", picker.value); } catch { /* only a convenience */ }
    change(picker.value);
  });
  change(picker.value);
}

const badge = document.getElementById("connection");
const LABELS = { live: "live", connecting: "connecting", stale: "stale: no sign of life", offline: "offline, trying again" };
export function showState(state, detail) {
  if (badge.dataset.state === state && !detail) return;
  badge.dataset.state = state;
  badge.textContent = detail || LABELS[state];
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* only a convenience */ }
});

export const scopeText = (scope) => { const [kind, key] = Object.entries(scope)[0]; return key === true ? (kind === "all" ? "everything" : kind) : `${kind} ${key}`; };

export async function showHalts() {
  const bar = document.getElementById("halts");
  try {
    const { results } = await get("risk/halts", { engaged: "true" });
    bar.hidden = !results.length;
    bar.textContent = results.map((h) => `${words(h.mode).toUpperCase()} ${scopeText(h.scope)} since ${clock(h.engaged_at)}: ${h.reason}`).join(" · ");
  } catch { /* the badge already tells of trouble */ }
}
showHalts();
