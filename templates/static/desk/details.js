// All about one order: broker orders, fills, routing, timeline.
import { get } from "./api.js";
import { clock, decimal, element, money, words } from "./format.js";

const box = document.getElementById("details");
let wanted = null;

const cells = (...texts) => element("tr", {}, ...texts.map((t) => (typeof t === "object" ? element("td", { class: "n" }, t.n) : element("td", {}, t))));
const table = (heads, rows) => element("table", { class: "mini" },
  element("thead", {}, element("tr", {}, ...heads.map((h) => (typeof h === "object" ? element("th", { class: "n" }, h.n) : element("th", {}, h))))), element("tbody", {}, ...rows));
const or = (rows, made, text) => (rows.length ? made : element("p", { class: "dim" }, text));

export async function showDetails(order) {
  wanted = order?.id ?? null;
  box.hidden = !order;
  if (!order) return;
  try {
    const path = `orders/${order.id}/`;
    const [children, fills, routing, events] = await Promise.all(["children", "executions", "routing", "events"].map((p) => get(path + p)));
    if (wanted !== order.id) return;
    box.replaceChildren(
      element("div", { class: "tools" }, element("h2", {}, `${words(order.side)} ${decimal(order.quantity)} ${order.symbol}`), element("span", { class: "spring" }), element("kbd", {}, "Esc")),
      element("p", { class: "dim", title: order.id }, `${order.client_order_id} · version ${order.version}`),
      order.reason ? element("p", {}, `${words(order.reason.code)}: ${order.reason.detail}`) : "",
      element("h3", {}, "Broker orders"),
      or(children.results, table(["Broker", "Status", { n: "Quantity" }, { n: "Filled" }], children.results.map((c) => cells(c.broker, words(c.status), { n: decimal(c.quantity) }, { n: decimal(c.filled_quantity) }))), "None was sent."),
      element("h3", {}, "Fills"),
      or(fills.results, table(["At", "Kind", { n: "Quantity" }, { n: "Price" }, { n: "Fees" }], fills.results.map((f) => cells(clock(f.executed_at), f.kind, { n: decimal(f.quantity) }, { n: decimal(f.price) }, { n: f.fees === null ? "?" : money(f.fees) }))), "None yet."),
      element("h3", {}, "Routing"),
      or(routing.results, table(["Broker", { n: "Cost bps" }, { n: "Quantity" }, "Why not"], routing.results.flatMap((d) => d.candidates.map((c) => cells(c.broker, { n: c.cost_bps === null ? "" : decimal(c.cost_bps, 2) }, { n: c.weight === "0" ? "" : decimal(c.quantity) }, c.reasons.map(words).join(", "))))), "It was not routed."),
      element("h3", {}, "Timeline"),
      element("ul", { class: "log" }, ...events.results.map((e) => element("li", {}, `${clock(e.at)} ${words(e.kind).replaceAll(".", " ")} `, element("span", { class: "dim" }, [e.actor, e.outcome, e.detail].filter(Boolean).join(" · "))))),
    );
  } catch (problem) {
    if (wanted === order.id) box.replaceChildren(element("p", { class: "fault" }, problem.message));
  }
}
