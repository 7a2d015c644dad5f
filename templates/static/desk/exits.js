// Orders that depend on each other: the exits that a ticket asks for, the mark on a row, the group among an order's details.
import { post, toast } from "./api.js";
import { decimal, element, isZero, typed, words } from "./format.js";
import { priced } from "./market.js";
import { can } from "./shell.js";

const MARKS = { parent: "⊏", take_profit: "↳ profit", stop_loss: "↳ stop", child: "↳ then", leg: "⇄ oco", flatten: "⚠ flatten" };
const read = (form, name) => form.elements[name].value.trim();
const has = (form) => Boolean(read(form, "take_profit.limit_price") || read(form, "stop_loss.stop_price"));

/** Show what only exits ask for once one is written. */
export function fitExits(form) {
  for (const label of form.querySelectorAll("[data-exits]")) label.hidden = !(label.dataset.exits === "any" ? has(form) : read(form, "stop_loss.stop_price"));
}

/** Put the exits into a ticket's body: both together are a bracket. */
export function putExits(form, body) {
  const profit = read(form, "take_profit.limit_price"), stop = read(form, "stop_loss.stop_price"), limit = read(form, "stop_loss.limit_price");
  if (profit) body.take_profit = { limit_price: typed(profit) };
  if (stop) body.stop_loss = { stop_price: typed(stop), ...(limit ? { limit_price: typed(limit) } : {}) };
  if (has(form) && read(form, "partial_fills") !== "pro_rata") body.partial_fills = read(form, "partial_fills");
}

/** The field of the ticket that a fault of an exit is about. */
export const exitField = (field) => ({ take_profit: "take_profit.limit_price", stop_loss: "stop_loss.stop_price" })[field] ?? field;

/** The exits in words, with how much is to be won for what is to be lost; empty without any. */
export function exitsOf(body, price) {
  const profit = body.take_profit?.limit_price, stop = body.stop_loss?.stop_price;
  const told = [profit && `profit ${priced(body.symbol, profit)}`, stop && `stop ${priced(body.symbol, stop)}${body.stop_loss.limit_price ? ` limit ${priced(body.symbol, body.stop_loss.limit_price)}` : ""}`].filter(Boolean);
  const ratio = profit && stop && Number(price) ? Math.abs(profit - price) / Math.abs(price - stop) : NaN;
  return told.join(", ") + (Number.isFinite(ratio) && ratio > 0 ? `, ${ratio.toFixed(1)} : 1` : "");
}

/** What a row says of its group: a mark and the words for it. */
export function markOf(order) {
  if (!order.group) return "";
  return MARKS[order.group.role];
}
export const typeText = (o) => `${o.algo?.name ?? words(o.order_type)} ${markOf(o)}`.trim();
export function typeNode(order) {
  const type = order.algo?.name ?? words(order.order_type), mark = markOf(order);
  return mark ? element("span", {}, type, " ", element("span", { class: "leg", title: `${words(order.group.role)} of ${order.group.kind} ${order.group.id}` }, mark)) : type;
}

/** The orders of a group with what each is and does, and the end of all of them. */
export function groupNode(group, order) {
  const working = group.orders.some((o) => !isZero(o.leaves_quantity));
  const rows = group.orders.map((o) => element("tr", {},
    element("td", {}, o.id === order.id ? element("b", {}, `▸ ${words(o.role)}`) : words(o.role)), element("td", {}, words(o.status)),
    element("td", { class: "n" }, decimal(o.quantity)), element("td", { class: "n" }, decimal(o.filled_quantity)),
    element("td", { class: "n" }, priced(order.symbol, o.limit_price ?? o.stop_price))));
  return element("div", {},
    group.problem || !isZero(group.excess) ? element("p", { class: "fault" }, [group.problem, isZero(group.excess) ? "" : `${decimal(group.excess)} filled too much.`].filter(Boolean).join(" ")) : "",
    element("table", { class: "mini" }, element("thead", {}, element("tr", {}, ...["Order", "Status"].map((h) => element("th", {}, h)), ...["Quantity", "Filled", "Price"].map((h) => element("th", { class: "n" }, h)))), element("tbody", {}, ...rows)),
    element("p", { class: "dim" }, `${group.kind}, ${words(group.partial_fills)} `,
      working && can("trader") ? element("button", { class: "small danger", type: "button", onclick: () => endAll(order) }, "Cancel the group") : ""));
}
async function endAll(order) {
  try {
    const { canceled } = await post(`orders/${order.id}/group/cancel`, {});
    toast(`${canceled} orders of the group were asked to end.`, "good");
  } catch (problem) { toast(problem.message, "bad"); }
}
