// All about one order: why it went where it went, what became of it, what it cost.
import { get } from "./api.js";
import { groupNode } from "./exits.js";
import { clock, decimal, element, isZero, money, words } from "./format.js";
import { priced } from "./market.js";
import { sliceRows } from "./working.js";

const box = document.getElementById("details");
let wanted = null;

const cell = (tag, content) => (content && content.n !== undefined ? element(tag, { class: "n" }, content.n) : element(tag, {}, content));
const table = (heads, rows) => element("table", { class: "mini" },
  element("thead", {}, element("tr", {}, ...heads.map((h) => cell("th", h)))), element("tbody", {}, ...rows.map((r) => element("tr", r.note ? { title: r.note } : {}, ...r.map((c) => cell("td", c))))));
const or = (rows, made, text) => (rows.length ? made() : element("p", { class: "dim" }, text));
const part = (title, ...content) => element("div", {}, element("h3", {}, title), ...content);
const ms = (number) => (number === null || number === undefined ? "" : `${Math.round(number)} ms`);

function fills(rows, order) {
  return or(rows, () => table(["At", "Broker", "Kind", { n: "Quantity" }, { n: "Price" }, { n: "Fees" }], rows.map((f) =>
    [clock(f.executed_at), f.broker, f.kind, { n: decimal(f.quantity) }, { n: priced(order.symbol, f.price) }, { n: f.fees === null ? "?" : money(f.fees) }])), "None yet.");
}

function children(rows) {
  return or(rows, () => table(["Broker", "Status", { n: "Quantity" }, { n: "Filled" }, "Sent"], rows.map((c) => Object.assign(
    [c.broker, words(c.status), { n: decimal(c.quantity) }, { n: decimal(c.filled_quantity) }, c.submissions.map((s) => `${s.kind} ${words(s.state)}${s.attempts > 1 ? ` ×${s.attempts}` : ""}`).join(", ")],
    { note: `ours ${c.client_order_id}, theirs ${c.broker_order_id ?? "not known"}` }))), "None was sent.");
}

function slices(rows) {
  return table(["#", "Due", { n: "Planned" }, { n: "Sent" }, { n: "Filled" }, "State"], sliceRows(rows));
}

const parts = (c) => Object.entries(c.parts ?? {}).filter(([, v]) => !isZero(v)).map(([k, v]) => `${words(k)} ${decimal(v, 2)}`).join(", ");
function decision(found, number) {
  const dearest = Math.max(...found.candidates.map((c) => Number(c.cost_bps ?? 0)), 0.0001);
  const sorted = [...found.candidates].sort((a, b) => (a.cost_bps === null) - (b.cost_bps === null) || Number(a.cost_bps) - Number(b.cost_bps));
  return [
    number > 1 ? element("p", { class: "dim" }, `Decision ${number} at ${clock(found.at)}`) : "",
    table(["Broker", { n: "Cost bps" }, "", "Made of, or why not"], sorted.map((c) => [
      isZero(c.weight) ? c.broker : element("b", {}, `▸ ${c.broker}`), { n: c.cost_bps === null ? "" : decimal(c.cost_bps, 2) },
      c.eligible ? element("meter", { min: 0, max: dearest, value: Number(c.cost_bps ?? 0), "aria-label": "cost beside the others" }) : "",
      c.eligible ? parts(c) : c.reasons.map(words).join(", ")])),
  ];
}

function told(event) {
  const before = [event.actor?.replace(/^(user|system):/, ""), words(event.outcome), words(event.detail)];
  const timing = event.rtt_ms === undefined ? [] : [event.delay_seconds ? `after ${decimal(String(event.delay_seconds))} s` : "", `answer in ${ms(event.rtt_ms)}`, event.next_at ? `again at ${clock(event.next_at)}` : ""];
  return element("li", {}, element("time", { datetime: event.at, title: event.at }, clock(event.at)),
    element("span", {}, event.kind.startsWith("submission.") ? `sent ${event.kind.slice(11)}, try ${event.attempt}` : words(event.kind).replaceAll(".", " ")),
    element("span", { class: "dim" }, [...before, ...timing].filter(Boolean).join(" · ")));
}

function quality(q) {
  if (!q) return element("p", { class: "dim" }, "Not measured.");
  const rows = [["Fill rate", `${(Number(q.fill_rate ?? 0) * 100).toFixed(0)} %`], ["Acknowledged in", ms(q.ack_ms) || "not yet"]];
  if (q.arrival_bps !== null) rows.push(["Against arrival", `${decimal(q.arrival_bps, 2)} bps`]);
  if (q.shortfall) for (const name of ["trading", "fees", "opportunity", "total"]) if (q.shortfall[name] !== null && q.shortfall[name] !== undefined) rows.push([`Shortfall, ${name}`, `${money(q.shortfall[name])} ${q.shortfall.currency}`]);
  return element("dl", { class: "facts" }, ...rows.flatMap(([k, v]) => [element("dt", {}, k), element("dd", {}, v)]));
}

export async function showDetails(order) {
  const first = wanted !== (order?.id ?? null);
  wanted = order?.id ?? null;
  box.hidden = !order;
  if (!order) return;
  if (first) box.replaceChildren(head(order), element("p", { class: "dim" }, "Reading…"));
  try {
    const path = `orders/${order.id}/`;
    const [kids, filled, routing, events, cost, parted, group] = await Promise.all([
      ...["children", "executions", "routing", "events"].map((p) => get(path + p)), get(path + "quality").catch(() => null), order.algo ? get(path + "slices") : { results: [] }, order.group ? get(path + "group") : null]);
    if (wanted !== order.id) return;
    const scrolled = box.querySelector(".columns")?.scrollTop ?? 0;
    const columns = element("div", { class: "columns" },
      element("div", {}, order.reason ? part("Why", element("p", { class: "fault" }, order.reason.detail || words(order.reason.code))) : "", group ? part("Group", groupNode(group, order)) : "", order.algo ? part("Slices", slices(parted.results)) : "", part("Broker orders", children(kids.results)), part("Fills", fills(filled.results, order))),
      element("div", {}, part("Routing", ...or(routing.results, () => element("div", {}, ...routing.results.flatMap((d, i) => decision(d, i + 1))), "It was not routed.").childNodes), part("Cost", quality(cost))),
      part("Timeline", element("ul", { class: "log" }, ...events.results.map(told))),
    );
    box.replaceChildren(head(order), columns);
    columns.scrollTop = scrolled;
  } catch (problem) {
    if (wanted === order.id) box.replaceChildren(head(order), element("p", { class: "fault" }, problem.message));
  }
}

function head(order) {
  return element("div", { class: "tools" },
    element("h2", {}, element("span", { class: order.side === "buy" ? "buy" : "sell" }, words(order.side)), ` ${decimal(order.quantity)} ${order.symbol}`),
    element("span", { class: "dim", title: order.id }, `${order.client_order_id} · ${order.origin} · version ${order.version}${order.strategy ? ` · ${order.strategy}` : ""}`),
    element("span", { class: "spring" }),
    element("button", { type: "button", class: "quiet", "data-close": true, "aria-label": "Close the details" }, element("kbd", {}, "Esc")));
}
