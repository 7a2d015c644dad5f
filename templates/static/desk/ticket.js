// The order ticket. A ticket keeps its id until it is placed, so that sending it again can't place it twice.
import { get, post, toast } from "./api.js";
import { heldNow } from "./book.js";
import { ask } from "./dialog.js";
import { exitField, exitsOf, fitExits, putExits } from "./exits.js";
import { clock, decimal, element, isZero, money, plain, sum, typed, words } from "./format.js";
import { instrument, priced, ready, symbols } from "./market.js";
import { account, can, onAccount, remember, remembered } from "./shell.js";
import { beginNow, fitWork, putWork, scheduled, workField } from "./working.js";

const $ = (id) => document.getElementById(id);
const form = $("ticket"), fault = $("ticket-fault"), out = $("preview-out"), send = $("send"), preview = $("preview"), quote = $("quote"), always = $("ask-first");
const NEEDS = {
  market: [], limit: ["limit"], stop: ["stop"], stop_limit: ["limit", "stop"], trailing_stop: ["trail"], trailing_stop_limit: ["trail", "limit"],
  market_if_touched: ["stop"], limit_if_touched: ["stop", "limit"],
};
const FIELDS = { limit: "limit_price", stop: "stop_price", trail: "trail" };
const PAUSE_MS = 350, QUOTE_OLD_MS = 15000;
let id = fresh(), last = null, shown = 0, tried = null;

function fresh() { return "web-" + Date.now().toString(36) + "-" + crypto.getRandomValues(new Uint32Array(2)).reduce((t, n) => t + n.toString(36), ""); }
export const asksFirst = () => always.checked;
export const stopAsking = () => { always.checked = false; remember("ask first", "no"); };

/** Put the cursor into the ticket, filled with what is given (an order to repeat, a position to close). */
export function openTicket(given = {}) {
  if (given.quantity) form.elements.size_kind.value = "quantity";
  for (const name of ["symbol", "quantity", "order_type", "time_in_force", "limit_price", "stop_price"]) if (given[name]) form.elements[name].value = given[name];
  if (given.side) form.elements.side.value = given.side;
  fit();
  showQuote();
  soon();
  const next = form.elements[given.symbol ? sizes(read("size_kind"))[0] : "symbol"];
  next.focus();
  next.select();
}

function fit() {
  const wanted = NEEDS[read("order_type")];
  for (const label of form.querySelectorAll("[data-needs]")) label.hidden = !wanted.includes(label.dataset.needs);
  for (const label of form.querySelectorAll("[data-size]")) label.hidden = label.dataset.size !== read("size_kind");
  fitWork(form);
  fitExits(form);
  changed();
}
function changed() { id = fresh(); last = null; out.replaceChildren(); keep(); }

// A ticket half written outlives a log-in that ended, another page, and a reload; its id does not, as nothing was sent under it.
const DRAFT = "ticket";
function keep() {
  const draft = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
  try { sessionStorage.setItem(DRAFT, JSON.stringify(draft)); } catch { /* only a convenience */ }
}
function recall() {
  try {
    for (const [name, value] of Object.entries(JSON.parse(sessionStorage.getItem(DRAFT)) ?? {})) if (form.elements[name]) form.elements[name].value = value;
  } catch { /* nothing to recall */ }
}

const read = (name) => form.elements[name].value.trim();
const symbol = () => read("symbol").toUpperCase();

