// Positions with live P&L, and cash.
import { get, toast } from "./api.js";
import { Book } from "./book.js";
import { line } from "./chart.js";
import { clock, decimal, element, isZero, money, placesOf, tone, trimmed } from "./format.js";
import { Live } from "./live.js";
import { instrument, priced, ready } from "./market.js";
import { account, can, onAccount, settled, showHalts, showState } from "./shell.js";
import { Table, eachFrame } from "./table.js";

const flat = document.getElementById("flat"), empty = document.getElementById("empty"), totals = document.getElementById("totals");
const trades = can("trader");
const pnl = (name) => ({ text: (p) => (p[name] === null ? "unavailable" : money(p[name])), class: (p) => "n " + (p[name] === null ? "stale" : tone(p[name])), sort: (p) => Number(p[name] ?? 0) });
const since = (series) => (series.points.length > 1 ? `Seen on this screen since ${clock(new Date(series.points[0][0]).toISOString())}` : "");
const old = (p) => p.stale || book.late();
const cost = (p) => { const what = instrument(p.symbol); return p.average_cost === null ? "" : what && trimmed(p.average_cost).split(".")[1]?.length < placesOf(what.tick_size) ? priced(p.symbol, p.average_cost) : trimmed(p.average_cost); };

const table = new Table(document.getElementById("positions"), [
  { text: (p) => p.symbol, class: () => "symbol", title: (p) => p.symbol, sort: (p) => p.symbol },
  { text: (p) => decimal(p.quantity), class: () => "n", flash: true, sort: (p) => Number(p.quantity) },
  { text: cost, class: () => "n", sort: (p) => Number(p.average_cost ?? 0) },
  { text: (p) => (p.market_price === null ? "unavailable" : priced(p.symbol, p.market_price, { finer: true })), class: (p) => `n ${old(p) ? "stale" : book.moves.get(p.symbol) ?? ""}`, sort: (p) => Number(p.market_price ?? 0) },
  { text: (p) => `${p.market_price} ${book.seen(p.symbol).points.length}`, node: (p) => line(book.seen(p.symbol), { label: since(book.seen(p.symbol)) || "No price seen yet" }) },
  { text: (p) => (p.market_value === null ? "unavailable" : money(p.market_value)), class: () => "n", sort: (p) => Number(p.market_value ?? 0) },
  pnl("unrealized_pnl"), pnl("day_pnl"), pnl("realized_pnl"),
  { text: (p) => money(p.fees), class: () => "n", sort: (p) => Number(p.fees) },
  { text: (p) => p.currency, class: () => "dim", sort: (p) => p.currency },
  { text: (p) => (p.price_at ? clock(p.price_at) + (old(p) ? " stale" : "") : "no quote"), class: (p) => (old(p) ? "stale" : "dim"), sort: (p) => p.price_at ?? "" },
  { text: (p) => `${trades} ${p.quantity}`, class: () => "last", node: (p) => (trades && !isZero(p.quantity) ? element("a", { class: "button small", href: "/?" + new URLSearchParams({ symbol: p.symbol, side: p.quantity.startsWith("-") ? "buy" : "sell", quantity: p.quantity.replace("-", "") }), title: "Open a ticket that closes it" }, "Close…") : null) },
], { key: (p) => p.symbol });

const cash = new Table(document.getElementById("cash"), [
  { text: (b) => b.currency },
  ...["ledger", "settled", "unsettled_in", "unsettled_out", "held", "available"].map((name) => ({ text: (b) => money(b[name]), class: (b) => "n " + (b[name]?.startsWith("-") ? "down" : "") })),
], { key: (b) => b.currency });

