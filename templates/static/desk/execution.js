// What execution cost, how brokers compare, what routing learned of them and decides by.
import { get, post, toast } from "./api.js";
import { ask } from "./dialog.js";
import { clock, decimal, element, money, plain, sum, typed, words } from "./format.js";
import { bar, curves, interval, scale, waterfall } from "./graphs.js";
import { Live } from "./live.js";
import { account, can, onAccount, settled, showHalts, showState } from "./shell.js";
import { Table } from "./table.js";

const EVERY_MS = 15000;
const KEYS = ["symbol", "broker", "strategy", "algo", "hour", "size", "day", "account"];
const HORIZONS = ["1s", "10s", "60s", "300s", "1800s"];
const by = (id) => document.getElementById(id);
const emptyOf = (id) => by(id).parentElement.querySelector(".empty");
const bps = (text) => (text === null || text === undefined ? "–" : decimal(plain(String(text)), 2));
const percent = (share) => (share === null || share === undefined ? "–" : `${(Number(share) * 100).toFixed(1)} %`);
const times = (t) => (t.p50 === null ? "–" : `${Math.round(t.p50)} / ${Math.round(t.p95)} ms`);
const spelled = (m) => (m.mean === null ? "too few" : `${m.mean.toFixed(2)}, between ${m.low.toFixed(2)} and ${m.high.toFixed(2)} bps`);
const costly = (text) => (text === null || text === undefined ? "n" : Number(text) > 0 ? "n down" : "n up");
let scales = { cards: (v) => v, groups: (v) => v, beliefs: (v) => v, policies: (v) => v };

const state = (tone, text) => element("span", { class: "status", "data-tone": tone }, text);
const drift = (d) => (!d ? ["off", "not enough"] : d.alert ? ["bad", `${d.now_bps.toFixed(2)} now, ${d.before_bps.toFixed(2)} before`] : ["good", "steady"]);
const cards = new Table(by("cards"), [
  { text: (c) => (c.rank === null ? "–" : String(c.rank)), class: () => "n", sort: (c) => c.rank ?? 99 },
  { text: (c) => c.broker, class: () => "symbol", sort: (c) => c.broker },
  { text: (c) => String(c.fills), class: () => "n", sort: (c) => c.fills },
  { text: (c) => (c.notional === null ? "–" : money(c.notional)), class: () => "n", sort: (c) => Number(c.notional) },
  { text: (c) => (c.mean_arrival_bps.mean === null ? "–" : bps(c.mean_arrival_bps.mean.toFixed(4))), class: (c) => costly(c.mean_arrival_bps.mean), sort: (c) => c.mean_arrival_bps.mean ?? 0 },
  { text: (c) => JSON.stringify(c.mean_arrival_bps) + scales.cards(1), node: (c) => (c.mean_arrival_bps.mean === null ? null : interval(c.mean_arrival_bps, scales.cards, spelled(c.mean_arrival_bps))) },
  { text: (c) => bps(c.fees_bps), class: () => "n" },
  { text: (c) => bps(c.effective_spread_bps), class: () => "n" },
  { text: (c) => bps(c.price_improvement_bps), class: () => "n" },
  { text: (c) => percent(c.fill_rate), class: () => "n", sort: (c) => Number(c.fill_rate) },
  { text: (c) => percent(c.rejected.share), class: (c) => (c.rejected.share ? "n down" : "n"), sort: (c) => c.rejected.share ?? 0 },
  { text: (c) => times(c.ack_ms), class: () => "n", sort: (c) => c.ack_ms.p95 ?? 0 },
  { text: (c) => times(c.fill_ms), class: () => "n", sort: (c) => c.fill_ms.p95 ?? 0 },
  { text: (c) => drift(c.drift).join(), node: (c) => state(...drift(c.drift)) },
], { key: (c) => c.broker });

const key = (row, id) => { const name = by(id).value, value = row[name]; return name === "" ? "" : value === null || value === undefined ? "none" : name === "hour" ? `${String(value).padStart(2, "0")}:00` : String(value); };
const groups = new Table(by("groups"), [
  { text: (g) => key(g, "first"), class: () => "symbol", sort: (g) => key(g, "first") },
  { text: (g) => key(g, "second"), sort: (g) => key(g, "second") },
  { text: (g) => String(g.fills), class: () => "n", sort: (g) => g.fills },
  { text: (g) => money(g.notional), class: () => "n", sort: (g) => Number(g.notional) },
  { text: (g) => bps(g.arrival_bps), class: (g) => costly(g.arrival_bps), sort: (g) => Number(g.arrival_bps) },
  { text: (g) => `${g.arrival_bps} ${scales.groups(1)}`, node: (g) => (g.arrival_bps === null ? null : bar(Number(g.arrival_bps), scales.groups, `${bps(g.arrival_bps)} bps`)) },
  ...["delay_bps", "trading_bps", "fees_bps", "effective_spread_bps"].map((name) => ({ text: (g) => bps(g[name]), class: () => "n", sort: (g) => Number(g[name]) })),
  { text: (g) => (g.markouts["60s"].mean === null ? "–" : bps(g.markouts["60s"].mean.toFixed(4))), class: () => "n", sort: (g) => g.markouts["60s"].mean ?? 0 },
], { key: (g) => `${key(g, "first")} ${key(g, "second")}` });