function ticket() {
  const wanted = NEEDS[read("order_type")];
  const body = {
    client_order_id: id, account: account(), symbol: symbol(), side: form.elements.side.value,
    order_type: read("order_type"), time_in_force: read("time_in_force"),
  };
  const kind = read("size_kind");
  if (kind === "quantity") body.quantity = typed(read("quantity"));
  else body.size_by = Object.fromEntries(sizes(kind).map((name) => [name.replace("size_by.", ""), typed(read(name))]));
  if (wanted.includes("limit")) body.limit_price = typed(read("limit_price"));
  if (wanted.includes("stop")) body.stop_price = typed(read("stop_price"));
  if (wanted.includes("trail")) body[read("trail_kind")] = typed(read("trail"));
  if (read("good_after")) body.good_after = new Date(read("good_after")).toISOString();
  if (read("broker")) body.broker = read("broker");
  if (read("note")) body.note = read("note");
  putWork(form, body);
  putExits(form, body);
  return body;
}
const sizes = (kind) => (kind === "quantity" ? [kind] : [`size_by.${kind}`, ...(kind === "risk_fraction" ? ["size_by.stop_price"] : [])]);
const complete = () => instrument(symbol()) && sizes(read("size_kind")).every(read) && NEEDS[read("order_type")].every((n) => read(FIELDS[n]));

function blame(problem) {
  for (const input of form.elements) input.removeAttribute?.("aria-invalid");
  fault.hidden = !problem;
  if (!problem) return;
  const lines = problem.errors.map((e) => `${words(e.field)}: ${e.detail}`);
  fault.textContent = lines.length ? lines.join("\n") : problem.message;
  for (const error of problem.errors) form.elements[error.field.startsWith("trail_") ? "trail" : exitField(workField(error.field))]?.setAttribute?.("aria-invalid", "true");
  form.querySelector('[aria-invalid="true"]')?.focus();
}

async function busy(work) {
  send.disabled = preview.disabled = true;
  try { blame(null); await work(); } catch (problem) { if (!problem.errors) throw problem; blame(problem); } finally { send.disabled = preview.disabled = false; }
}

/** What an amount comes to, in words; empty where it can't be told. */
export function sizeOf(code, quantity, price) {
  const value = Number(quantity) * Number(price);
  return value > 0 && instrument(code) ? `about ${decimal(value.toFixed(2), 2)} ${instrument(code).currency}` : "";
}

// ---------------------------------------------------------------- sending

form.addEventListener("submit", (event) => {
  event.preventDefault();
  busy(async () => {
    if (tried !== id) beginNow();
    tried = id;
    const body = ticket();
    if (asksFirst()) {
      const answer = await confirmed(body);
      if (!answer) return;
      if (answer.again) stopAsking();
    }
    const order = await post("orders", body);
    const what = `${words(order.side)} ${decimal(order.quantity)} ${order.symbol}`;
    const why = order.reason?.detail || words(order.reason?.code);
    if (order.status === "denied") { toast(`Denied: ${what}. ${why}`, "bad"); fault.textContent = `Denied: ${why}`; fault.hidden = false; }
    else toast(`Sent: ${what}`, "good");
    changed();
  });
});

async function confirmed(body) {
  const { client_order_id: _, ...asked } = body;
  const judged = last ?? (await post("orders/preview", asked)); // a fault of the ticket is told here, before anybody is asked
  show(judged);
  const after = sum([heldNow(body.symbol), (body.side === "buy" ? "" : "-") + judged.quantity]);
  const prices = [body.stop_price && `stop ${priced(body.symbol, body.stop_price)}`, body.limit_price && `limit ${priced(body.symbol, body.limit_price)}`].filter(Boolean).join(", ");
  return ask({
    title: judged.approved ? "Send this order?" : "Risk would deny this order", yes: judged.approved ? "Send" : "Send all the same", no: "Back to the ticket", danger: !judged.approved, once: true,
    text: judged.approved ? "" : judged.reason?.detail || words(judged.reason?.code),
    facts: [
      ["Order", `${words(body.side)} ${decimal(plain(judged.quantity))} ${body.symbol}`, body.side === "buy" ? "buy" : "sell"],
      ["Price", `${prices || "at market"}, ${body.time_in_force}`],
      ["Exits", exitsOf(body, body.limit_price ?? touch(judged))],
      ...amounts(judged),
      ["Broker", body.broker ? `${body.broker}, as directed` : routed(judged)],
      ["Account", body.account],
      ["Position", `${decimal(plain(heldNow(body.symbol)))} now, ${decimal(plain(after))} after`],
    ].filter(([, value]) => value),
  });
}

