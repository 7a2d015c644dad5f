// Large orders worked in slices: what the ticket asks for, how far an order has come, what became of each slice.
import { clock, decimal, element, isZero, plain, typed, words } from "./format.js";

const MINUTE_MS = 60000;
const FIELDS = {
  twap: ["minutes", "slices", "participation"], vwap: ["minutes", "slices", "participation"], is: ["minutes", "slices", "participation", "urgency"],
  pov: ["participation"], iceberg: ["display"],
};
const read = (form, name) => form.elements[`algo.${name}`].value.trim();

/** Show the fields that the chosen algorithm has. */
export function fitWork(form) {
  const wanted = FIELDS[read(form, "name")] ?? [];
  for (const label of form.querySelectorAll("[data-work]")) label.hidden = !wanted.includes(label.dataset.work);
}

let agreed = { id: null, end: null };
/** Let the time begin now: the ticket is about to be sent for the first time. */
export const beginNow = () => { agreed = { id: null, end: null }; };
/** Put into a ticket's body how it is to be worked. Its end is told once for each ticket: sent again, it must be the same. */
export function putWork(form, body) {
  const name = read(form, "name");
  if (!name) return;
  const wanted = FIELDS[name], algo = { name };
  if (wanted.includes("minutes") && read(form, "minutes")) {
    if (agreed.id !== body.client_order_id) agreed = { id: body.client_order_id, end: new Date(Date.now() + Number(read(form, "minutes")) * MINUTE_MS) };
    algo.end_at = Number.isNaN(agreed.end.getTime()) ? read(form, "minutes") : agreed.end.toISOString();
  }
  if (wanted.includes("slices") && read(form, "slices")) algo.slices = Number(read(form, "slices"));
  if (wanted.includes("participation") && read(form, "participation")) algo.participation = fraction(read(form, "participation"));
  if (wanted.includes("urgency")) algo.urgency = read(form, "urgency");
  if (wanted.includes("display") && read(form, "display")) body.display_quantity = typed(read(form, "display"));
  body.algo = algo;
}

/** Percent as typed, as the fraction that the desk takes: by digits, so that nothing is rounded. */
function fraction(text) {
  const found = /^(\d+)(?:\.(\d+))?$/.exec(text);
  if (!found) return text;
  const digits = found[1].padStart(3, "0");
  return plain(`${digits.slice(0, -2)}.${digits.slice(-2)}${found[2] ?? ""}`.replace(/^0+(?=\d)/, ""));
}

/** The field of the ticket that a fault of the algorithm is about. */
export const workField = (field) => ({ "algo.end_at": "algo.minutes", display_quantity: "algo.display", algo: "algo.name" })[field] ?? field;

/** The schedule that a preview tells. */
export function scheduled(answer) {
  const { slices, algo } = answer;
  if (!algo) return "";
  const first = slices[0], last = slices.at(-1);
  const shown = slices.length > 1 ? `${slices.length} slices, ${clock(first.due_at)} to ${clock(last.due_at)}: ${decimal(first.planned_quantity)} first, ${decimal(last.planned_quantity)} last` : "slices as it goes";
  return `${algo.name}, ${shown}${algo.at_end === "complete" ? "; what is left at the end is sent at once" : ""}`;
}

// ---------------------------------------------------------------- on the blotter

const share = (part, whole) => Math.min(100, Math.max(0, (100 * Number(part)) / Number(whole)));
export const canPause = (o) => o.algo?.state === "working" && !["pending_cancel", "pending_replace", "held"].includes(o.status);
export const canResume = (o) => o.algo?.state === "paused" && !["pending_cancel", "pending_replace"].includes(o.status);

/** What changes when the bar must be drawn anew. */
export const progressText = (o) => `${o.filled_quantity} ${o.quantity} ${o.algo.working_quantity} ${o.algo.state} ${o.algo.slices_sent} ${o.algo.slices_left}`;

/** How much is filled, how much of it works now, as a bar below the number. */
export function progressNode(o) {
  const filled = share(o.filled_quantity, o.quantity), works = share(o.algo.working_quantity, o.quantity);
  const bar = element("span", {
    class: "bar-of-work", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": filled.toFixed(0), "data-state": o.algo.state,
    "aria-label": `${o.algo.name}: ${filled.toFixed(0)} percent filled`,
  }, element("i", { class: "filled" }), element("i", { class: "works" }));
  bar.children[0].style.width = `${filled}%`;
  bar.children[1].style.width = `${Math.min(works, 100 - filled)}%`;
  const next = o.algo.next_slice_at ? `, next ${clock(o.algo.next_slice_at)}` : "";
  return element("span", { class: "work", title: `${o.algo.name}: ${o.algo.slices_sent} slices sent, ${o.algo.slices_left} planned${next}${isZero(o.algo.working_quantity) ? "" : `, ${decimal(o.algo.working_quantity)} working`}` },
    decimal(o.filled_quantity), bar);
}

/** The slices of an order, newest decision last. */
export function sliceRows(rows) {
  return rows.map((s) => Object.assign(
    [String(s.number), clock(s.due_at), { n: decimal(s.planned_quantity) }, { n: s.quantity === null ? "" : decimal(s.quantity) }, { n: s.filled_quantity === null ? "" : decimal(s.filled_quantity) }, words(s.status ?? s.state)],
    { note: s.detail }));
}
