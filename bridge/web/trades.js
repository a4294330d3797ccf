// The trades of one instrument: what the database has, joined by seq with what comes live.

const PAGE = 500;
const PAGES = 4;
const RETRY_MS = 300;
const RETRIES = 40;
/** The most trades kept; the newest. */
export const KEPT = 250;

/**
 * First the newest stored trades are read, then the topic is subscribed from the seq behind them, so that
 * the server's memory closes what the database has not stored yet. When a gap is told after all, the
 * database is asked for what was skipped, until it has it.
 */
export class TradeFeed {
  #client; #symbol; #handlers; #wait;
  #trades = new Map();
  #subscription = null;
  #stopped = false;
  /** The newest seq that was stored or came. */
  #newest = 0;

  /** `handlers`: `onTrade(trade)` for a new one, `onTrades()` for many, and `onEvent`, `onSnapshot` for all that comes. */
  constructor(client, symbol, handlers, wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))) {
    this.#client = client;
    this.#symbol = symbol;
    this.#handlers = handlers;
    this.#wait = wait;
  }

  /**
   * `known`: the newest seq of the topic that the caller's state contains, so that it misses nothing; 0: it has
   * no state, and gets a snapshot.
   */
  async start(known = 0) {
    await this.#read(1).catch(() => {});
    if (this.#stopped) return;
    this.#subscription = this.#client.subscribe(this.#topic, {
      policy: 'resume',
      from: known ? Math.min(known, this.#newest || known) + 1 : 0,
      onLive: ({ nextSeq }) => this.#skipped(nextSeq - 1),
      onEvent: (event) => {
        this.#handlers.onEvent(event);
        this.#newest = Math.max(this.#newest, event.seq);
        if (event.kind === 'trade' && !this.#trades.has(event.seq)) this.#add(event);
      },
      onSnapshot: (snapshot) => this.#handlers.onSnapshot(snapshot),
      onGap: ({ reason, lastSeq }) => {
        if (reason === 'delayed') return;
        if (reason === 'reset') { // other events may bear the numbers that are shown
          this.#newest = 0;
          this.#trades.clear();
          this.#handlers.onTrades();
        }
        this.#skipped(lastSeq);
      },
    });
  }

  stop() {
    this.#stopped = true;
    return this.#subscription?.unsubscribe() ?? Promise.resolve({ lastSeq: 0 });
  }

  get #topic() { return `market/${this.#symbol}`; }

  /** The trades, newest first. */
  get all() { return [...this.#trades.values()].sort((a, b) => b.seq - a.seq).slice(0, KEPT); }

  #add(event) {
    this.#trades.set(event.seq, event);
    this.#handlers.onTrade(event);
    this.#trim();
  }

  #trim() {
    if (this.#trades.size <= 2 * KEPT) return;
    const oldest = [...this.#trades.keys()].sort((a, b) => b - a).slice(KEPT);
    for (const seq of oldest) this.#trades.delete(seq);
  }

  /** The live stream goes on behind `last`: what is not here up to there is asked for, until it is stored. */
  #skipped(last) {
    if (last <= this.#newest) return;
    const first = this.#newest + 1;
    this.#newest = last;
    this.#fill(first, last).catch(() => {}); // no database: what came is what there is
  }

  async #fill(first, last) {
    for (let retry = 0; retry < RETRIES && !this.#stopped; retry += 1) {
      if (await this.#read(first) >= last) return;
      await this.#wait(RETRY_MS);
    }
  }

  /** Reads back to the seq `first`, or as far as the list is long; yields the newest seq that is stored. */
  async #read(first) {
    let [newest, oldest, trades, pages] = [0, Infinity, 0, 0];
    for await (const { rows } of this.#client.history(this.#topic, { series: 'ticks', newestFirst: true, limit: PAGE })) {
      if (this.#stopped) return newest;
      for (const row of rows) {
        newest = Math.max(newest, row.seq);
        oldest = Math.min(oldest, row.seq);
        if (row.kind !== 'trade') continue;
        trades += 1;
        if (!this.#trades.has(row.seq)) this.#trades.set(row.seq, row);
      }
      pages += 1;
      if (oldest <= first || trades >= KEPT || pages >= PAGES) break;
    }
    // Away for so long that the hole is not closed: what lies behind it goes.
    if (newest && oldest > first) for (const seq of this.#trades.keys()) if (seq < oldest) this.#trades.delete(seq);
    this.#newest = Math.max(this.#newest, newest);
    this.#trim();
    this.#handlers.onTrades();
    return newest;
  }
}
