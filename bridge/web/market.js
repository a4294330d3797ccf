// What is known of each instrument: the state of the server's snapshot, carried on by trades and quotes
// with the same rules as the server has. Numbers stay the text that came; sums are whole numbers of 10^-6.

import { toMicros, fromMicros, places } from './decimal.js';

const DAY_MS = 86_400_000;
/** Points of a sparkline, and how much time each stands for. */
export const SPARK_POINTS = 90;
const SPARK_MS = 1_000;

export class Instrument {
  /** The newest event that is in here. */
  seq = 0;
  last = null;
  /** -1, 0, 1: against the trade before. */
  moved = 0;
  bid = null;
  ask = null;
  day = null;
  open = null;
  high = null;
  low = null;
  volume = 0n;
  volumePlaces = 0;
  /** Counts what changed, so that whoever draws sees whether there is anything new. */
  version = 0;
  /** Prices for the sparkline, for drawing only. */
  spark = new Float64Array(SPARK_POINTS);
  sparkLength = 0;
  #sparkSlot = -1;
  #lastMicros = null;
  #highMicros = null;
  #lowMicros = null;

  constructor(symbol, index) {
    this.symbol = symbol;
    this.index = index;
  }

  get volumeText() { return this.day === null ? null : fromMicros(this.volume, this.volumePlaces); }

  /** All that the server knows, in place of what was known here. */
  snapshot(state, nowMs) {
    this.version += 1;
    this.seq = state.seq;
    if (state.bid !== undefined) { this.bid = state.bid; this.ask = state.ask; }
    if (state.price === undefined) return;
    this.day = Date.parse(state.day) / DAY_MS;
    this.open = state.open;
    this.#setHigh(state.high, toMicros(state.high));
    this.#setLow(state.low, toMicros(state.low));
    this.volume = toMicros(state.volume);
    this.volumePlaces = places(state.qty);
    this.#setLast(state.price, toMicros(state.price), nowMs);
  }

  /** An event of the topic. One that came before, or that the snapshot contains, changes nothing. */
  event(event, nowMs) {
    if (event.seq <= this.seq) return;
    this.seq = event.seq;
    if (event.kind === 'trade') this.#trade(event, nowMs);
    else if (event.kind === 'quote') this.#quote(event);
  }

  #trade(trade, nowMs) {
    this.version += 1;
    const price = toMicros(trade.price);
    this.#setLast(trade.price, price, nowMs);
    const day = Math.floor(Number(trade.ts_event_ns.slice(0, -6)) / DAY_MS);
    if (this.day !== null && day < this.day) return; // a late trade of a day before
    if (this.day === null || day > this.day) {
      this.day = day;
      this.open = trade.price;
      this.volume = 0n;
      this.#setHigh(trade.price, price);
      this.#setLow(trade.price, price);
    } else {
      if (price > this.#highMicros) this.#setHigh(trade.price, price);
      if (price < this.#lowMicros) this.#setLow(trade.price, price);
    }
    this.volume += toMicros(trade.qty);
    this.volumePlaces = Math.max(this.volumePlaces, places(trade.qty));
  }

  #quote(quote) {
    this.version += 1;
    this.bid = quote.bid;
    this.ask = quote.ask;
  }

  #setHigh(text, micros) { this.high = text; this.#highMicros = micros; }
  #setLow(text, micros) { this.low = text; this.#lowMicros = micros; }

  #setLast(text, micros, nowMs) {
    if (this.#lastMicros !== null) this.moved = micros > this.#lastMicros ? 1 : micros < this.#lastMicros ? -1 : 0;
    this.last = text;
    this.#lastMicros = micros;
    const slot = Math.floor(nowMs / SPARK_MS);
    const { spark } = this;
    if (slot !== this.#sparkSlot || this.sparkLength === 0) {
      this.#sparkSlot = slot;
      if (this.sparkLength === SPARK_POINTS) spark.copyWithin(0, 1);
      else this.sparkLength += 1;
    }
    spark[this.sparkLength - 1] = Number(text);
  }
}
