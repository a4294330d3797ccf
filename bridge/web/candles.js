// The candles of one instrument and period: what the database has, joined with what comes live.

/** A page of history, and the most pages that one look back may take. */
const PAGE = 500;
const PAGES = 8;
/** The database follows the live stream within a second as a rule; how often and how long it is waited for. */
const RETRY_MS = 300;
const RETRIES = 40;

/**
 * The rule of the join: both sides tell whole candles, so of two states of one candle the one with more
 * trades is the newer. And the stored side is complete up to where the live side begins as soon as it has
 * the candle that the live side began with, because it is stored in order.
 */
export class CandleFeed {
  #client; #symbol; #period; #handlers; #wait;
  #candles = new Map();
  #subscription = null;
  #older = null;
  #stopped = false;
  /** Start of the first candle that came live since the topic was last asked for; `null`: none yet. */
  #liveFrom = null;
  /** Whether what is stored reaches what came live. */
  #joined = false;
  #filling = null;
  #stale = false;

  /** `handlers`: `onCandle(candle)` for one that changed, `onCandles()` for many, `onState(text)` while it loads. */
  constructor(client, symbol, period, handlers, wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))) {
    this.#client = client;
    this.#symbol = symbol;
    this.#period = period;
    this.#handlers = handlers;
    this.#wait = wait;
  }

  start() {
    this.#subscription = this.#client.subscribe(`candle/${this.#period}/${this.#symbol}`, {
      policy: 'conflate',
      resume: false,
      onLive: () => { this.#liveFrom = null; this.#joined = false; this.#fill(); },
      onEvent: (event) => this.#live(event),
      onSnapshot: (snapshot) => this.#live(snapshot),
      onGap: ({ reason }) => {
        if (reason === 'delayed') return;
        this.#stale ||= reason === 'reset';
        this.#liveFrom = null;
        this.#joined = false;
      },
    });
    return this;
  }

  stop() {
    this.#stopped = true;
    return this.#subscription?.unsubscribe();
  }

  /** All candles, oldest first. */
  get all() { return [...this.#candles.values()].sort((a, b) => a.time - b.time); }

  /** The candle that starts then, or `undefined`. */
  at(time) { return this.#candles.get(time); }

  get newest() {
    let newest;
    for (const candle of this.#candles.values()) if (!newest || candle.time > newest.time) newest = candle;
    return newest;
  }

  get joined() { return this.#joined; }

  /** Loads a page of older candles; yields whether there were any. */
  async more() {
    if (this.#filling || !this.#older || this.#stopped) return false;
    const { value: page, done } = await this.#older.next();
    if (done || this.#stopped) { this.#older = null; return false; }
    for (const row of page.rows) this.#put(row);
    this.#handlers.onCandles();
    return page.rows.length > 0;
  }

  #live(row) {
    const candle = this.#put(row);
    this.#liveFrom = Math.min(this.#liveFrom ?? Infinity, timeOf(row));
    if (!this.#joined && !this.#filling) this.#fill();
    else if (candle && !this.#stale) {
      if (this.#candles.size === 1) this.#handlers.onState(null);
      this.#handlers.onCandle(candle);
    }
  }

  #put(row) {
    const time = timeOf(row);
    const known = this.#candles.get(time);
    if (known && known.trades > row.trades) return null;
    const { open, high, low, close, volume, trades } = row;
    const candle = { time, open, high, low, close, volume, trades };
    this.#candles.set(time, candle);
    return candle;
  }

  #fill() {
    this.#filling ??= this.#join().catch((error) => this.#alone(error)).finally(() => { this.#filling = null; });
  }

  /** There is no database, or it does not answer: what comes live is what there is, until the next connection. */
  #alone(error) {
    if (this.#stopped) return;
    if (this.#stale) this.#forget();
    this.#stale = false;
    this.#joined = true;
    this.#handlers.onCandles();
    this.#handlers.onState(this.#candles.size ? null : `No history (${error.code ?? error.message}); candles show as trades come`);
  }

  /** Reads back until what is stored meets what was known before, and until it reaches what came live. */
  async #join() {
    this.#handlers.onState(this.#candles.size ? null : 'Loading');
    for (let retry = 0; retry < RETRIES && !this.#stopped; retry += 1) {
      const { rows, older } = await this.#read();
      if (this.#stopped) return;
      if (this.#stale && rows.length) { // numbered anew: the server's word replaces what was known
        this.#stale = false;
        this.#forget();
      }
      for (const row of rows) this.#put(row);
      if (older) this.#older = older;
      this.#handlers.onCandles();
      this.#handlers.onState(this.#candles.size ? null : 'No trade yet');
      const newest = rows.length ? timeOf(rows[0]) : -Infinity;
      if (this.#liveFrom === null) return; // the first candle that comes will ask again
      if (newest >= this.#liveFrom) { this.#joined = true; return; }
      await this.#wait(RETRY_MS);
    }
  }

  /** Drops what did not come live. */
  #forget() {
    const began = this.#liveFrom ?? Infinity;
    for (const time of this.#candles.keys()) if (time < began) this.#candles.delete(time);
  }

  async #read() {
    let before = -Infinity; // the newest candle that is surely whole: the one before the last known
    for (const { time } of this.#candles.values()) if (time > before && time < (this.#liveFrom ?? Infinity)) before = time;
    const pages = this.#client.history(`market/${this.#symbol}`, { series: this.#period, newestFirst: true, limit: PAGE });
    const rows = [];
    let done = false;
    for (let count = 0; count < PAGES && !done; count += 1) {
      const page = await pages.next();
      if (page.done) return { rows, older: null };
      rows.push(...page.value.rows);
      done = this.#stale || before === -Infinity || page.value.rows.length === 0 || timeOf(page.value.rows.at(-1)) <= before;
    }
    if (!done) this.#forget(); // away for so long that the rest is loaded when it is looked at
    return { rows, older: this.#older && done && before !== -Infinity ? null : pages };
  }
}

/** When a candle starts, in seconds since 1970. */
export function timeOf(row) { return Number(row.start_ns.slice(0, -9)); }