const render = eachFrame(() => {
  const rows = [...book.positions.values()].filter((p) => flat.checked || !isZero(p.quantity)).sort((a, b) => (a.symbol < b.symbol ? -1 : 1));
  table.render(rows);
  empty.hidden = rows.length > 0;
  empty.textContent = !account() ? "No account is granted to you. Ask an administrator." : book.loaded ? "Flat: no open position." : "Waiting for the desk…";
  document.getElementById("late").hidden = !book.late();
  totals.replaceChildren(...book.totals().map(tile), ...(whole ? [wholeTile()] : []), ...(performed ? [performanceTile()] : []));
  if (book.loaded) settled();
});

let whole = null, performed = null;
const figure = (label, value, shown = money(value)) => element("div", {}, element("span", { class: "dim" }, label), element("b", { class: tone(value) }, shown));
const percent = (part) => (part === null ? null : (Number(part) * 100).toFixed(2));
const rate = (label, part) => figure(label, percent(part), part === null ? "unavailable" : `${decimal(percent(part))} %`);

/** All currencies in the account's own, as the desk last marked it; what is missing or old is counted, never taken as zero. */
function wholeTile() {
  const left = [[whole.unpriced, "without a price"], [whole.unrated.length, "currencies without a rate"], [whole.stale, "with an old price"]].filter(([n]) => n).map(([n, what]) => `${n} ${what}`);
  return element("div", { class: "tile", id: "whole" },
    figure(`All in ${whole.currency}`, whole.value), figure("Unrealised", whole.unrealized), figure("Day P&L", whole.day),
    element("span", { class: "stale under" }, left.join(", ")));
}

/** Returns since the account was opened, and the curve of its growth with flows left out. */
function performanceTile() {
  const points = performed.curve.map((p) => [Date.parse(p.at), Number(p.index)]), fall = performed.max_drawdown;
  return element("div", { class: "tile", id: "performance" },
    rate("Return, time-weighted", performed.time_weighted),
    line({ points, every: Infinity }, { width: 180, height: 40, label: `Growth since ${performed.from}, flows left out` }),
    rate("Money-weighted", performed.money_weighted),
    rate("Deepest fall", fall ? `-${fall.depth}` : "0"),
    element("span", { class: "stale under" }, performed.missing_days ? `${performed.missing_days} days whose worth is not known` : ""));
}

async function loadPerformance() {
  const code = account();
  if (!code) return;
  try {
    const [value, told] = await Promise.all([get(`accounts/${encodeURIComponent(code)}/valuation`), get(`accounts/${encodeURIComponent(code)}/performance`)]);
    if (code !== account()) return;
    whole = value;
    performed = told;
    render();
  } catch (problem) { toast(problem.message, "bad"); }
}

function tile({ currency, day, unrealized, realized, missing }) {
  const series = book.seen(`day ${currency}`);
  return element("div", { class: "tile" },
    figure(`Day P&L ${currency}`, day), line(series, { width: 180, height: 40, zero: true, label: `Day P&L ${currency}. ${since(series)}` }),
    figure("Unrealised", unrealized), figure("Realised", realized),
    element("span", { class: "stale under" }, missing ? `${missing} without a price: not in these sums` : ""));
}

const showCash = (() => {
  let timer = null;
  return () => { clearTimeout(timer); timer = setTimeout(load, 300); };
})();
async function load() {
  const code = account();
  if (!code) return;
  try { const { results } = await get(`accounts/${encodeURIComponent(code)}/balances`); if (code === account()) cash.render(results); } catch (problem) { toast(problem.message, "bad"); }
}

const book = new Book(render);
const live = new Live({
  state: showState,
  snapshot(message) { book.snapshot(message.positions); showCash(); },
  frame(message) {
    if (message.type === "position") book.take(message.data);
    if (message.type === "halt") showHalts();
    showCash();
  },
  mark(rows, sums) { if (sums) whole = sums; book.mark(rows); },
});

onAccount((code) => { book.open(code); cash.render([]); whole = performed = null; live.follow(code); loadPerformance(); render(); });
setInterval(loadPerformance, 300000);
if (!account()) showState("offline", "no account");
ready.then(render).catch(() => {});
flat.addEventListener("change", render);
render();
