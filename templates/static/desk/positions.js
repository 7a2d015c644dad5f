// Positions with live P&L, and cash.
import { get, toast } from "./api.js";
import { clock, decimal, element, isZero, money, sum, tone, trimmed } from "./format.js";
import { Live } from "./live.js";
import { account, onAccount, showHalts, showState } from "./shell.js";
import { Table, eachFrame } from "./table.js";

const positions = new Map();
const flat = document.getElementById("flat"), empty = document.getElementById("empty"), totals = document.getElementById("totals");
let loaded = false;
const pnl = (name) => ({ text: (p) => (p[name] === null ? "unavailable" : money(p[name])), class: (p) => "n " + tone(p[name]) });

const table = new Table(document.getElementById("positions"), [
  { text: (p) => p.symbol },
  { text: (p) => decimal(p.quantity), class: (p) => "n " + tone(p.quantity), flash: true },
  { text: (p) => (p.average_cost === null ? "" : trimmed(p.average_cost)), class: () => "n" },
  { text: (p) => (p.market_price === null ? "unavailable" : decimal(p.market_price)), class: (p) => "n" + (p.stale ? " stale" : ""), flash: true },
  { text: (p) => (p.market_value === null ? "unavailable" : money(p.market_value)), class: () => "n" },
  pnl("unrealized_pnl"), pnl("day_pnl"), pnl("realized_pnl"),
  { text: (p) => money(p.fees), class: () => "n" },
  { text: (p) => p.currency },
  { text: (p) => (p.price_at ? clock(p.price_at) + (p.stale ? " stale" : "") : "no quote"), class: (p) => (p.stale ? "stale" : "") },
], { key: (p) => p.symbol });

const cash = new Table(document.getElementById("cash"), [
  { text: (b) => b.currency },
  ...["ledger", "settled", "unsettled_in", "unsettled_out", "held", "available"].map((name) => ({ text: (b) => money(b[name]), class: (b) => "n " + (b[name]?.startsWith("-") ? "down" : "") })),
], { key: (b) => b.currency });

const render = eachFrame(() => {
  const rows = [...positions.values()].filter((p) => flat.checked || !isZero(p.quantity)).sort((a, b) => (a.symbol < b.symbol ? -1 : 1));
  table.render(rows);
  empty.hidden = rows.length > 0;
  empty.textContent = !account() ? "No account is granted to you." : loaded ? "Flat: no open position." : "Waiting for the desk…";
  totals.replaceChildren(...tiles());
});

function tiles() {
  const currencies = [...new Set([...positions.values()].map((p) => p.currency))].sort();
  return currencies.flatMap((currency) => {
    const rows = [...positions.values()].filter((p) => p.currency === currency);
    return [["Unrealised", "unrealized_pnl"], ["Day P&L", "day_pnl"], ["Realised", "realized_pnl"]].map(([label, name]) => {
      const known = rows.filter((p) => p[name] !== null);
      const total = sum(known.map((p) => p[name]));
      const missing = rows.length - known.length;
      return element("div", { class: "tile" }, element("span", { class: "dim" }, `${label} ${currency}`), element("b", { class: tone(total) }, money(total)), missing ? element("span", { class: "stale" }, `${missing} unpriced`) : "");
    });
  });
}

const showCash = (() => {
  let timer = null;
  return () => { clearTimeout(timer); timer = setTimeout(load, 300); };
})();
async function load() {
  if (!account()) return;
  try { cash.render((await get(`accounts/${account()}/balances`)).results); } catch (problem) { toast(problem.message, "bad"); }
}

const live = new Live({
  state: showState,
  snapshot(message) { positions.clear(); for (const p of message.positions) positions.set(p.symbol, p); loaded = true; render(); showCash(); },
  frame(message) {
    if (message.type === "position" && message.data.symbol) { positions.set(message.data.symbol, message.data); render(); }
    if (message.type === "halt") showHalts();
    showCash();
  },
  mark(rows) { for (const row of rows) { const known = positions.get(row.symbol); if (known) positions.set(row.symbol, { ...known, ...row, market_value: valued(known, row) }); } render(); },
});
const valued = (known, row) => (row.market_price === null || row.unrealized_pnl === null ? null : sum([known.cost, row.unrealized_pnl]));

onAccount((code) => { positions.clear(); cash.render([]); loaded = false; live.follow(code); render(); });
if (!account()) showState("offline", "no account");
flat.addEventListener("change", render);
render();
