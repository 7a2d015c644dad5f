// The live blotter with its ticket.
import { get, post, toast } from "./api.js";
import { Book } from "./book.js";
import { showDetails } from "./details.js";
import { ask } from "./dialog.js";
import { markOf, typeNode, typeText } from "./exits.js";
import { clock, decimal, element, isZero, money, tone, typed, words } from "./format.js";
import { keys, typing } from "./keys.js";
import { Live } from "./live.js";
import { priced, ready } from "./market.js";
import { asksFirst, openTicket, sizeOf, stopAsking } from "./ticket.js";
import { account, can, onAccount, showHalts, showState } from "./shell.js";
import { Table, eachFrame } from "./table.js";
import { canPause, canResume, progressNode, progressText } from "./working.js";

const CLOSED = new Set(["filled", "canceled", "rejected", "expired", "denied", "calculated"]);
const REPLACEABLE = new Set(["new", "partially_filled"]);
const TONES = {
  filled: "good", rejected: "bad", denied: "bad", canceled: "off", expired: "off", calculated: "off", done_for_day: "off",
  new: "live", partially_filled: "live", stopped: "live",
};
const SNAPSHOT_ORDERS = 200, PAGE = 500, OPEN_PAGES_MAX = 20;
const orders = new Map();
const $ = (id) => document.getElementById(id);
const filter = $("filter"), openOnly = $("open-only"), empty = $("empty"), count = $("count"), older = $("older");
let selected = null, loaded = false, oldest = null;

const trades = can("trader");
const isOpen = (o) => !CLOSED.has(o.status) && !(o.status === "done_for_day" && o.time_in_force === "day");
const canReplace = (o) => trades && REPLACEABLE.has(o.status) && (o.limit_price !== null || o.stop_price !== null || o.algo);
const canCancel = (o) => trades && isOpen(o) && o.status !== "pending_cancel";
const said = (o) => `${words(o.side)} ${decimal(o.quantity)} ${o.symbol}`;
const trail = (o) => (o.trail_amount ? decimal(o.trail_amount) : o.trail_percent && `${decimal(o.trail_percent)} %`);
const terms = (o) => [
  trail(o) && `trails by ${trail(o)}`, o.good_after && `after ${clock(o.good_after)}`, o.stop_price && `${o.order_type.endsWith("touched") ? "touched" : "stop"} ${priced(o.symbol, o.stop_price)}`, o.limit_price && (o.stop_price ? "limit " : "") + priced(o.symbol, o.limit_price),
].filter(Boolean).join(", ");
const statusNode = (o) => element("span", { class: "status", "data-tone": o.unknown ? "wait" : TONES[o.status] ?? "wait",
  title: o.unknown ? "A broker may or may not have it, and is being asked." : o.status === "held" && o.parent ? "Waits for fills of the order before it." : null }, o.unknown ? words(o.status) + " ?" : words(o.status));

const table = new Table($("orders"), [
  { text: (o) => clock(o.created_at), title: (o) => o.created_at, sort: (o) => o.id },
  { text: (o) => o.symbol, title: (o) => o.symbol, class: () => "symbol", sort: (o) => o.symbol },
  { text: (o) => words(o.side), class: (o) => (o.side === "buy" ? "buy" : "sell"), sort: (o) => o.side },
  { text: (o) => decimal(o.quantity), class: () => "n", sort: (o) => Number(o.quantity) },
  { text: (o) => (o.algo ? progressText(o) : isZero(o.filled_quantity) ? "" : decimal(o.filled_quantity)), node: (o) => (o.algo ? progressNode(o) : isZero(o.filled_quantity) ? "" : decimal(o.filled_quantity)), class: (o) => (isZero(o.leaves_quantity) ? "n" : "n part"), flash: true, sort: (o) => Number(o.filled_quantity) },
  { text: typeText, node: typeNode, title: (o) => [`${words(o.order_type)}, ${o.time_in_force}`, o.group && `${words(o.group.role)} of ${o.group.kind} ${o.group.id}`].filter(Boolean).join("\n"), sort: (o) => o.order_type },
  { text: terms, class: () => "n", title: terms, sort: (o) => Number(o.limit_price ?? o.stop_price ?? 0) },
  { text: (o) => o.time_in_force, class: () => "dim", sort: (o) => o.time_in_force },
  { text: (o) => o.status + o.unknown, node: statusNode, flash: true, sort: (o) => o.status },
  { text: (o) => priced(o.symbol, o.average_price), class: () => "n", sort: (o) => Number(o.average_price ?? 0) },
  { text: (o) => words(o.reason?.code) || (isOpen(o) && o.algo?.why) || o.note, class: () => "note", title: (o) => [o.reason?.detail, o.algo?.why, o.note].filter(Boolean).join("\n"), sort: (o) => o.reason?.code ?? o.note },
  { class: () => "last", text: (o) => `${canReplace(o)} ${canCancel(o)} ${canPause(o)} ${canResume(o)}`, node: (o) => actions(o) },
], { key: (o) => o.id, onRow: (id) => select(id) });

