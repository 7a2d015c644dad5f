// Pictures of figures that stand beside them: bars, intervals, curves. Colour is never the only sign.

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [k, v] of Object.entries(attributes)) made.setAttribute(k, v);
  made.append(...children);
  return made;
}

/** A scale that always shows zero. */
export function scale(values, left, right) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values), span = high - low || 1;
  return (v) => left + ((v - low) / span) * (right - left);
}

const sized = (width, height, label) => svg("svg", { class: "graph", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });

/** A mean with its interval, on a scale shared by all rows. */
export function interval({ mean, low, high }, at, label) {
  const made = sized(180, 16, label);
  made.append(svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 16 }), svg("line", { class: "whisker", x1: at(low), x2: at(high), y1: 8, y2: 8 }),
    svg("circle", { class: mean > 0 ? "cost" : "gain", cx: at(mean), cy: 8, r: 3.5 }));
  return made;
}

/** A bar from zero. */
export function bar(value, at, label) {
  const made = sized(120, 14, label), x = Math.min(at(0), at(value));
  made.append(svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 14 }), svg("rect", { class: value > 0 ? "cost" : "gain", x, y: 3, width: Math.max(1, Math.abs(at(value) - at(0))), height: 8 }));
  return made;
}

/** Steps from zero to their sum: [[name, amount, spelled]]. */
export function waterfall(steps, total, label) {
  const row = 22, left = 70, right = 330;
  let level = 0;
  const drawn = [...steps.map(([name, amount, spelled]) => { const from = level; level += amount; return [name, from, level, spelled]; }), ["total", 0, level, total]];
  const at = scale(drawn.flatMap(([, a, b]) => [a, b]), left, right), made = sized(440, drawn.length * row + 4, label);
  made.append(svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: drawn.length * row }));
  drawn.forEach(([name, from, to, spelled], i) => {
    const y = i * row + 3, text = (x, anchor, words) => { const t = svg("text", { x, y: y + 12, "text-anchor": anchor }); t.textContent = words; return t; };
    made.append(text(left - 8, "end", name), svg("rect", { class: to >= from ? "cost" : "gain", x: Math.min(at(from), at(to)), y, width: Math.max(1, Math.abs(at(to) - at(from))), height: row - 6 }), text(Math.max(at(from), at(to)) + 6, "start", spelled));
  });
  return made;
}

/** Curves over named steps: [[name, [[step, value]]]]; each curve bears its name at its end. */
export function curves(lines, steps, label) {
  const height = 150, left = 46, right = 350, made = sized(460, height + 4, label);
  const at = scale(lines.flatMap(([, points]) => points.map((p) => p[1])), height - 22, 8), x = (s) => left + (steps.indexOf(s) * (right - left)) / Math.max(1, steps.length - 1);
  const text = (at_x, y, anchor, words, style = "") => { const t = svg("text", { x: at_x, y, "text-anchor": anchor, class: style }); t.textContent = words; return t; };
  made.append(svg("line", { class: "zero", x1: left, x2: right, y1: at(0), y2: at(0) }), text(left - 6, at(0) + 4, "end", "0 bps", "dim"), ...steps.map((s) => text(x(s), height, "middle", s, "dim")));
  const ends = lines.map(([, points]) => at(points.at(-1)[1])), taken = [];
  lines.forEach(([name, points], i) => {
    let y = ends[i] + 4;
    while (taken.some((t) => Math.abs(t - y) < 12)) y += 12;
    taken.push(y);
    made.append(svg("polyline", { class: `curve curve-${i % 5}`, points: points.map(([s, v]) => `${x(s)},${at(v)}`).join(" ") }), text(x(points.at(-1)[0]) + 6, y, "start", name, `curve-name curve-${i % 5}`));
  });
  return made;
}
