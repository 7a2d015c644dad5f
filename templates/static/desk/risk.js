// Limits, headroom, halts; for risk officers also the switches.
import { Problem, get, post, toast } from "./api.js";
import { ask } from "./dialog.js";
import { clock, decimal, element, money, plain, typed, words } from "./format.js";
import { Live } from "./live.js";
import { account, can, onAccount, scopeText, settled, showHalts, showState } from "./shell.js";
import { Table } from "./table.js";

const officer = can("risk"), officers = can("risk", "ops", "auditor", "admin");
const all = document.getElementById("all-limits"), form = document.getElementById("halt");
const tones = { active: "good", approved: "wait", proposed: "wait", retired: "off", refused: "bad" };
const emptyOf = (table) => table.parentElement.querySelector(".empty");

async function act(title, path, body) {
  const answer = await ask({ title, reason: true, yes: "Go on", no: "Leave it" });
  if (!answer) return;
  try { await post(path, { ...body, reason: answer.reason }); } catch (problem) { toast(problem.message, "bad"); }
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

const waiting = new Table(document.getElementById("waiting"), [
  { text: (a) => a.account },
  { text: ({ content: o }) => [words(o.side), decimal(o.quantity), o.symbol, words(o.order_type), ...[o.stop_price, o.limit_price].filter(Boolean).map((p) => decimal(plain(p))), o.time_in_force].join(" ") },
  { text: (a) => a.content.reason?.detail ?? "", class: () => "note" },
  { text: (a) => a.maker ?? "" },
  { text: (a) => clock(a.created_at) },
  { text: (a) => clock(a.expires_at) },
  { text: (a) => String(officer), node: (a) => (officer ? choose(`order of ${a.maker}`, { object: a.object, content_hash: a.content_hash }) : null) },
], { key: (a) => a.id });
const choose = (title, body) => element("span", {},
  ...["approve", "refuse"].map((decision) => element("button", { class: "small", type: "button", onclick: () => act(`${decision} ${title}`, "risk/approvals", { ...body, decision }) }, decision)));

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
  const part = `${((used / (limit || 1)) * 100).toFixed(1)} %`;
  return element("span", { class: "gauge" }, element("meter", { min: 0, max: limit || 1, value: used, low: limit * 0.8, high: limit * 0.95, optimum: 0, "aria-label": part }), part);
}

const UNITS = { quote_age: " s", duplicate_window: " s", order_rate: " a second", message_rate: " a second", leverage: " × equity", price_collar_ticks: " ticks" };
const FRACTIONS = ["price_collar", "spread", "concentration", "concentration_sector", "concentration_class", "concentration_strategy"];
function measured(kind, value) {
  if (!FRACTIONS.includes(kind)) return decimal(plain(value)) + (UNITS[kind] ?? "");
  return `${decimal(plain(value))} = ${Number((Number(value) * 100).toPrecision(12))} %`; // the picture; the exact figure stands before it
}

const limits = new Table(document.getElementById("limits"), [
  { text: (l) => scopeText(l.scope), sort: (l) => scopeText(l.scope) },
  { text: (l) => words(l.kind) + (l.soft ? " (soft)" : "") + (l.aggregate ? " (sum)" : ""), sort: (l) => l.kind },
  { text: (l) => measured(l.kind, l.value), class: () => "n", sort: (l) => Number(l.value) },
  { text: (l) => l.currency ?? "" },
  { text: (l) => l.status, node: (l) => element("span", { class: "status", "data-tone": tones[l.status] }, l.status) },
  { text: (l) => clock(l.effective_from) },
  { text: (l) => l.reason, class: () => "note" },
  { text: (l) => l.maker ?? "" },
  { text: (l) => l.approver ?? "" },
  { text: (l) => String(officer && l.status === "proposed"), node: (l) => (officer && l.status === "proposed" ? choose(`${words(l.kind)} for ${scopeText(l.scope)}`, { object: l.id }) : null) },
], { key: (l) => l.id });
const uses = new Table(document.getElementById("uses"), [
  { text: (r) => scopeText(r.scope) + (r.aggregate ? " together" : "") },
  { text: (r) => words(r.kind) + (r.soft ? " (soft)" : "") },
  { text: (r) => [r.account, r.symbol].filter(Boolean).join(" ") },
  ...["limit", "used", "headroom"].map((name) => ({ text: (r) => (r[name] === null ? "unavailable" : decimal(plain(r[name]))), class: (r) => "n" + (name === "headroom" && r.breach ? " down" : "") })),
  { text: (r) => r.consumers.map((c) => `${c.account ?? ""} ${c.symbol} ${money(c.value)} ${c.currency}`.trim()).join(", "), class: () => "note" },
], { key: (r) => `${JSON.stringify(r.scope)} ${r.kind} ${r.aggregate} ${r.soft} ${r.account}` });
const matrix = new Table(document.getElementById("matrix"), [
  { text: (r) => r.user },
  { text: (r) => r.account },
  { text: (r) => r.symbols.join(", ") || "nothing", class: () => "note" },
  { text: (r) => r.barred.join(", "), class: () => "note" },
  { text: (r) => [...r.halts, ...r.mandates].join("; "), class: () => "note" },
], { key: (r) => `${r.user} ${r.account}` });
const shocks = new Table(document.getElementById("shocks"), [
  { text: (r) => r.scenario },
  { text: (r) => `${Number(r.shock) > 0 ? "+" : ""}${Number(r.shock) * 100} %`, class: () => "n" },
  { text: (r) => (r.profit === null ? "unavailable" : `${money(r.profit)} ${r.currency}`), class: (r) => "n" + (r.profit?.startsWith("-") ? " down" : "") },
  { text: (r) => (r.equity_after === null ? "unavailable" : `${money(r.equity_after)} ${r.currency}`), class: () => "n" },
], { key: (r) => `${r.scenario} ${r.shock}` });

