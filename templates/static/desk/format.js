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
export const compare = (a, b) => { const d = scaled(a) - scaled(b); return d < 0n ? -1 : d > 0n ? 1 : 0; };

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((c) => c !== null && c !== undefined));
  return made;
}
