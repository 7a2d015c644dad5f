// The positions of the account followed, kept from snapshots, facts and marks, with what this screen saw of them.
import { Series } from "./chart.js";
import { sum } from "./format.js";

const MARKS_LATE_MS = 15000;
let current = null;

/** What the account followed holds of a symbol, as a decimal string. */
export const heldNow = (symbol) => current?.positions.get(symbol)?.quantity ?? "0";

export class Book {
  constructor(changed) {
    current = this;
    this.changed = changed;
    this.open("");
    setInterval(() => { if (this.late() !== this.wasLate) { this.wasLate = this.late(); changed(); } }, 1000);
  }

  open(account) {
    Object.assign(this, { account, loaded: false, positions: new Map(), moves: new Map(), series: new Map(), marked: 0, wasLate: false });
  }

  snapshot(positions) {
    this.positions = new Map(positions.map((p) => [p.symbol, p]));
    this.loaded = true;
    this.changed();
  }

  take(position) {
    if (!position.symbol) return;
    this.positions.set(position.symbol, position);
    this.changed();
  }

  mark(rows) {
    this.marked = performance.now();
    for (const row of rows) {
      const known = this.positions.get(row.symbol);
      if (!known) continue;
      if (known.market_price !== null && row.market_price !== null && known.market_price !== row.market_price)
        this.moves.set(row.symbol, Number(row.market_price) > Number(known.market_price) ? "up" : "down");
      this.positions.set(row.symbol, { ...known, ...row, market_value: valued(known, row) });
      if (row.market_price !== null) this.seen(row.symbol).add(Number(row.market_price));
    }
    for (const { currency, day } of this.totals()) if (day !== null) this.seen(`day ${currency}`).add(Number(day));
    this.changed();
  }

  /** What this screen saw of a symbol's price, or of a currency's day P&L. */
  seen(name) {
    if (!this.series.has(name)) this.series.set(name, new Series(`${this.account} ${name}`));
    return this.series.get(name);
  }

  /** Marks came, and stopped coming. */
  late() {
    return this.marked > 0 && performance.now() - this.marked > MARKS_LATE_MS && [...this.positions.values()].some((p) => Number(p.quantity) !== 0);
  }

  /** Sums by currency; `missing` positions have no price, so no sum is complete without them. */
  totals() {
    const rows = [...this.positions.values()];
    return [...new Set(rows.map((p) => p.currency))].sort().map((currency) => {
      const mine = rows.filter((p) => p.currency === currency);
      const total = (name) => sum(mine.filter((p) => p[name] !== null).map((p) => p[name]));
      return { currency, day: total("day_pnl"), unrealized: total("unrealized_pnl"), realized: total("realized_pnl"), missing: mine.filter((p) => p.day_pnl === null).length };
    });
  }
}

const valued = (known, row) => (row.market_price === null || row.unrealized_pnl === null ? null : sum([known.cost, row.unrealized_pnl]));
