import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Instrument, SPARK_POINTS } from '../market.js';

const DAY = Date.UTC(2024, 7, 8);
const ns = (ms) => `${ms}000000`;
const snapshot = {
  seq: 7, ts_trade_ns: ns(DAY), ts_quote_ns: ns(DAY), price: '10.50', qty: '2', side: 'buy', bid: '10.40', bid_qty: '1', ask: '10.60', ask_qty: '1',
  day: '2024-08-08', open: '10.00', high: '11.00', low: '9.50', volume: '100.5', trades: 12,
};
const trade = (seq, price, qty = '1', at = DAY + 1000) => ({ seq, kind: 'trade', price, qty, side: 'sell', ts_event_ns: ns(at) });

function known() {
  const one = new Instrument('A', 0);
  one.snapshot(snapshot, 0);
  return one;
}

test('a snapshot is the state, trades and quotes carry it on', () => {
  const one = known();
  one.event(trade(8, '11.25', '0.5'), 0);
  one.event({ seq: 9, kind: 'quote', bid: '11.20', ask: '11.30', ts_event_ns: ns(DAY + 1) }, 0);
  assert.deepEqual([one.last, one.open, one.high, one.low, one.volumeText, one.bid, one.ask, one.moved], ['11.25', '10.00', '11.25', '9.50', '101.0', '11.20', '11.30', 1]);
});

test('what the snapshot contains changes nothing when it comes again', () => {
  const one = known();
  one.event(trade(7, '99'), 0);
  assert.equal(one.last, '10.50');
  one.event(trade(8, '10.50'), 0);
  one.event(trade(8, '10.50'), 0);
  assert.equal(one.volumeText, '101.5');
});

test('when a day may have begun anew, a snapshot is to be asked for, once', () => {
  const one = known();
  assert.equal(one.event(trade(8, '12.00', '3', DAY + 29 * 60_000), 0), false);
  assert.equal(one.event(trade(9, '12.00', '3', DAY + 30 * 60_000), 0), true);
  assert.equal(one.event(trade(10, '12.00', '3', DAY + 31 * 60_000), 0), false);
  one.day({ open: '12.00', high: '12.50', low: '11.75', volume: '9' });
  assert.deepEqual([one.open, one.high, one.low, one.volumeText], ['12.00', '12.50', '11.75', '9.0']);
});

test('a late trade counts, but is not the last; nor is a late quote', () => {
  const one = known();
  one.event(trade(8, '12.00', '1', DAY + 2000), 0);
  one.event(trade(9, '13.00', '1', DAY + 1999), 0);
  one.event({ seq: 10, kind: 'quote', bid: '1', ask: '2', ts_event_ns: ns(DAY - 1) }, 0);
  assert.deepEqual([one.last, one.high, one.volumeText, one.bid], ['12.00', '13.00', '102.5', '10.40']);
});

test('an instrument without a trade has quotes alone', () => {
  const one = new Instrument('A', 0);
  one.snapshot({ seq: 1, ts_quote_ns: ns(DAY), bid: '1', bid_qty: '1', ask: '2', ask_qty: '1' }, 0);
  assert.deepEqual([one.bid, one.last, one.volumeText], ['1', null, null]);
});

test('the sparkline keeps a point for each span of time, the newest ones', () => {
  const one = known();
  for (let i = 0; i < 3 * SPARK_POINTS; i += 1) one.event(trade(8 + i, String(i + 1), '1', DAY + 1000 + i), 1000 * (i + 1));
  assert.equal(one.sparkLength, SPARK_POINTS);
  assert.equal(one.spark[SPARK_POINTS - 1], 3 * SPARK_POINTS);
  one.event(trade(1000, '5', '1', DAY + 2000), 1000 * 3 * SPARK_POINTS + 1); // same span: the point moves
  assert.equal(one.spark[SPARK_POINTS - 1], 5);
  assert.equal(one.spark[SPARK_POINTS - 2], 3 * SPARK_POINTS - 1);
});