const touch = (judged) => judged.checks.find((c) => c.check === "order_notional")?.numbers.price;
const routed = (judged) => judged.routing.candidates.filter((c) => !isZero(c.weight)).map((c) => c.broker).join(", ");
function amounts(judged) {
  const notional = judged.checks.find((c) => c.check === "order_notional")?.numbers;
  const rows = [];
  if (notional?.notional) rows.push(["Value", `${money(notional.notional)} ${notional.currency}`]);
  if (judged.fees !== null) rows.push(["Fees", money(judged.fees)]);
  if (judged.cost) rows.push(["Expected cost", `${decimal(judged.cost.bps, 2)} bps`]);
  if (judged.cash_after) rows.push(["Cash after", `${money(judged.cash_after.amount)} ${judged.cash_after.currency}`]);
  if (judged.lots.length) rows.push(["Closes", judged.lots.map((l) => `${decimal(l.quantity)} @ ${decimal(l.price)}`).join(", ")]);
  if (judged.unpaid_sale) rows.push(["Cash account", `${judged.unpaid_sale.detail}${judged.unpaid_sale.wait_until ? ` Wait until ${judged.unpaid_sale.wait_until}.` : ""}`]);
  if (judged.wash_sale) rows.push(["Wash sale", `a loss of ${money(judged.wash_sale.loss)} ${judged.wash_sale.currency} would not count`]);
  if (judged.algo) rows.push(["Worked", scheduled(judged)]);
  if (judged.holds_after && !isZero(judged.holds_after.amount)) rows.push(["Cash held", `${money(judged.holds_after.amount)} ${judged.holds_after.currency}`]);
  return rows;
}

// ---------------------------------------------------------------- preview, as it is typed

const previewed = async () => { const { client_order_id: _, ...body } = ticket(); return post("orders/preview", body); };
preview.addEventListener("click", () => busy(async () => show(await previewed())));

const soon = (() => {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (!complete() || document.hidden) return;
      const asked = (shown += 1), mark = id;
      try {
        const answer = await previewed();
        if (asked === shown && mark === id) show(answer);
      } catch { /* a ticket half written is no fault; Send and Preview tell */ }
    }, PAUSE_MS);
  };
})();

