// What needs a person, how the brokers are, and cash to be moved.
import { get, post, toast } from "./api.js";
import { ask } from "./dialog.js";
import { clock, decimal, element, money, typed, words } from "./format.js";
import { Live } from "./live.js";
import { account, can, desk, onAccount, settled, showHalts, showState } from "./shell.js";
import { Table } from "./table.js";

const EVERY_MS = 5000;
const form = document.getElementById("transfer");
const emptyOf = (id) => document.getElementById(id).parentElement.querySelector(".empty");
const age = (s) => (s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`);
const state = (tone, text) => element("span", { class: "status", "data-tone": tone }, text);

const exceptions = new Table(document.getElementById("exceptions"), [
  { text: (e) => clock(e.since), sort: (e) => e.since },
  { text: (e) => age(e.age_seconds), class: () => "n", sort: (e) => e.age_seconds },
  { text: (e) => words(e.kind), node: (e) => state("wait", words(e.kind)), sort: (e) => e.kind },
  { text: (e) => e.broker ?? "", sort: (e) => e.broker ?? "" },
  { text: (e) => e.account ?? "", sort: (e) => e.account ?? "" },
  { text: (e) => e.detail, title: (e) => `${e.detail}\n${e.object}` },
], { key: (e) => e.kind + e.object });

const session = (b) => (!b.enabled ? ["off", "switched off"] : b.connected ? ["good", "connected"] : ["bad", "not connected"]);
const sending = (b) => (b.open_until && Date.parse(b.open_until) > Date.now() ? ["bad", `paused until ${clock(b.open_until)}`] : ["good", "open"]);
const brokers = new Table(document.getElementById("brokers"), [
  { text: (b) => b.code, class: () => "symbol", sort: (b) => b.code },
  { text: (b) => b.name, sort: (b) => b.name },
  { text: (b) => b.adapter, class: () => "dim", sort: (b) => b.adapter },
  { text: (b) => session(b).join(), node: (b) => state(...session(b)) },
  { text: (b) => sending(b).join(), node: (b) => state(...sending(b)) },
  { text: (b) => String(b.failures_in_row), class: (b) => (b.failures_in_row ? "n down" : "n"), sort: (b) => b.failures_in_row },
  { text: (b) => (b.ack_ms === null ? "not measured" : `${Math.round(b.ack_ms)} ms`), class: () => "n", sort: (b) => b.ack_ms ?? 0 },
], { key: (b) => b.code });

const side = (value) => (value === null ? "none" : decimal(value));
const breaks = new Table(document.getElementById("breaks"), [
  { text: (b) => clock(b.opened_at), sort: (b) => b.opened_at },
  { text: (b) => age(b.age_seconds), class: () => "n", sort: (b) => b.age_seconds },
  { text: (b) => words(b.kind), sort: (b) => b.kind },
  { text: (b) => b.broker, sort: (b) => b.broker },
  { text: (b) => b.account ?? "", sort: (b) => b.account ?? "" },
  { text: (b) => b.subject, class: () => "symbol", title: (b) => b.id, sort: (b) => b.subject },
  { text: (b) => side(b.ours), class: () => "n" },
  { text: (b) => side(b.theirs), class: () => "n" },
  { text: (b) => words(b.cause), sort: (b) => b.cause },
  { text: (b) => (b.proposal ? words(b.proposal.action) : "wait") },
  { text: (b) => String(b.runs), class: () => "n", sort: (b) => b.runs },
  { text: (b) => b.status, node: (b) => state(b.status === "open" ? "bad" : "wait", b.status), sort: (b) => b.status },
], { key: (b) => b.id });
const told = (r) => `${r.broker} ${r.status === "done" ? clock(r.ended_at) : `${clock(r.ended_at)} failed: ${words(r.failure.code)}`}`;
const newest = (runs) => [...new Map(runs.map((r) => [r.broker, r]).reverse()).values()].sort((a, b) => a.broker.localeCompare(b.broker));

const cash = new Table(document.getElementById("cash"), [
  { text: (b) => b.currency },
  ...["ledger", "settled", "unsettled_in", "unsettled_out", "held", "available"].map((name) => ({ text: (b) => money(b[name]), class: (b) => "n " + (b[name]?.startsWith("-") ? "down" : "") })),
], { key: (b) => b.currency });

async function load() {
  const code = account();
  try {
    const [wrong, differing, runs, all, held] = await Promise.all([get("exceptions"), get("breaks?open=true"), get("reconciliations?limit=50"), get("brokers"), code ? get(`accounts/${encodeURIComponent(code)}/balances`) : { results: [] }]);
    exceptions.render(wrong.results);
    breaks.render(differing.results);
    document.getElementById("breaks-runs").textContent = newest(runs.results).map(told).join(" · ");
    brokers.render(all.results);
    if (code === account()) cash.render(held.results);
    document.getElementById("exceptions-count").textContent = wrong.results.length ? String(wrong.results.length) : "";
    emptyOf("exceptions").hidden = wrong.results.length > 0;
    emptyOf("breaks").hidden = differing.results.length > 0;
    emptyOf("brokers").hidden = all.results.length > 0;
    settled();
  } catch (problem) { if (problem.status) toast(problem.message, "bad"); }
}
setInterval(() => { if (!document.hidden) load(); }, EVERY_MS);

const live = new Live({ state: showState, snapshot() {}, frame: (m) => { if (m.type === "halt") showHalts(); }, mark() {} });
onAccount((code) => { document.getElementById("cash-account").textContent = code; cash.render([]); live.follow(code); load(); });
if (!account()) load();

if (can("ops") && account()) {
  const { elements } = form, fault = form.querySelector(".fault");
  const fit = () => { form.querySelector("[data-to]").hidden = elements.kind.value !== "journal"; };
  let key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  form.hidden = false;
  elements.to.append(...desk.accounts.map((code) => element("option", {}, code)));
  elements.kind.addEventListener("change", fit);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    fault.hidden = true;
    const code = account(), kind = elements.kind.value;
    const body = { kind, currency: elements.currency.value.trim().toUpperCase(), amount: typed(elements.amount.value), reason: elements.reason.value.trim(), key };
    if (kind === "journal") body.to = elements.to.value;
    const answer = await ask({
      title: `Book this ${kind}?`, yes: "Book it", no: "Back", text: "It is undone only by a booking the other way.",
      facts: [["Amount", `${decimal(body.amount)} ${body.currency}`], ["Account", kind === "journal" ? `${code} to ${body.to}` : code], ["Reason", body.reason]],
    });
    if (!answer) return;
    try {
      await post(`accounts/${encodeURIComponent(code)}/transfers`, body);
      toast(`Booked: ${kind} of ${decimal(body.amount)} ${body.currency}.`, "good");
      key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`; // kept until it is booked: a repeat books once
      form.reset();
      fit();
      load();
    } catch (problem) { fault.textContent = [problem.message, ...problem.errors.map((e) => `${e.field}: ${e.detail}`)].join(" "); fault.hidden = false; }
  });
}