const beliefs = new Table(by("beliefs"), [
  { text: (b) => b.broker, class: () => "symbol", sort: (b) => b.broker },
  { text: (b) => b.symbol ?? "all", sort: (b) => b.symbol ?? "" },
  { text: (b) => b.size ?? "all" },
  { text: (b) => b.hours ?? "all day" },
  { text: (b) => b.orders.toFixed(1), class: () => "n", sort: (b) => b.orders },
  { text: (b) => bps(b.cost_bps.toFixed(4)), class: (b) => costly(b.cost_bps), sort: (b) => b.cost_bps },
  { text: (b) => `${b.low_bps} ${b.high_bps} ${scales.beliefs(1)}`, node: (b) => interval({ mean: b.cost_bps, low: b.low_bps, high: b.high_bps }, scales.beliefs, `between ${b.low_bps.toFixed(2)} and ${b.high_bps.toFixed(2)} bps`) },
  { text: (b) => percent(b.fill_share), class: () => "n" },
  { text: (b) => percent(b.reject_rate), class: (b) => (b.reject_rate > 0.05 ? "n down" : "n") },
  { text: (b) => (b.ack_ms === null ? "–" : `${Math.round(b.ack_ms)} ms`), class: () => "n", sort: (b) => b.ack_ms ?? 0 },
  { text: (b) => clock(b.at), sort: (b) => b.at },
  { text: (b) => (b.drifted ? "has drifted" : ""), class: () => "stale" },
], { key: (b) => `${b.broker} ${b.symbol} ${b.size} ${b.hours}` });

const officer = can("risk", "ops", "admin");
let versions = [];
const differences = (w) => {
  const before = versions.find((v) => v.version < w.version)?.values ?? {};
  return Object.entries(w.values).filter(([name, value]) => before[name] !== undefined && before[name] !== value).map(([name, value]) => `${words(name)} ${before[name]} → ${value}`).join(", ") || (w.version ? "nothing" : "");
};
const tones = { active: "good", proposed: "wait", retired: "off" };
const weights = new Table(by("weights"), [
  { text: (w) => String(w.version), class: () => "n" },
  { text: (w) => w.status, node: (w) => state(tones[w.status], w.status === "active" ? "in force" : w.status) },
  { text: (w) => differences(w), title: (w) => Object.entries(w.values).map(([n, v]) => `${n} ${v}`).join("\n") },
  { text: (w) => w.reason, class: () => "note" },
  { text: (w) => w.proposed_by ?? "" },
  { text: (w) => clock(w.proposed_at) },
  { text: (w) => w.promoted_by ?? "" },
  { text: (w) => clock(w.promoted_at) },
  { text: (w) => w.status, node: (w) => (officer && w.status !== "active" && w.version ? element("button", { class: "small", type: "button", onclick: () => promote(w) }, w.status === "retired" ? "Roll back to it…" : "Promote…") : null) },
], { key: (w) => w.version });

const policies = by("policies") && new Table(by("policies"), [
  { text: (p) => words(p.policy), class: () => "symbol" },
  { text: (p) => (p.estimate ? bps(p.estimate.mean.toFixed(4)) : "–"), class: (p) => costly(p.estimate?.mean), sort: (p) => p.estimate?.mean ?? 0 },
  { text: (p) => JSON.stringify(p.estimate) + scales.policies(1), node: (p) => (p.estimate ? interval(p.estimate, scales.policies, spelled(p.estimate)) : null) },
  { text: (p) => (p.estimate ? String(p.estimate.orders) : "–"), class: () => "n" },
  { text: (p) => (p.estimate ? `${Math.round(p.estimate.effective)} orders` : "–"), class: () => "n" },
], { key: (p) => p.policy });

async function promote(w) {
  const answer = await ask({ title: `Put version ${w.version} in force?`, text: "From the next order on routing decides by it. The version in force now is retired, and can be put in force again.", facts: [["Changes", differences(w)], ["Reason", w.reason], ["Proposed by", w.proposed_by]], yes: "Put it in force", no: "Leave it" });
  if (!answer) return;
  try { await post(`routing/weights/${w.version}/promote`, {}); toast(`Version ${w.version} is in force.`, "good"); } catch (problem) { toast(problem.message, "bad"); }
  load();
}

function period() {
  const until = new Date(), since = new Date(until.getTime() - Number(by("days").value) * 86400000), day = (d) => d.toISOString().slice(0, 10);
  return { from: day(since), to: day(until), ...(by("whole").checked || !account() ? {} : { account: account() }) };
}