function show(answer) {
  last = answer;
  const dearest = Math.max(...answer.routing.candidates.map((c) => Number(c.cost_bps ?? 0)), 0.0001);
  const rows = answer.routing.candidates.map((c) => element("tr", { title: Object.entries(c.parts ?? {}).map(([k, v]) => `${words(k)} ${decimal(v, 2)}`).join(", ") },
    element("td", {}, isZero(c.weight) ? c.broker : element("b", {}, `▸ ${c.broker}`)), element("td", { class: "n" }, c.cost_bps === null ? "" : decimal(c.cost_bps, 2)),
    element("td", {}, c.eligible ? element("meter", { min: 0, max: dearest, value: Number(c.cost_bps ?? 0), "aria-label": "cost beside the others" }) : c.reasons.map(words).join(", "))));
  const failed = answer.checks.filter((c) => !c.passed);
  out.replaceChildren(
    element("p", { class: answer.approved ? "up" : "fault" }, answer.approved ? `Would be sent: ${decimal(plain(answer.quantity))}.` : `Would be denied: ${answer.reason?.detail || words(answer.reason?.code)}`),
    element("dl", { class: "facts" }, ...amounts(answer).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    rows.length ? element("table", { class: "mini" }, element("thead", {}, element("tr", {}, element("th", {}, "Broker"), element("th", { class: "n" }, "Cost bps"), element("th", {}, "")))
      , element("tbody", {}, ...rows)) : "",
    element("details", failed.length ? { open: true } : {}, element("summary", {}, `${answer.checks.length - failed.length} of ${answer.checks.length} checks pass`),
      element("ul", { class: "checks" }, ...answer.checks.map((c) => element("li", { title: Object.entries(c.numbers).map(([k, v]) => `${words(k)}: ${v}`).join("\n") },
        element("span", { class: c.passed ? "up" : "down" }, c.passed ? "✓" : "✗"), `${words(c.check)}${c.passed ? "" : ": fails"}`)))),
  );
}

// ---------------------------------------------------------------- quote

const take = (price, side) => () => {
  if (read("order_type") === "market") form.elements.order_type.value = "limit";
  if (["stop", "market_if_touched"].includes(read("order_type"))) form.elements.stop_price.value = price; else form.elements.limit_price.value = price;
  form.elements.side.value = side;
  fit();
  soon();
};
async function showQuote() {
  const code = symbol(), what = instrument(code);
  if (!what) { quote.textContent = code ? "unknown symbol" : "\u00a0"; return; }
  try {
    const [q] = (await get("quotes", { symbol: code })).results;
    if (symbol() !== code) return;
    if (!q) { quote.textContent = "no quote"; return; }
    const old = Date.now() - Date.parse(q.at) > QUOTE_OLD_MS;
    const held = heldNow(code);
    quote.replaceChildren(
      element("button", { type: "button", class: "price sell", title: "Sell at the bid", onclick: take(q.bid, "sell") }, priced(code, q.bid)), " / ",
      element("button", { type: "button", class: "price buy", title: "Buy at the ask", onclick: take(q.ask, "buy") }, priced(code, q.ask)),
      ` ${what.currency}`, element("span", { class: old ? "stale" : "" }, ` ${clock(q.at)}${old ? " old" : ""}`),
      element("span", { class: "under" }, `lot ${decimal(plain(what.lot_size))} · tick ${decimal(plain(what.tick_size))}${isZero(held) ? "" : ` · held ${decimal(plain(held))}`}`),
    );
  } catch { quote.textContent = "quote unavailable"; }
}

/** Move a field by a lot or a tick with the arrow keys. */
function nudge(event) {
  const what = instrument(symbol()), by = { ArrowUp: "", ArrowDown: "-" }[event.key], name = event.target.name;
  if (!what || by === undefined || !["quantity", "limit_price", "stop_price", "take_profit.limit_price", "stop_loss.stop_price", "stop_loss.limit_price"].includes(name) || !/^\d+(\.\d+)?$/.test(read(name))) return;
  event.preventDefault();
  const next = plain(sum([read(name), by + (name === "quantity" ? what.lot_size : what.tick_size)]));
  if (!next.startsWith("-")) event.target.value = next;
  changed();
  soon();
}

if (can("trader") && account()) {
  form.hidden = false;
  always.checked = remembered("ask first") !== "no";
  always.addEventListener("change", () => remember("ask first", always.checked ? "yes" : "no"));
  form.addEventListener("input", (event) => { if (event.target !== always && event.target.name !== "note") { blame(null); fitExits(form); changed(); soon(); } });
  form.addEventListener("keydown", nudge);
  for (const name of ["order_type", "size_kind", "algo.name"]) form.elements[name].addEventListener("change", () => { fit(); soon(); });
  form.elements.symbol.addEventListener("input", showQuote);
  setInterval(() => { if (!document.hidden && form.elements.symbol.value) showQuote(); }, 1000);
  ready.then(() => {
    $("symbols").append(...symbols().map((s) => element("option", { value: s })));
    const given = Object.fromEntries(new URLSearchParams(location.search));
    if (given.symbol) { openTicket(given); history.replaceState(null, "", "/"); }
    showQuote();
  }).catch(() => {});
  get("brokers").then(({ results }) => form.elements.broker.append(...results.filter((b) => b.enabled).map((b) => element("option", {}, b.code)))).catch(() => {});
  recall();
  fit();
  onAccount(() => { changed(); soon(); });
}