function actions(order) {
  const { id } = order, box = element("span");
  if (trades && (canPause(order) || canResume(order))) {
    const verb = canPause(order) ? "Pause" : "Resume";
    box.append(element("button", { class: "small", type: "button", "aria-label": `${verb} ${said(order)}`, onclick: () => turn(orders.get(id)) }, verb), " ");
  } else if (canReplace(order)) box.append(element("button", { class: "small", type: "button", "aria-label": `Replace ${said(order)}`, onclick: () => replace(orders.get(id)) }, "Replace"), " ");
  if (canCancel(order)) box.append(element("button", { class: "small danger", type: "button", "aria-label": `Cancel ${said(order)}`, onclick: (e) => cancel(id, e.target) }, "Cancel"));
  return box;
}

const haystack = (o) => `${o.symbol} ${o.side} ${o.status} ${words(o.status)} ${o.order_type} ${o.client_order_id} ${o.group ? `${o.group.kind} ${o.group.id} ${markOf(o)}` : ""} ${o.strategy ?? ""} ${o.note} ${o.reason?.code ?? ""}`.toLowerCase();
const render = eachFrame(() => {
  const wanted = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const all = [...orders.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  const rows = openOnly.checked || wanted.length ? all.filter((o) => (!openOnly.checked || isOpen(o)) && wanted.every((w) => haystack(o).includes(w))) : all;
  table.selected = selected;
  table.render(rows);
  const open = all.reduce((n, o) => n + isOpen(o), 0);
  count.textContent = loaded ? `${open} open · ${rows.length === all.length ? all.length : `${rows.length} of ${all.length}`} shown` : "";
  empty.hidden = rows.length > 0;
  empty.textContent = !account() ? "No account is granted to you. Ask an administrator." : !loaded ? "Waiting for the desk…"
    : orders.size ? "No order fits the filter." : trades ? "No orders yet. Press n to write the first." : "No orders yet.";
  $("cancel-all").hidden = !trades || !open;
  older.hidden = !oldest;
});

// Below the ticket: what the account holds, moving.
const book = new Book(eachFrame(() => {
  const held = [...book.positions.values()].filter((p) => !isZero(p.quantity)).sort((a, b) => (a.symbol < b.symbol ? -1 : 1));
  $("book").hidden = !held.length;
  holdings.render(held);
  $("book-totals").replaceChildren(...book.totals().map((t) => element("span", { class: tone(t.day), title: t.missing ? `${t.missing} without a price` : null }, `${money(t.day)} ${t.currency}${t.missing ? " ?" : ""}`)));
  $("book-late").hidden = !book.late();
}));
const holdings = new Table($("holdings"), [
  { text: (p) => p.symbol, class: () => "symbol", title: (p) => p.symbol },
  { text: (p) => decimal(p.quantity), class: () => "n" },
  { text: (p) => (p.market_price === null ? "no price" : priced(p.symbol, p.market_price, { finer: true })), class: (p) => `n ${p.stale || book.late() ? "stale" : ""} ${book.moves.get(p.symbol) ?? ""}` },
  { text: (p) => (p.unrealized_pnl === null ? "?" : money(p.unrealized_pnl)), class: (p) => "n " + tone(p.unrealized_pnl) },
], { key: (p) => p.symbol, onRow: (symbol) => trades && openTicket({ symbol, ...closing(book.positions.get(symbol)) }) });
const closing = (p) => ({ side: p.quantity.startsWith("-") ? "buy" : "sell", quantity: p.quantity.replace("-", "") });

const refreshDetails = (() => {
  let timer = null;
  return (id) => { if (id === selected) { clearTimeout(timer); timer = setTimeout(() => showDetails(orders.get(id)), 250); } };
})();

const put = (order) => { const known = orders.get(order.id); if (!known || known.version <= order.version) orders.set(order.id, order); };
const live = new Live({
  state: showState,
  snapshot(message) {
    orders.clear();
    for (const order of message.orders) orders.set(order.id, order);
    loaded = true;
    oldest = message.orders.length >= SNAPSHOT_ORDERS ? message.orders.map((o) => o.id).sort().reverse()[SNAPSHOT_ORDERS - 1] : null;
    book.snapshot(message.positions);
    if (message.orders.filter(isOpen).length >= SNAPSHOT_ORDERS) allOpen(message.account);
    render();
  },
  frame(message) {
    if (message.type === "order") { put(message.data); refreshDetails(message.data.id); }
    else if (message.type === "execution") refreshDetails(message.data.order);
    else if (message.type === "position") book.take(message.data);
    else if (message.type === "halt") showHalts();
    render();
  },
  mark: (rows) => book.mark(rows),
});

// The first picture holds the newest orders and some of the open ones; the rest comes by pages.
async function page(parameters) {
  const code = account();
  const { results, next } = await get("orders", { account: code, limit: PAGE, ...parameters });
  if (code !== account()) return { last: null };
  for (const order of results) put(order);
  render();
  return { last: next && results.at(-1)?.id };
}
async function allOpen(code) {
  let cursor = {};
  try {
    for (let n = 0; n < OPEN_PAGES_MAX && code === account(); n += 1) {
      const { last } = await page({ open: "true", ...cursor });
      if (!last) return;
      cursor = { cursor: last };
    }
  } catch (problem) { toast(`Not all open orders could be read: ${problem.message}`, "bad"); }
}
async function loadOlder() {
  if (!oldest || older.disabled) return;
  older.disabled = true;
  try { oldest = (await page({ cursor: oldest })).last; } catch (problem) { toast(problem.message, "bad"); }
  older.disabled = false;
  render();
}
older.addEventListener("click", loadOlder);

onAccount((code) => {
  orders.clear();
  loaded = false;
  selected = oldest = null;
  showDetails(null);
  book.open(code);
  live.follow(code);
  render();
});
if (!account()) showState("offline", "no account");
ready.then(render).catch((problem) => toast(problem.message, "bad"));
filter.addEventListener("input", render);
openOnly.addEventListener("change", render);

function select(id, { keep = false } = {}) {
  selected = selected === id && !keep ? null : id;
  showDetails(selected ? orders.get(selected) : null);
  render();
}
$("details").addEventListener("click", (e) => { if (e.target.closest("[data-close]") && selected) select(selected); });

const facts = (o) => [
  ["Order", said(o), o.side === "buy" ? "buy" : "sell"], ["Type", `${words(o.order_type)} ${terms(o)} ${o.time_in_force}`.replace(/ +/g, " ")],
  ["Filled", `${decimal(o.filled_quantity)} of ${decimal(o.quantity)}`], ["Would end", decimal(o.leaves_quantity)], ["Account", o.account],
];
async function cancel(id, button) {
  const order = orders.get(id);
  if (!order || !canCancel(order)) return;
  if (asksFirst()) {
    const answer = await ask({ title: "Cancel this order?", facts: facts(order), yes: "Cancel the order", no: "Leave it", danger: true, once: true });
    if (!answer) return;
    if (answer.again) stopAsking();
  }
  if (button) button.disabled = true;
  try { await post(`orders/${id}/cancel`, {}); toast(`Asked to cancel ${said(order)}.`); } catch (fault) { toast(fault.message, "bad"); if (button) button.disabled = false; }
}

$("cancel-all").addEventListener("click", async () => {
  const open = [...orders.values()].filter(isOpen);
  const symbols = [...new Set(open.map((o) => o.symbol))].sort();
  const answer = await ask({
    title: `Cancel all open orders of ${account()}?`, yes: "Cancel all", no: "Leave them", danger: true, type: account(),
    facts: [["Orders", String(open.length)], ["Buying", String(open.filter((o) => o.side === "buy").length)], ["Selling", String(open.filter((o) => o.side !== "buy").length)],
      ["Symbols", symbols.slice(0, 8).join(", ") + (symbols.length > 8 ? ` and ${symbols.length - 8} more` : "")]],
  });
  if (!answer) return;
  try { toast(`${(await post("orders/cancel", { account: account() })).canceled} orders asked to end.`); } catch (fault) { toast(fault.message, "bad"); }
});

/** Pause a worked order, or go on with it. */
async function turn(order) {
  if (!order || !trades || !(canPause(order) || canResume(order))) return;
  const verb = canPause(order) ? "pause" : "resume";
  try { await post(`orders/${order.id}/${verb}`, {}); toast(`Asked to ${verb} ${said(order)}.`); } catch (fault) { toast(fault.message, "bad"); }
}

function replace(order) {
  if (!order || !canReplace(order)) return;
  const dialog = $("replace"), form = dialog.querySelector("form"), fault = form.querySelector(".fault");
  $("replace-what").textContent = said(order);
  $("replace-now").textContent = `${terms(order)} ${order.time_in_force}, ${decimal(order.filled_quantity)} filled, ${decimal(order.leaves_quantity)} left`;
  for (const name of ["quantity", "limit_price", "stop_price"]) {
    const input = form.elements[name];
    input.value = order[name] ?? "";
    input.closest("label").hidden = name !== "quantity" && order[name] === null;
  }
  const value = (name) => typed(form.elements[name].value);
  const tellSize = () => { $("replace-size").textContent = sizeOf(order.symbol, value("quantity"), value(order.limit_price === null ? "stop_price" : "limit_price")); };
  form.oninput = tellSize;
  tellSize();
  fault.hidden = true;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const changed = { expected_version: order.version };
    for (const name of ["quantity", "limit_price", "stop_price"]) if (order[name] !== null && value(name) !== order[name]) changed[name] = value(name);
    if (Object.keys(changed).length === 1) { dialog.close(); return; }
    try { await post(`orders/${order.id}/replace`, changed); dialog.close(); toast(`Asked to replace ${said(order)}.`); }
    catch (problem) { fault.textContent = [problem.message, ...problem.errors.map((e) => `${e.field}: ${e.detail}`)].join("\n"); fault.hidden = false; }
  };
  form.querySelector('[value="close"]').onclick = () => dialog.close();
  dialog.showModal();
  form.elements[order.limit_price !== null ? "limit_price" : order.stop_price !== null ? "stop_price" : "quantity"].select();
}

const step = (by) => { const id = table.beside(by); if (id) select(id, { keep: true }); };
const chosen = (work) => () => { if (selected) work(orders.get(selected)); };
keys({
  ...(trades ? {
    n: ["New ticket", () => openTicket()],
    b: ["New ticket, buy", () => openTicket({ side: "buy" })],
    s: ["New ticket, sell", () => openTicket({ side: "sell" })],
  } : {}),
  "/": ["Filter", () => { filter.focus(); filter.select(); }],
  o: ["Open orders only", () => { openOnly.checked = !openOnly.checked; render(); }],
  j: ["Next order", () => step(1)],
  k: ["Previous order", () => step(-1)],
  "↓": ["Next order", () => step(1)],
  "↑": ["Previous order", () => step(-1)],
  ...(trades ? { x: ["Cancel the chosen order", chosen((o) => cancel(o.id))], r: ["Replace the chosen order", chosen(replace)], p: ["Pause or resume the chosen order", chosen(turn)], y: ["Repeat the chosen order in the ticket", chosen((o) => openTicket(o))] } : {}),
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.target.closest?.("dialog")) return;
  if (event.target === filter) { filter.value = ""; render(); }
  document.activeElement?.blur();
  if (selected && !typing(event)) select(selected);
});
render();