function drawCosts(rows) {
  const box = by("waterfall");
  if (!rows.length) { box.replaceChildren(element("span", { class: "dim" }, "No cost to show in this time.")); by("marks").replaceChildren(); return; }
  const parts = ["spread", "impact", "timing", "fees"].map((name) => { const all = sum(rows.map((r) => r.attribution[name])); return [name, Number(all), `${money(plain(all))} USD`]; });
  box.replaceChildren(element("span", { class: "under" }, "Where it came from"), waterfall(parts, `${money(plain(sum(rows.map((r) => r.attribution.total))))} USD`, "Cost by part"));
}
function drawMarks(list) {
  const lines = list.map((c) => [c.broker, HORIZONS.filter((h) => c.markouts[h].mean !== null).map((h) => [h, c.markouts[h].mean])]).filter(([, points]) => points.length > 1);
  by("marks").replaceChildren(element("span", { class: "under" }, "What fills had cost by the mid some time later"), lines.length ? curves(lines, HORIZONS, "Mark-outs by broker") : element("span", { class: "dim" }, "Marks are taken from one second to half an hour after a fill."));
}

async function load() {
  const asked = period(), keys = [...new Set([by("first").value, by("second").value].filter(Boolean))];
  try {
    const [ranked, total, grouped, learned, kept] = await Promise.all([
      get("analytics/brokers", asked), get("analytics/tca", { ...asked, group_by: "broker" }), get("analytics/tca", { ...asked, group_by: keys.join(",") }), get("routing/beliefs"), get("routing/weights"),
    ]);
    const means = ranked.results.map((c) => c.mean_arrival_bps).filter((m) => m.mean !== null), shown = learned.results.filter((b) => by("deep").checked || !b.size);
    scales = {
      cards: scale(means.flatMap((m) => [m.low, m.high]), 6, 174), groups: scale(grouped.results.map((g) => Number(g.arrival_bps ?? 0)), 4, 116),
      beliefs: scale(shown.flatMap((b) => [b.low_bps, b.high_bps]), 6, 174), policies: scales.policies,
    };
    by("first-head").textContent = by("first").value;
    by("second-head").textContent = by("second").value;
    versions = kept.results;
    cards.render(ranked.results);
    groups.render(grouped.results);
    beliefs.render(shown);
    weights.render(kept.results);
    drawCosts(total.results);
    drawMarks(ranked.results);
    const active = kept.results.find((w) => w.status === "active");
    by("in-force").textContent = active.version ? `version ${active.version} is in force: up to ${percent(active.values.explore_share)} of orders explore` : "those of the code are in force: nothing explores";
    for (const [id, rows] of [["cards", ranked.results], ["beliefs", shown], ["weights", kept.results]]) emptyOf(id).hidden = rows.length > 0;
    by("measured").textContent = `as of ${clock(new Date().toISOString())}`;
    settled();
  } catch (problem) { if (problem.status) toast(problem.message, "bad"); }
}

by("csv").addEventListener("click", async () => {
  const asked = new URLSearchParams({ ...period(), group_by: [...new Set([by("first").value, by("second").value].filter(Boolean))].join(",") });
  const answer = await fetch(`/api/v1/analytics/tca?${asked}`, { headers: { Accept: "text/csv" }, credentials: "same-origin" });
  if (!answer.ok) { toast("The costs can't be had as CSV just now.", "bad"); return; }
  const address = URL.createObjectURL(await answer.blob());
  element("a", { href: address, download: `costs-${period().from}-${period().to}.csv` }).click();
  URL.revokeObjectURL(address);
});
for (const [id, chosen, none] of [["first", "symbol", false], ["second", "broker", true]]) {
  by(id).append(...(none ? [element("option", { value: "" }, "nothing else")] : []), ...KEYS.map((k) => element("option", { value: k, selected: k === chosen }, k)));
}
/** Weighing thousands of decisions anew is for looking now and then, not for a screen that stands open. */
async function loadPolicies() {
  try {
    const told = (await get("routing/comparison")).results.filter((p) => p.estimate);
    scales.policies = scale(told.flatMap((p) => [p.estimate.low, p.estimate.high]), 6, 174);
    policies.render(told);
    emptyOf("policies").hidden = told.length > 0;
  } catch (problem) { if (problem.status) toast(problem.message, "bad"); }
}
if (policies) { loadPolicies(); setInterval(() => { if (!document.hidden) loadPolicies(); }, 20 * EVERY_MS); }

for (const id of ["first", "second", "days", "whole", "deep"]) by(id).addEventListener("change", load);
setInterval(() => { if (!document.hidden) load(); }, EVERY_MS);
const live = new Live({ state: showState, snapshot() {}, frame: (m) => { if (m.type === "halt") showHalts(); }, mark() {} });
onAccount((code) => { live.follow(code); load(); });
if (!account()) load();

if (officer) {
  const form = by("propose"), { elements } = form, fault = form.querySelector(".fault");
  form.hidden = false;
  get("routing/weights").then(({ results }) => {
    elements.name.append(...Object.keys(results[0].values).map((n) => element("option", { value: n }, words(n))));
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    fault.hidden = true;
    try {
      const made = await post("routing/weights", { values: { [elements.name.value]: typed(elements.value.value) }, reason: elements.reason.value.trim() });
      toast(`Version ${made.version} is proposed. Another person promotes it.`, "good");
      form.reset();
      load();
    } catch (problem) { fault.textContent = [problem.message, ...problem.errors.map((e) => `${e.field}: ${e.detail}`)].join(" "); fault.hidden = false; }
  });
}
