// A market that is known to the last decimal: rows for the feed handler, and what must come of them.

const NAMES = [
  ['AQUA', 2, 0, 182.4], ['BIRCH', 2, 0, 64.05], ['CORAL', 2, 0, 1210.5], ['DELTA', 4, 0, 0.8312], ['EMBER', 2, 3, 61800.3], ['FJORD', 2, 0, 33.19],
  ['GROVE', 6, 0, 0.000412], ['HAZEL', 2, 0, 97.6], ['INDIGO', 3, 1, 412.905], ['JUNO', 2, 0, 15.02], ['KELP', 2, 0, 248.75], ['LARK', 0, 2, 5120],
];
export const SYMBOLS = NAMES.map(([name]) => name);
const SPANS = { '1s': 1, '1m': 60, '1h': 3600, '1d': 86_400 };

export class Market {
  /** By symbol: what was published, in order; the event at place n has seq n + 1. */
  events = new Map(SYMBOLS.map((name) => [name, []]));
  #prices = new Map(NAMES.map(([name, places, , price]) => [name, Math.round(price * 10 ** places)]));
  #rng;
  /** Time between two events of an instrument, against ten seconds: what moves little in a short time. */
  #pace = 1;

  /** The same seed, the same market. */
  constructor(seed) { this.#rng = random(seed); }

  /**
   * More of it: events from one time to another (milliseconds since 1970), so many of each instrument.
   * Yields the two CSV files of the feed handler, as text.
   */
  make(fromMs, toMs, each) {
    this.#pace = (toMs - fromMs) / each / 10_000;
    const trades = ['timestamp,symbol,price,qty,side'];
    const quotes = ['timestamp,symbol,bid,bid_qty,ask,ask_qty'];
    const rows = [];
    NAMES.forEach(([name, places, qtyPlaces], place) => {
      const step = (toMs - fromMs) / each;
      for (let i = 0; i < each; i += 1) {
        const ms = Math.floor(fromMs + i * step) + place; // no two events of one instrument at one time
        rows.push({ name, places, qtyPlaces, ns: `${ms}${String(place).padStart(6, '0')}`, isTrade: i % 3 !== 2 });
      }
    });
    rows.sort((a, b) => (a.ns < b.ns ? -1 : 1));
    for (const { name, places, qtyPlaces, ns, isTrade } of rows) {
      const price = this.#walk(name);
      const qty = (by) => decimal(1 + Math.floor(this.#rng() * by * this.#pace), qtyPlaces);
      if (isTrade) {
        const side = this.#rng() < 0.5 ? 'buy' : 'sell';
        const event = { kind: 'trade', ns, price: decimal(price, places), qty: qty(2000), side };
        trades.push([ns, name, event.price, event.qty, side].join(','));
        this.events.get(name).push(event);
      } else {
        const spread = 1 + Math.floor(this.#rng() * 3);
        const event = { kind: 'quote', ns, bid: decimal(price - spread, places), ask: decimal(price + spread, places) };
        quotes.push([ns, name, event.bid, qty(900), event.ask, qty(900)].join(','));
        this.events.get(name).push(event);
      }
    }
    return { trades: `${trades.join('\n')}\n`, quotes: `${quotes.join('\n')}\n` };
  }

  #walk(name) {
    const price = this.#prices.get(name);
    const by = price * 0.0008 * Math.sqrt(this.#pace) * (this.#rng() + this.#rng() + this.#rng() - 1.5);
    const step = Math.abs(by) < 1 ? Math.sign(by) * (this.#rng() < Math.abs(by)) : by;
    const next = Math.max(5, Math.round(price + step));
    this.#prices.set(name, next);
    return next;
  }

  last(name, kind) { return this.events.get(name).findLast((event) => event.kind === kind); }

  /** Trades, newest first, with their seq. */
  trades(name) {
    return this.events.get(name).map((event, place) => ({ seq: place + 1, ...event })).filter(({ kind }) => kind === 'trade').reverse();
  }

  /** Candles, oldest first: open, high, low, close and volume as whole numbers of 10^-6. */
  candles(name, period) {
    const candles = new Map();
    for (const { kind, ns, price, qty } of this.events.get(name)) {
      if (kind !== 'trade') continue;
      const seconds = Number(ns.slice(0, -9));
      const time = seconds - (seconds % SPANS[period]);
      const value = micros(price);
      const one = candles.get(time);
      if (!one) candles.set(time, { time, open: value, high: value, low: value, close: value, volume: micros(qty), trades: 1 });
      else {
        if (value > one.high) one.high = value;
        if (value < one.low) one.low = value;
        one.close = value;
        one.volume += micros(qty);
        one.trades += 1;
      }
    }
    return [...candles.values()];
  }
}

/** As many decimals as the source writes: 12 with 2 is 0.12. */
function decimal(units, places) {
  const digits = String(Math.abs(units)).padStart(places + 1, '0');
  const text = places ? `${digits.slice(0, -places)}.${digits.slice(-places)}` : digits;
  return units < 0 ? `-${text}` : text;
}

export function micros(text) {
  const [whole, fraction = ''] = text.split('.');
  return BigInt(whole + fraction.padEnd(6, '0'));
}

function random(seed) { // mulberry32
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
