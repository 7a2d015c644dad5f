// Limits, headroom, halts; for risk officers also the switches.
import { get, post, toast } from "./api.js";
import { clock, decimal, element, money, words } from "./format.js";
import { Live } from "./live.js";
import { account, can, onAccount, scopeText, showHalts, showState } from "./shell.js";
import { Table } from "./table.js";

const officer = can("risk");
const all = document.getElementById("all-limits"), form = document.getElementById("halt");
const tones = { active: "good", proposed: "wait", retired: "off", refused: "bad" };
const emptyOf = (table) => table.parentElement.querySelector(".empty");

function ask(title) {
  const dialog = document.getElementById("ask"), input = dialog.querySelector("input");
  dialog.querySelector("h2").textContent = title;
  input.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes" ? input.value : null), { once: true }));
}
async function act(title, path, body) {
  const reason = await ask(title);
  if (reason === null) return;
  try { await post(path, { ...body, reason }); } catch (problem) { toast(problem.message, "bad"); }
  load();
}

const halts = new Table(document.getElementById("halt-rows"), [
  { text: (h) => scopeText(h.scope) },
  { text: (h) => words(h.mode), class: () => "sell" },
  { text: (h) => h.reason, class: () => "note" },
  { text: (h) => h.engaged_by },
  { text: (h) => clock(h.engaged_at) },
  { text: (h) => (h.released_at ? `${clock(h.released_at)} by ${h.released_by}` : "engaged") },
  { text: (h) => String(officer && !h.released_at), node: (h) => (officer && !h.released_at ? element("button", { class: "small", type: "button", onclick: () => act(`Release ${scopeText(h.scope)}`, `risk/halts/${h.id}/release`, {}) }, "Release") : null) },
], { key: (h) => h.id });

const headroom = new Table(document.getElementById("headroom"), [
  { text: (r) => r.account },
  { text: (r) => r.symbol ?? "" },
  { text: (r) => words(r.kind) },
  ...["limit", "used", "held", "headroom"].map((name) => ({ text: (r) => (r.kind === "buying_power" && r[name] !== null ? `${money(r[name])} ${r.currency}` : decimal(r[name])), class: (r) => "n" + (name === "headroom" && r.breach ? " down" : "") })),
  { text: (r) => `${r.limit} ${r.used} ${r.held} ${r.breach}`, node: gauge },
], { key: (r) => `${r.account} ${r.kind} ${r.symbol}` });

function gauge(row) {
  if (row.breach) return element("span", { class: "down" }, "over the limit");
  if (row.limit === null) return row.headroom === null ? element("span", { class: "stale" }, "unavailable") : "";
  const limit = Number(row.limit), used = Number(row.used) + Number(row.held); // only a picture; the figures stand beside it
  return element("meter", { min: 0, max: limit || 1, value: used, high: limit * 0.8, optimum: 0, title: `${Math.round((used / (limit || 1)) * 100)} %` });
}

const limits = new Table(document.getElementById("limits"), [
  { text: (l) => scopeText(l.scope) },
  { text: (l) => words(l.kind) + (l.soft ? " (soft)" : "") },
  { text: (l) => decimal(l.value), class: () => "n" },
  { text: (l) => l.currency ?? "" },
  { text: (l) => l.status, node: (l) => element("span", { class: "status", "data-tone": tones[l.status] }, l.status) },
  { text: (l) => clock(l.effective_from) },
  { text: (l) => l.reason, class: () => "note" },
  { text: (l) => l.maker ?? "" },
  { text: (l) => l.approver ?? "" },
  { text: (l) => String(officer && l.status === "proposed"), node: (l) => (officer && l.status === "proposed" ? decide(l) : null) },
], { key: (l) => l.id });
const decide = (limit) => element("span", {},
  ...["approve", "refuse"].map((decision) => element("button", { class: "small", type: "button", onclick: () => act(`${decision} ${words(limit.kind)} for ${scopeText(limit.scope)}`, "risk/approvals", { object: limit.id, decision }) }, decision)));

async function load() {
  try {
    const [stopped, room, bounds] = await Promise.all([get("risk/halts", { limit: 50 }), account() ? get("risk/exposure", { account: account() }) : { results: [] }, get("risk/limits", { limit: 500 })]);
    halts.render(stopped.results);
    headroom.render(room.results);
    limits.render(bounds.results.filter((l) => all.checked || l.status === "active" || l.status === "proposed"));
    emptyOf(document.getElementById("halt-rows")).hidden = stopped.results.some((h) => !h.released_at);
    emptyOf(document.getElementById("headroom")).hidden = room.results.length > 0;
    emptyOf(document.getElementById("limits")).hidden = bounds.results.some((l) => l.status === "active");
  } catch (problem) { toast(problem.message, "bad"); }
  showHalts();
}
const soon = (() => { let timer = null; return () => { timer ??= setTimeout(() => { timer = null; load(); }, 500); }; })();

const live = new Live({ state: showState, snapshot: soon, frame: soon, mark() {} });
onAccount((code) => { live.follow(code); load(); });
if (!account()) load();
all.addEventListener("change", load);

if (officer) {
  form.hidden = false;
  const fit = () => { form.querySelector("[data-key]").hidden = ["account", "all"].includes(form.elements.kind.value); };
  form.elements.kind.addEventListener("change", fit);
  fit();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const kind = form.elements.kind.value, fault = form.querySelector(".fault");
    const scope = kind === "all" ? { all: true } : { [kind]: kind === "account" ? account() : form.elements.key.value.trim() };
    fault.hidden = true;
    try {
      const halt = await post("risk/halts", { scope, mode: form.elements.mode.value, reason: form.elements.reason.value });
      toast(`Engaged; ${halt.canceled} orders asked to end.`);
      form.reset();
      fit();
      load();
    } catch (problem) { fault.textContent = problem.message; fault.hidden = false; }
  });
}
