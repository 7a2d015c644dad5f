// Exact decimals arrive as strings and are shown as strings: grouping and rounding by digits, never through a float.

const MINUS = "\u2212";

export function decimal(text, places = null) {
  if (text === null || text === undefined || text === "") return "";
  let sign = "";
  if (text.startsWith("-")) { sign = MINUS; text = text.slice(1); }
  let [whole, fraction = ""] = text.split(".");
  if (places !== null) [whole, fraction] = round(whole, fraction, places);
  if (/^0*$/.test(whole) && /^0*$/.test(fraction)) sign = "";
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
  return sign + grouped + (fraction ? "." + fraction : "");
}

function round(whole, fraction, places) {
  if (fraction.length <= places) return [whole, fraction.padEnd(places, "0")];
  const kept = BigInt(whole + fraction.slice(0, places)) + (fraction[places] >= "5" ? 1n : 0n);
  const digits = kept.toString().padStart(places + 1, "0");
  return places ? [digits.slice(0, -places), digits.slice(-places)] : [digits, ""];
}

export function trimmed(text) { const made = decimal(text, 6); return made.includes(".") ? made.replace(/\.?0+$/, "") : made; }
export const money = (text) => decimal(text, 2);
export const isZero = (text) => /^-?0*(\.0*)?$/.test(text ?? "0");
export const tone = (text) => (!text || isZero(text) ? "" : text.startsWith("-") ? "down" : "up");

export function clock(iso) {
  if (!iso) return "";
  const at = new Date(iso), today = new Date();
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === today.toDateString() ? time : at.toISOString().slice(0, 10) + " " + time;
}

export const words = (code) => (code ?? "").replaceAll("_", " ");

// Sums and products of decimal strings, exact, by scaled integers.
const SCALE = 20;
const scaled = (text) => {
  const negative = text.startsWith("-");
  const [whole, fraction = ""] = (negative ? text.slice(1) : text).split(".");
  const value = BigInt(whole + fraction.padEnd(SCALE, "0").slice(0, SCALE));
  return negative ? -value : value;
};
export function sum(texts) {
  const total = texts.reduce((all, text) => all + scaled(text), 0n);
  const digits = (total < 0n ? -total : total).toString().padStart(SCALE + 1, "0");
  return (total < 0n ? "-" : "") + digits.slice(0, -SCALE) + "." + digits.slice(-SCALE);
}

/** A decimal string without needless zeros. */
export const plain = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

/** What people type for a number: 10k, 1.5m, 1 000 or 1,000; anything else is left for the desk to refuse. */
export function typed(text) {
  const bare = text.trim().replace(/[\s\u2009]/g, "").replace(/^(\d{1,3})((,\d{3})+)(?=$|[.km])/i, (all) => all.replaceAll(",", ""));
  const found = /^(\d+)(?:\.(\d+))?([km])$/i.exec(bare);
  if (!found) return bare;
  const [, whole, fraction = "", unit] = found, places = unit.toLowerCase() === "k" ? 3 : 6;
  const digits = whole + fraction.slice(0, places).padEnd(places, "0");
  return plain(digits.replace(/^0+(?=\d)/, "") + (fraction.length > places ? "." + fraction.slice(places) : ""));
}

/** How many places a tick of 0.01 asks for. */
export const placesOf = (tick) => (plain(tick).split(".")[1] ?? "").length;

/** A price, at least as many places as the tick has, never fewer than it carries. */
export function price(text, places = 0) {
  if (text === null || text === undefined || text === "") return "";
  const own = (plain(text).split(".")[1] ?? "").length;
  return decimal(plain(text), Math.min(Math.max(own, places), 8));
}

export const compare = (a, b) => { const d = scaled(a) - scaled(b); return d < 0n ? -1 : d > 0n ? 1 : 0; };

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((c) => c !== null && c !== undefined && c !== false && c !== ""));
  return made;
}