const newest = (rows) => rows.sort((a, b) => (a.id < b.id ? 1 : -1));
/** What is engaged, however old, and the last ones that were. */
async function allHalts() {
  const [engaged, late] = await Promise.all([get("risk/halts", { engaged: "true", limit: 500 }), get("risk/halts", { engaged: "false", limit: 50 })]);
  return newest([...engaged.results, ...late.results]);
}
/** A question for each status: what is retired must not push what is in force off the page. */
async function allLimits() {
  const statuses = ["active", "approved", "proposed", ...(all.checked ? ["retired", "refused"] : [])];
  const found = await Promise.all(statuses.map((status) => get("risk/limits", { status, limit: 500 })));
  return newest(found.flatMap((page) => page.results));
}

async function load() {
  try {
    const mine = account() ? { account: account() } : {}, none = { results: [] };
    const [stopped, room, bounds, asked, used, traded, shaken] = await Promise.all([allHalts(), account() ? get("risk/exposure", { account: account() }) : { results: [] }, allLimits(), officers ? get("risk/approvals", { status: "pending", object_kind: "order", limit: 100 }) : none, officers ? get("risk/headroom", mine) : none, officers ? get("risk/matrix", mine) : none, account() ? get("risk/stress", mine) : none]);
    halts.render(stopped);
    showRoom(room.results);
    for (const [table, found] of [[uses, used], [matrix, traded], [shocks, shaken]]) { table.render(found.results); table.body.closest("section").hidden = !found.results.length; }
    waiting.render(asked.results);
    emptyOf(document.getElementById("waiting")).hidden = asked.results.length > 0;
    limits.render(bounds);
    emptyOf(document.getElementById("halt-rows")).hidden = stopped.some((h) => !h.released_at);
    emptyOf(document.getElementById("limits")).hidden = bounds.some((l) => l.status === "active");
    settled();
    document.getElementById("waiting-section").hidden = !officers;
  } catch (problem) { toast(problem.message, "bad"); }
  showHalts();
}
const soon = (() => { let timer = null; return () => { timer ??= setTimeout(() => { timer = null; load(); }, 500); }; })();

const showRoom = (rows) => { headroom.render(rows); emptyOf(document.getElementById("headroom")).hidden = rows.length > 0; };
const live = new Live({ state: showState, snapshot: soon, frame: soon, mark() {}, exposure: showRoom });
onAccount((code) => { live.follow(code); load(); });
if (!account()) load();
all.addEventListener("change", load);

/** The scope a form names, or null where it names none. */
function scopeOf(form, field) {
  const kind = form.elements[field].value;
  if (kind === "all" || kind === "firm") return { [kind]: true };
  const key = kind === "account" ? account() : form.elements.key.value.trim();
  return key ? { [kind]: key } : null;
}
function officeForm(form, field, work) {
  const fault = form.querySelector(".fault"), key = form.querySelector("[data-key]");
  const fit = () => { key.hidden = ["account", "all", "firm"].includes(form.elements[field].value); };
  form.hidden = false;
  fit();
  form.elements[field].addEventListener("change", fit);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    fault.hidden = true;
    const scope = scopeOf(form, field);
    try {
      if (!scope) throw new Problem(400, { detail: "Name the code that the scope is about." });
      if (!(await work(form.elements, scope))) return;
      form.reset();
      fit();
      load();
    } catch (problem) { fault.textContent = [problem.message, ...(problem.errors ?? []).map((e) => `${e.field}: ${e.detail}`)].join(" "); fault.hidden = false; }
  });
}
async function openIn(scope) {
  const [kind, key] = Object.entries(scope)[0];
  if (kind === "user") return "not counted";
  const { results, next } = await get("orders", { open: "true", limit: 500, ...(kind === "all" ? {} : { [kind]: key }) });
  return `${results.length}${next ? " or more" : ""}`;
}

if (officer) {
  officeForm(form, "kind", async ({ mode, reason }, scope) => {
    const cancels = mode.value === "halt", word = scope.all ? "everything" : String(Object.values(scope)[0]);
    const answer = await ask({
      title: `${cancels ? "Halt" : "Only reduce"} ${scopeText(scope)}?`, yes: "Engage", no: "Leave it", danger: true, type: word,
      text: cancels ? "New orders and replaces stop; open orders are canceled. Another person has to release it." : "Only orders that bring positions nearer to zero pass. Another person has to release it.",
      facts: [[cancels ? "Open orders to be canceled" : "Open orders that stay", await openIn(scope)], ["Reason", reason.value]],
    });
    if (!answer) return false;
    const halt = await post("risk/halts", { scope, mode: mode.value, reason: reason.value });
    toast(`Engaged; ${halt.canceled} orders asked to end.`);
    return true;
  });
  officeForm(document.getElementById("limit"), "scope", async ({ kind, value, currency, reason, soft, aggregate }, scope) => {
    const limit = await post("risk/limits", { scope, kind: kind.value, value: typed(value.value), reason: reason.value, soft: soft.checked, aggregate: aggregate.checked, ...(currency.value.trim() ? { currency: currency.value.trim().toUpperCase() } : {}) });
    toast(limit.status === "active" ? "It is tighter and holds at once." : "Proposed: it holds when another risk officer approves it.", "good");
    return true;
  });
}
