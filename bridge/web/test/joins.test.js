// History and live, joined: no candle or trade is missing or there twice, whatever comes first.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { CandleFeed } from '../candles.js';
import { TradeFeed, KEPT } from '../trades.js';

/** A client whose database and live streams a test plays. */
class Played {
  stored = [];
  reads = 0;
  subscriptions = [];

  subscribe(topic, handlers) {
    const subscription = { topic, ...handlers, unsubscribe: async () => ({ lastSeq: 0 }) };
    this.subscriptions.push(subscription);
    return subscription;
  }

  get live() { return this.subscriptions.at(-1); }

  /** Pages of what is stored at the moment of each read, newest first. */
  async* history(topic, { limit }) {
    let taken = 0;
    for (;;) {
      this.reads += 1;
      const rows = [...this.stored].reverse().slice(taken, taken + limit);
      taken += rows.length;
      const more = taken < this.stored.length;
      yield { rows, more };
      if (!more) return;
    }
  }
}

const turns = async () => { for (let i = 0; i < 200; i += 1) await Promise.resolve(); };
const candle = (start, trades = 1, close = '1') => ({ start_ns: `${start}000000000`, open: '1', high: '2', low: '0.5', close, volume: '3', trades });
const trade = (seq) => ({ seq, kind: 'trade', price: '1', qty: '1', side: 'buy', ts_event_ns: `${seq}000000` });
const quote = (seq) => ({ seq, kind: 'quote', bid: '1', ask: '2' });

function candles(client) {
  const waits = [];
  const told = [];
  const feed = new CandleFeed(client, 'A', '1s', { onCandle: (one) => told.push(one), onCandles: () => told.push('all'), onState: () => {} }, () => new Promise((resolve) => waits.push(resolve)));
  feed.start();
  const pass = async () => { waits.splice(0).forEach((resolve) => resolve()); await turns(); };
  return { feed, told, pass, waiting: () => waits.length };
}
const times = (feed) => feed.all.map(({ time }) => time);

test('candles: what is stored, then what comes live', async () => {
  const client = new Played();
  client.stored = [candle(1), candle(2), candle(3)];
  const { feed } = candles(client);
  client.live.onLive({});
  client.live.onSnapshot(candle(3, 2, '9'));
  await turns();
  client.live.onEvent(candle(4));
  assert.deepEqual(times(feed), [1, 2, 3, 4]);
  assert.equal(feed.at(3).close, '9', 'the live state of the newest candle has more trades than the stored one');
  assert.ok(feed.joined);
});

test('candles: a database that is behind is asked again until it reaches what came live', async () => {
  const client = new Played();
  client.stored = [candle(1), candle(2)];
  const { feed, pass, waiting } = candles(client);
  client.live.onLive({});
  client.live.onSnapshot(candle(5));
  await turns();
  assert.deepEqual([times(feed), feed.joined, waiting()], [[1, 2, 5], false, 1]);
  client.live.onEvent(candle(6));
  client.stored = [candle(1), candle(2, 4, '7'), candle(3), candle(4), candle(5)];
  await pass();
  assert.deepEqual([times(feed), feed.joined], [[1, 2, 3, 4, 5, 6], true]);
  assert.equal(feed.at(2).close, '7', 'the newest stored candle was not whole yet');
});

test('candles: after a lost connection what was missed is read, however many pages it takes', async () => {
  const client = new Played();
  client.stored = [candle(1), candle(2)];
  const { feed } = candles(client);
  client.live.onLive({});
  client.live.onSnapshot(candle(2));
  await turns();
  client.stored = Array.from({ length: 1300 }, (_, index) => candle(index + 1, 2));
  client.live.onLive({});
  client.live.onSnapshot(candle(1300, 2));
  await turns();
  assert.deepEqual(times(feed), client.stored.map((_, index) => index + 1));
});

test('candles: when the hole is too long to read, what lies behind it is loaded when it is looked at', async () => {
  const client = new Played();
  client.stored = [candle(1), candle(2)];
  const { feed } = candles(client);
  client.live.onLive({});
  client.live.onSnapshot(candle(2));
  await turns();
  client.stored = Array.from({ length: 9000 }, (_, index) => candle(index + 1, 2));
  client.live.onLive({});
  client.live.onSnapshot(candle(9000, 2));
  for (let i = 0; i < 20; i += 1) await turns();
  assert.deepEqual(times(feed), Array.from({ length: 4000 }, (_, index) => index + 5001));
  assert.equal(await feed.more(), true);
  assert.equal(times(feed)[0], 4501);
});

test('candles: an older state changes nothing, a late trade changes an older candle', async () => {
  const client = new Played();
  client.stored = [candle(1, 5), candle(2, 5)];
  const { feed, told } = candles(client);
  client.live.onLive({});
  client.live.onSnapshot(candle(2, 5));
  await turns();
  told.length = 0;
  client.live.onEvent(candle(1, 4, '3'));
  assert.deepEqual(told, []);
  client.live.onEvent(candle(1, 6, '3'));
  assert.equal(feed.at(1).close, '3');
  assert.equal(told.length, 1);
});

test('candles: after a reset the server has the last word', async () => {
  const client = new Played();
  client.stored = [candle(1, 5), candle(2, 5)];
  const { feed } = candles(client);
  client.live.onLive({});
  client.live.onSnapshot(candle(2, 5));
  await turns();
  client.stored = [candle(1, 5), candle(2, 3)]; // the last trades were lost with the server
  client.live.onGap({ reason: 'reset', firstSeq: 9, lastSeq: 1 });
  client.live.onSnapshot(candle(3, 1));
  client.stored.push(candle(3, 1));
  await turns();
  assert.deepEqual(feed.all.map((one) => [one.time, one.trades]), [[1, 5], [2, 3], [3, 1]]);
});

