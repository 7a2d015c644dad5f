// A keyed table that touches only cells that changed, once a frame however many messages came.
import { element } from "./format.js";

export class Table {
  // columns: [{ text: row => string, class?: row => string, node?: row => Node }]
  constructor(table, columns, { key, onRow } = {}) {
    this.body = table.tBodies[0];
    Object.assign(this, { columns, key, onRow });
    this.rows = new Map();
  }

  render(rows) {
    const seen = new Set();
    let place = this.body.firstChild;
    for (const row of rows) {
      const id = this.key(row);
      seen.add(id);
      let made = this.rows.get(id);
      if (!made) this.rows.set(id, (made = this.make(id)));
      this.fill(made, row);
      if (made.line !== place) this.body.insertBefore(made.line, place);
      else place = place.nextSibling;
    }
    for (const [id, made] of this.rows) if (!seen.has(id)) { made.line.remove(); this.rows.delete(id); }
  }

  make(id) {
    const line = element("tr", { "data-id": id });
    if (this.onRow) {
      line.tabIndex = 0;
      line.addEventListener("click", (e) => { if (!e.target.closest("button")) this.onRow(id); });
      line.addEventListener("keydown", (e) => { if (e.key === "Enter" && e.target === line) this.onRow(id); });
    }
    const cells = this.columns.map(() => line.appendChild(element("td")));
    return { line, cells, shown: [] };
  }

  fill(made, row) {
    this.columns.forEach((column, i) => {
      const text = column.text(row), style = column.class?.(row) ?? "";
      const mark = text + "\u0000" + style + "\u0000" + (column.sign?.(row) ?? "");
      if (made.shown[i] === mark) return;
      const cell = made.cells[i];
      cell.className = style;
      if (column.node) cell.replaceChildren(column.node(row) ?? "");
      else { cell.textContent = text; if (column.title) cell.title = column.title(row) ?? ""; }
      if (made.shown[i] !== undefined && column.flash) { cell.classList.remove("flash"); void cell.offsetWidth; cell.classList.add("flash"); }
      made.shown[i] = mark;
    });
  }
}

export function eachFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; work(); });
  };
}
