// The order ticket. A ticket keeps its id until it is placed, so that sending it again can't place it twice.
import { get, post, toast } from "./api.js";
import { clock, decimal, element, money, words } from "./format.js";
import { account, can } from "./shell.js";

const form = document.getElementById("ticket"), fault = document.getElementById("ticket-fault"), out = document.getElementById("preview-out");
const send = document.getElementById("send"), preview = document.getElementById("preview"), quote = document.getElementById("quote");
const NEEDS = { market: [], limit: ["limit"], stop: ["stop"], stop_limit: ["limit", "stop"] };
const instruments = new Map();
let id = fresh();

function fresh() { return "web-" + Date.now().toString(36) + "-" + crypto.getRandomValues(new Uint32Array(2)).reduce((t, n) => t + n.toString(36), ""); }
export function openTicket() { form.elements.symbol.focus(); form.elements.symbol.select(); }

function fit() {
  const wanted = NEEDS[form.elements.order_type.value];
  for (const label of form.querySelectorAll("[data-needs]")) label.hidden = !wanted.includes(label.dataset.needs);
  for (const label of form.querySelectorAll("[data-size]")) label.hidden = label.dataset.size !== form.elements.size_kind.value;
  out.replaceChildren();
  id = fresh();
}

function ticket() {
  const read = (name) => form.elements[name].value.trim();
  const wanted = NEEDS[read("order_type")];
  const body = {
    client_order_id: id, account: account(), symbol: read("symbol").toUpperCase(), side: form.elements.side.value,
    order_type: read("order_type"), time_in_force: read("time_in_force"),
  };
  const kind = read("size_kind");
  if (kind === "quantity") body.quantity = read("quantity");
  else body.size_by = { [kind]: read("size_by." + kind), ...(kind === "risk_fraction" ? { stop_price: read("size_by.stop_price") } : {}) };
  if (wanted.includes("limit")) body.limit_price = read("limit_price");
  if (wanted.includes("stop")) body.stop_price = read("stop_price");
  if (read("broker")) body.broker = read("broker");
  if (read("note")) body.note = read("note");
  return body;
}

function blame(problem) {
  for (const input of form.elements) input.removeAttribute?.("aria-invalid");
  fault.hidden = !problem;
  if (!problem) return;
  const lines = problem.errors.map((e) => `${words(e.field)}: ${e.detail}`);
  fault.textContent = lines.length ? lines.join("\n") : problem.message;
  for (const error of problem.errors) form.elements[error.field]?.setAttribute?.("aria-invalid", "true");
  form.querySelector('[aria-invalid="true"]')?.focus();
}

async function busy(work) {
  send.disabled = preview.disabled = true;
  try { blame(null); await work(); } catch (problem) { if (!problem.errors) throw problem; blame(problem); } finally { send.disabled = preview.disabled = false; }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busy(async () => {
    const order = await post("orders", ticket());
    const what = `${words(order.side)} ${decimal(order.quantity)} ${order.symbol}`;
    if (order.status === "denied") { toast(`Denied: ${order.reason.detail || words(order.reason.code)}`, "bad"); fault.textContent = `Denied: ${order.reason.detail || words(order.reason.code)}`; fault.hidden = false; }
    else { toast(`Sent: ${what}`, "good"); out.replaceChildren(); }
    id = fresh();
  });
});

preview.addEventListener("click", () => busy(async () => {
  const { client_order_id: _, ...body } = ticket();
  show(await post("orders/preview", body));
}));

function show(answer) {
  const checks = element("ul", { class: "checks" }, ...answer.checks.map((c) =>
    element("li", { title: JSON.stringify(c.numbers) }, element("span", { class: c.passed ? "up" : "down" }, c.passed ? "✓ passes" : "✗ fails"), words(c.check))));
  const rows = answer.routing.candidates.map((c) => element("tr", {},
    element("td", {}, element(c.weight === "1" ? "b" : "span", {}, c.broker)), element("td", { class: "n" }, c.cost_bps === null ? "" : decimal(c.cost_bps, 2)),
    element("td", { class: "n" }, c.weight === "1" ? decimal(c.quantity) : ""), element("td", {}, c.eligible ? "" : c.reasons.map(words).join(", "))));
  out.replaceChildren(
    element("p", { class: answer.approved ? "up" : "fault" }, answer.approved ? `Would be sent: ${decimal(answer.quantity)}.` : `Would be denied: ${answer.reason?.detail || words(answer.reason?.code)}`),
    element("table", { class: "mini" }, element("thead", {}, element("tr", {}, ...["Broker", "Cost bps", "Quantity", "Why not"].map((t, i) => element("th", i === 1 || i === 2 ? { class: "n" } : {}, t)))), element("tbody", {}, ...rows)),
    answer.cash_after ? element("p", { class: "dim" }, `Fees ${money(answer.fees)}, cash after ${money(answer.cash_after.amount)} ${answer.cash_after.currency}`) : "",
    answer.lots.length ? element("p", { class: "dim" }, `Closes ${answer.lots.map((l) => `${decimal(l.quantity)} @ ${decimal(l.price)}`).join(", ")}`) : "",
    answer.holds_after ? element("p", { class: "dim" }, `Holds ${money(answer.holds_after.amount)} ${answer.holds_after.currency}`) : "",
    element("details", {}, element("summary", {}, `${answer.checks.filter((c) => c.passed).length} of ${answer.checks.length} checks pass`), checks),
  );
  if (answer.checks.some((c) => !c.passed)) out.querySelector("details").open = true;
}

async function showQuote() {
  const symbol = form.elements.symbol.value.trim().toUpperCase();
  if (!instruments.has(symbol)) { quote.textContent = symbol ? "unknown symbol" : "\u00a0"; return; }
  try {
    const [q] = (await get("quotes", { symbol })).results;
    if (form.elements.symbol.value.trim().toUpperCase() !== symbol) return;
    const { currency, lot_size: lot, tick_size: tick } = instruments.get(symbol);
    quote.replaceChildren(...(q ? [element("b", { class: "sell" }, decimal(q.bid)), " / ", element("b", { class: "buy" }, decimal(q.ask)), ` ${currency} · ${clock(q.at)}`] : ["no quote"]));
    quote.title = `lot ${decimal(lot)}, tick ${decimal(tick)}`;
  } catch { quote.textContent = "quote unavailable"; }
}

if (can("trader") && account()) {
  form.hidden = false;
  fit();
  form.addEventListener("input", (event) => { if (event.target.name !== "note") { id = fresh(); out.replaceChildren(); } });
  form.elements.order_type.addEventListener("change", fit);
  form.elements.size_kind.addEventListener("change", fit);
  form.elements.symbol.addEventListener("input", showQuote);
  setInterval(() => { if (!document.hidden && form.elements.symbol.value) showQuote(); }, 2000);
  get("instruments").then(({ results }) => {
    for (const i of results) if (i.active) instruments.set(i.symbol, i);
    document.getElementById("symbols").append(...[...instruments.keys()].map((s) => element("option", { value: s })));
    showQuote();
  }).catch((problem) => toast(problem.message, "bad"));
  get("brokers").then(({ results }) => form.elements.broker.append(...results.filter((b) => b.enabled).map((b) => element("option", {}, b.code)))).catch(() => {});
}