test('candles: without a database what comes live is drawn, and the database is not asked at each trade', async () => {
  const client = new Played();
  client.history = async function* none() { this.reads += 1; throw new Error('no_journal'); };
  const states = [];
  const feed = new CandleFeed(client, 'A', '1s', { onCandle: () => {}, onCandles: () => {}, onState: (text) => states.push(text) });
  feed.start();
  client.live.onLive({});
  await turns();
  assert.match(states.at(-1), /No history/);
  for (let start = 1; start <= 50; start += 1) { client.live.onEvent(candle(start)); await turns(); }
  assert.deepEqual([times(feed).length, client.reads, states.at(-1)], [50, 1, null]);
});

test('candles: older pages are read when they are asked for', async () => {
  const client = new Played();
  client.stored = Array.from({ length: 1100 }, (_, index) => candle(index + 1));
  const { feed } = candles(client);
  client.live.onLive({});
  await turns();
  assert.equal(feed.all.length, 500);
  assert.equal(await feed.more(), true);
  assert.equal(await feed.more(), true);
  assert.equal(await feed.more(), false);
  assert.deepEqual(times(feed), client.stored.map((_, index) => index + 1));
});

function trades(client) {
  const waits = [];
  const told = [];
  const feed = new TradeFeed(client, 'A', { onTrade: ({ seq }) => told.push(seq), onTrades: () => {}, onEvent: () => {}, onSnapshot: () => {} }, () => new Promise((resolve) => waits.push(resolve)));
  const pass = async () => { waits.splice(0).forEach((resolve) => resolve()); await turns(); };
  return { feed, told, pass };
}
const seqs = (feed) => feed.all.map(({ seq }) => seq);

test('trades: the stored ones, then from the seq behind them', async () => {
  const client = new Played();
  client.stored = [trade(1), quote(2), trade(3)];
  const { feed, told } = trades(client);
  await feed.start(9); // the caller's state is newer than what is stored
  assert.equal(client.live.from, 4);
  client.live.onLive({ nextSeq: 4 });
  for (const event of [quote(4), trade(5), trade(6)]) client.live.onEvent(event);
  assert.deepEqual([seqs(feed), told], [[6, 5, 3, 1], [5, 6]]);
});

test('trades: without a state of its own the caller gets a snapshot, and the hole before it is filled', async () => {
  const client = new Played();
  client.stored = [trade(1)];
  const { feed, pass } = trades(client);
  await feed.start(0);
  assert.equal(client.live.from, 0);
  client.live.onLive({ nextSeq: 4 });
  client.live.onEvent(trade(4));
  await turns();
  client.stored = [trade(1), trade(2)];
  await pass();
  client.stored = [trade(1), trade(2), trade(3), trade(4)];
  await pass();
  assert.deepEqual(seqs(feed), [4, 3, 2, 1]);
});

test('trades: what a gap skips is filled from the database, without a double', async () => {
  const client = new Played();
  const { feed, pass } = trades(client);
  await feed.start(0);
  client.live.onLive({ nextSeq: 1 });
  client.live.onEvent(trade(1));
  client.live.onGap({ reason: 'expired', firstSeq: 2, lastSeq: 5 });
  client.live.onEvent(trade(6));
  await turns();
  client.stored = [1, 2, 3, 4, 5, 6].map(trade);
  await pass();
  client.live.onEvent(trade(7));
  assert.deepEqual(seqs(feed), [7, 6, 5, 4, 3, 2, 1]);
});

test('trades: when a gap is too long to fill, what lies behind it goes, for a list with a hole lies', async () => {
  const client = new Played();
  const { feed } = trades(client);
  await feed.start(0);
  client.live.onLive({ nextSeq: 1 });
  for (let seq = 1; seq <= 20; seq += 1) client.live.onEvent(trade(seq));
  client.stored = Array.from({ length: 5000 }, (_, index) => (index % 50 ? quote(index + 1) : trade(index + 1)));
  client.live.onGap({ reason: 'expired', firstSeq: 21, lastSeq: 5000 });
  await turns();
  assert.deepEqual(seqs(feed), Array.from({ length: 40 }, (_, index) => 4951 - 50 * index));
});

test('trades: after a reset the database has the last word, for numbers may be given out twice', async () => {
  const client = new Played();
  const { feed, pass } = trades(client);
  await feed.start(0);
  client.live.onLive({ nextSeq: 1 });
  for (const seq of [1, 2, 3]) client.live.onEvent(trade(seq)); // 3 was lost with the server
  client.live.onGap({ reason: 'reset', firstSeq: 4, lastSeq: 2 });
  const other = { ...trade(3), price: '77' };
  client.live.onEvent(other);
  await turns(); // read in vain: nothing is stored yet
  client.stored = [trade(1), trade(2), other];
  await pass();
  assert.deepEqual(feed.all.map(({ seq, price }) => [seq, price]), [[3, '77'], [2, '1'], [1, '1']]);
});

test('trades: the list is bounded', async () => {
  const client = new Played();
  const { feed } = trades(client);
  await feed.start(0);
  client.live.onLive({ nextSeq: 1 });
  for (let seq = 1; seq <= 5 * KEPT; seq += 1) client.live.onEvent(trade(seq));
  assert.deepEqual(seqs(feed), Array.from({ length: KEPT }, (_, index) => 5 * KEPT - index));
});
