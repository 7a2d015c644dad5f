// The live blotter with its ticket.
import { get, post, toast } from "./api.js";
import { clock, decimal, element, isZero, money, words } from "./format.js";
import { Live } from "./live.js";
import { account, can, onAccount, showHalts, showState } from "./shell.js";
import { Table, eachFrame } from "./table.js";
import { openTicket } from "./ticket.js";
import { showDetails } from "./details.js";

const CLOSED = new Set(["filled", "canceled", "rejected", "expired", "denied", "calculated"]);
const TONES = {
  filled: "good", rejected: "bad", denied: "bad", canceled: "off", expired: "off", calculated: "off", done_for_day: "off",
  new: "live", partially_filled: "live", stopped: "live",
};
const SHOWN_MAX = 500;
const orders = new Map();
const filter = document.getElementById("filter"), openOnly = document.getElementById("open-only");
const empty = document.getElementById("empty"), count = document.getElementById("count");
let selected = null, loaded = false;

const trades = can("trader");
const isOpen = (o) => !CLOSED.has(o.status) && !(o.status === "done_for_day" && o.time_in_force === "day");
export const statusNode = (status, unknown) =>
  element("span", { class: "status", "data-tone": unknown ? "wait" : TONES[status] ?? "wait" }, unknown ? words(status) + " ?" : words(status));

const table = new Table(document.getElementById("orders"), [
  { text: (o) => clock(o.created_at) },
  { text: (o) => o.symbol },
  { text: (o) => words(o.side), class: (o) => (o.side === "buy" ? "buy" : "sell") },
  { text: (o) => decimal(o.quantity), class: () => "n" },
  { text: (o) => (isZero(o.filled_quantity) ? "" : decimal(o.filled_quantity)), class: () => "n", flash: true },
  { text: (o) => words(o.order_type) },
  { text: (o) => decimal(o.limit_price), class: () => "n" },
  { text: (o) => decimal(o.stop_price), class: () => "n" },
  { text: (o) => o.time_in_force },
  { text: (o) => o.status + o.unknown, node: (o) => statusNode(o.status, o.unknown), flash: true },
  { text: (o) => decimal(o.average_price), class: () => "n" },
  { text: (o) => (isZero(o.fees) ? "" : money(o.fees)), class: () => "n" },
  { text: (o) => o.reason?.detail || words(o.reason?.code) || o.note, class: () => "note", title: (o) => o.reason?.detail || o.note },
  {
    class: () => "last",
    text: (o) => String(trades && isOpen(o)) + o.status,
    node: (o) => (trades && isOpen(o) ? actions(o) : null),
  },
], { key: (o) => o.id, onRow: (id) => select(id) });

function actions(order) {
  const { id } = order;
  const box = element("span");
  if (["new", "partially_filled"].includes(order.status) && order.order_type !== "market") {
    box.append(element("button", { class: "small", type: "button", onclick: () => replace(orders.get(id)) }, "Replace"), " ");
  }
  if (order.status !== "pending_cancel") {
    box.append(element("button", { class: "small danger", type: "button", onclick: (e) => cancel(id, e.target) }, "Cancel"));
  }
  return box;
}

const render = eachFrame(() => {
  const wanted = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...orders.values()]
    .filter((o) => (!openOnly.checked || isOpen(o)) && wanted.every((w) => haystack(o).includes(w)))
    .sort((a, b) => (a.id < b.id ? 1 : -1));
  table.render(rows.slice(0, SHOWN_MAX));
  for (const [id, made] of table.rows) made.line.setAttribute("aria-selected", String(id === selected));
  const open = [...orders.values()].filter(isOpen).length;
  count.textContent = loaded ? `${open} open · ${rows.length} shown` : "";
  empty.hidden = rows.length > 0;
  empty.textContent = !account() ? "No account is granted to you. Ask an administrator." : !loaded ? "Waiting for the desk…"
    : orders.size ? "No order fits the filter." : trades ? "No orders yet. Press n to write the first." : "No orders yet.";
  document.getElementById("cancel-all").hidden = !trades || !open;
});
const haystack = (o) => `${o.symbol} ${o.side} ${o.status} ${words(o.status)} ${o.order_type} ${o.client_order_id} ${o.strategy ?? ""} ${o.note}`.toLowerCase();

const refreshDetails = (() => {
  let timer = null;
  return (id) => { if (id === selected) { clearTimeout(timer); timer = setTimeout(() => showDetails(orders.get(id)), 250); } };
})();

const live = new Live({
  state: showState,
  snapshot(message) {
    orders.clear();
    for (const order of message.orders) orders.set(order.id, order);
    loaded = true;
    render();
  },
  frame(message) {
    if (message.type === "order") {
      const known = orders.get(message.data.id);
      if (!known || known.version <= message.data.version) orders.set(message.data.id, message.data);
      refreshDetails(message.data.id);
    } else if (message.type === "execution") refreshDetails(message.data.order);
    else if (message.type === "halt") showHalts();
    render();
  },
  mark() {},
});

onAccount((code) => { orders.clear(); loaded = false; selected = null; showDetails(null); live.follow(code); render(); });
if (!account()) showState("offline", "no account");
filter.addEventListener("input", render);
openOnly.addEventListener("change", render);

function select(id) {
  selected = selected === id ? null : id;
  showDetails(selected ? orders.get(selected) : null);
  render();
}

async function cancel(id, button) {
  button.disabled = true;
  try { await post(`orders/${id}/cancel`, {}); } catch (fault) { toast(fault.message, "bad"); button.disabled = false; }
}

function confirmed(text) {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("p").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

document.getElementById("cancel-all").addEventListener("click", async () => {
  if (!(await confirmed(`Cancel all open orders of ${account()}?`))) return;
  try { toast(`${(await post("orders/cancel", { account: account() })).canceled} orders asked to end.`); } catch (fault) { toast(fault.message, "bad"); }
});

function replace(order) {
  const dialog = document.getElementById("replace"), form = dialog.querySelector("form"), fault = form.querySelector(".fault");
  document.getElementById("replace-what").textContent = `${words(order.side)} ${order.symbol}`;
  for (const name of ["quantity", "limit_price", "stop_price"]) {
    const input = form.elements[name];
    input.value = order[name] ?? "";
    input.closest("label").hidden = name !== "quantity" && order[name] === null;
  }
  fault.hidden = true;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const terms = { expected_version: order.version };
    for (const name of ["quantity", "limit_price", "stop_price"]) {
      const value = form.elements[name].value.trim();
      if (order[name] !== null && value !== order[name]) terms[name] = value;
    }
    if (Object.keys(terms).length === 1) { dialog.close(); return; }
    try { await post(`orders/${order.id}/replace`, terms); dialog.close(); }
    catch (problem) { fault.textContent = [problem.message, ...problem.errors.map((e) => `${e.field}: ${e.detail}`)].join("\n"); fault.hidden = false; }
  };
  form.querySelector('[value="close"]').onclick = () => dialog.close();
  dialog.showModal();
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "Escape" && !event.target.closest?.("dialog")) {
    if (event.target === filter) { filter.value = ""; render(); }
    document.activeElement?.blur();
    if (selected && !typing) select(selected);
  } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    if (event.key === "/") { event.preventDefault(); filter.focus(); filter.select(); }
    else if (event.key === "n" && trades) { event.preventDefault(); openTicket(); }
  }
});
render();
