// Small lines of what this screen has seen: nothing is invented, nothing is asked for. They last as long as the tab.
import { element } from "./format.js";

const NS = "http://www.w3.org/2000/svg";
const POINTS_MAX = 600;
const GAP_MS = 15000; // over a longer silence no line is drawn: nobody saw what was there
const svg = (tag, attributes) => { const made = document.createElementNS(NS, tag); for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v); return made; };

/** A series of [milliseconds, number], kept in the tab's session under its name. */
export class Series {
  constructor(name) {
    this.name = `series ${name}`;
    this.every = 1000;
    try { this.points = JSON.parse(sessionStorage.getItem(this.name)) ?? []; } catch { this.points = []; }
  }

  add(value, at = Date.now()) {
    const last = this.points.at(-1);
    if (!Number.isFinite(value)) return;
    if (last && at - last[0] < this.every) last[1] = value;
    else this.points.push([at, value]);
    if (this.points.length > POINTS_MAX) { // half as many points, twice as far apart
      this.points = this.points.filter((_, i) => i % 2 === 0);
      this.every *= 2;
    }
    this.due ??= setTimeout(() => { this.due = null; try { sessionStorage.setItem(this.name, JSON.stringify(this.points)); } catch { /* only a picture */ } }, 2000);
  }
}

/** Draw a series; `zero`: with a line at zero. */
export function line(series, { width = 120, height = 28, zero = false, label = "" } = {}) {
  const { points } = series;
  if (points.length < 2) return element("span", { class: "dim chart-wait" }, "");
  const values = points.map((p) => p[1]);
  let low = Math.min(...values), high = Math.max(...values);
  if (zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
  const span = high - low || Math.abs(high) * 0.001 || 1;
  const from = points[0][0], time = points.at(-1)[0] - from || 1;
  const x = (t) => (((t - from) / time) * (width - 2) + 1).toFixed(1), y = (v) => (height - 2 - ((v - low) / span) * (height - 4)).toFixed(1);
  const made = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", width, height, role: "img", "aria-label": label });
  const title = svg("title", {});
  title.textContent = label;
  made.append(title);
  if (zero) made.append(svg("line", { class: "zero", x1: 0, x2: width, y1: y(0), y2: y(0) }));
  const last = values.at(-1), base = zero ? 0 : values[0];
  const path = points.map(([t, v], i) => `${i && t - points[i - 1][0] <= Math.max(GAP_MS, 3 * series.every) ? "L" : "M"}${x(t)} ${y(v)}`).join("");
  made.append(svg("path", { class: last > base ? "up" : last < base ? "down" : "flat", d: path }));
  return made;
}
