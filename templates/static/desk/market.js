// Instruments and brokers, asked for once a page: how many places a price has, what a lot is.
import { get } from "./api.js";
import { placesOf, price } from "./format.js";

const known = new Map();
export const ready = get("instruments").then(({ results }) => { for (const i of results) known.set(i.symbol, i); });
ready.catch(() => {});

export const instrument = (symbol) => known.get(symbol);
export const symbols = () => [...known.values()].filter((i) => i.active).map((i) => i.symbol);
/** A price with the places of its tick; `finer`: one more, for middles between two ticks. */
export const priced = (symbol, text, { finer = false } = {}) => price(text, known.has(symbol) ? placesOf(known.get(symbol).tick_size) + finer : 0);
