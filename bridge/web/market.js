// What is known of each instrument: the state of the server's snapshot, carried on by trades and quotes.
// Numbers stay the text that came; sums are whole numbers of 10^-6.
//
// Where a trading day begins, and which sessions count for it, the server alone knows, by the instrument's
// calendar. Days begin at a whole or half hour, so a state is carried on to the next of those and then
// asked for again; and the chosen instrument's day comes from its `1d` candle.

import { toMicros, fromMicros, places } from './decimal.js';

const SLOT_MS = 30 * 60_000;
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
  #slot = 0;
  #tradeNs = '';
  #quoteNs = '';
  #lastMicros = null;
  #highMicros = null;
  #lowMicros = null;

  constructor(symbol, index) {
    this.symbol = symbol;
    this.index = index;
  }

  get volumeText() { return this.open === null ? null : fromMicros(this.volume, this.volumePlaces); }

  /** All that the server knows, in place of what was known here. */
  snapshot(state, nowMs) {
    this.version += 1;
    this.seq = state.seq;
    if (state.bid !== undefined) this.#setQuote(state, state.ts_quote_ns);
    if (state.price === undefined) return;
    this.day(state);
    this.volumePlaces = Math.max(this.volumePlaces, places(state.qty));
    this.#slot = slotOf(state.ts_trade_ns);
    this.#setLast(state, state.ts_trade_ns, nowMs);
  }

  /** The figures of the trading day, as the server has them. */
  day({ open, high, low, volume }) {
    this.version += 1;
    this.open = open;
    this.#setHigh(high, toMicros(high));
    this.#setLow(low, toMicros(low));
    this.volume = toMicros(volume);
    this.volumePlaces = Math.max(this.volumePlaces, places(volume));
  }

  /**
   * An event of the topic. One that came before, or that the snapshot contains, changes nothing. Yields
   * whether the figures of the day may have begun anew, so that a snapshot is to be asked for.
   */
  event(event, nowMs) {
    if (event.seq <= this.seq) return false;
    this.seq = event.seq;
    this.version += 1;
    if (event.kind === 'trade') return this.#trade(event, nowMs);
    if (event.kind === 'quote' && isNoEarlier(event.ts_event_ns, this.#quoteNs)) this.#setQuote(event, event.ts_event_ns);
    return false;
  }

  #trade(trade, nowMs) {
    const price = toMicros(trade.price);
    if (this.open === null) this.day({ open: trade.price, high: trade.price, low: trade.price, volume: '0' });
    if (price > this.#highMicros) this.#setHigh(trade.price, price);
    if (price < this.#lowMicros) this.#setLow(trade.price, price);
    this.volume += toMicros(trade.qty);
    this.volumePlaces = Math.max(this.volumePlaces, places(trade.qty));
    if (isNoEarlier(trade.ts_event_ns, this.#tradeNs)) this.#setLast(trade, trade.ts_event_ns, nowMs);
    const slot = slotOf(trade.ts_event_ns);
    const isNew = this.#slot !== 0 && slot > this.#slot;
    this.#slot = Math.max(slot, this.#slot);
    return isNew;
  }

  #setQuote({ bid, ask }, ns) {
    this.bid = bid;
    this.ask = ask;
    this.#quoteNs = ns;
  }

  #setHigh(text, micros) { this.high = text; this.#highMicros = micros; }
  #setLow(text, micros) { this.low = text; this.#lowMicros = micros; }

  #setLast({ price: text }, ns, nowMs) {
    const micros = toMicros(text);
    this.#tradeNs = ns;
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

function slotOf(ns) { return Math.floor(Number(ns.slice(0, -6)) / SLOT_MS); }

/** Whether a time is no earlier than another: both are digits of nanoseconds, or the other is not known yet. */
function isNoEarlier(ns, than) { return ns.length > than.length || (ns.length === than.length && ns >= than); }
