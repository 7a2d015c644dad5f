// A keyed table that touches only cells that changed, once a frame however many messages came. Long lists are drawn
// as far as they can be seen; a click on a heading sorts.
import { element } from "./format.js";

const ALL_MAX = 150; // up to here every row stands in the page
const AROUND = 20;

export class Table {
  // columns: [{ text: row => string, class?: row => string, node?: row => Node, sort?: row => string | number, flash?, title? }]
  constructor(table, columns, { key, onRow } = {}) {
    this.body = table.tBodies[0];
    this.scroller = table.closest(".scroll");
    Object.assign(this, { columns, key, onRow, list: [], rows: new Map(), order: null, selected: null, height: 26 });
    [...table.tHead.rows[0].cells].forEach((head, i) => { if (columns[i]?.sort) this.sortable(head, columns[i]); });
    this.above = element("tr", { class: "space", "aria-hidden": "true" }, element("td", { colspan: columns.length }));
    this.below = this.above.cloneNode(true);
    const paint = eachFrame(() => this.paint());
    this.scroller.addEventListener("scroll", () => { if (this.list.length > ALL_MAX) paint(); }, { passive: true });
    addEventListener("resize", paint);
  }

  sortable(head, column) {
    const button = element("button", { type: "button", class: "sort" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("n") ? -1 : 1;
      const now = this.order?.column === column ? this.order.direction : 0;
      this.order = now === -first ? null : { column, direction: now ? -first : first };
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      if (this.order) head.setAttribute("aria-sort", this.order.direction > 0 ? "ascending" : "descending");
      this.render(this.given);
    });
  }

  render(rows) {
    this.given = rows;
    this.list = rows;
    if (this.order) {
      const { column, direction } = this.order;
      const value = new Map(rows.map((r) => [r, column.sort(r)]));
      this.list = [...rows].sort((a, b) => { const x = value.get(a), y = value.get(b); return x < y ? -direction : x > y ? direction : 0; });
    }
    this.paint();
  }

  paint() {
    const total = this.list.length, whole = total <= ALL_MAX;
    const top = whole ? 0 : Math.max(0, Math.floor(this.scroller.scrollTop / this.height) - AROUND);
    const end = whole ? total : Math.min(total, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / this.height) + AROUND);
    this.draw(this.list.slice(top, end));
    this.pad(this.above, top, () => this.body.prepend(this.above));
    this.pad(this.below, total - end, () => this.body.append(this.below));
    const line = this.rows.values().next().value?.line;
    if (!whole && line?.offsetHeight) this.height = line.offsetHeight;
  }

  pad(row, count, place) {
    if (!count) { row.remove(); return; }
    row.firstChild.style.height = `${count * this.height}px`;
    place();
  }

  draw(rows) {
    const seen = new Set();
    this.above.remove();
    this.below.remove();
    let place = this.body.firstChild;
    for (const row of rows) {
      const id = this.key(row);
      seen.add(id);
      let made = this.rows.get(id);
      if (!made) this.rows.set(id, (made = this.make(id)));
      this.fill(made, row);
      if (this.onRow) made.line.setAttribute("aria-selected", String(id === this.selected));
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
      const mark = text + "\u0000" + style;
      if (made.shown[i] === mark) return;
      const cell = made.cells[i];
      cell.className = style;
      if (column.node) cell.replaceChildren(column.node(row) ?? "");
      else { cell.textContent = text; if (column.title) cell.title = column.title(row) ?? ""; }
      if (made.shown[i] !== undefined && column.flash) { void cell.offsetWidth; cell.classList.add("flash"); }
      made.shown[i] = mark;
    });
  }

  /** The key of the row `step` below the selected one, brought into sight; the first or last where none is selected. */
  beside(step) {
    if (!this.list.length) return null;
    const at = this.list.findIndex((r) => this.key(r) === this.selected);
    const next = at < 0 ? (step > 0 ? 0 : this.list.length - 1) : Math.min(this.list.length - 1, Math.max(0, at + step));
    const y = next * this.height, head = 30;
    if (y < this.scroller.scrollTop) this.scroller.scrollTop = y;
    else if (y + this.height + head > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = y + this.height + head - this.scroller.clientHeight;
    return this.key(this.list[next]);
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
