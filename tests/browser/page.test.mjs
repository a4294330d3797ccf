// The market page in a headless Chromium, against a real server, bridge and feed.
//
//   node --test tests/browser/page.test.mjs
//
// TICKRING_BIN: where the programs are (target/release); SCREENSHOTS: a folder for pictures of the page.

import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Chromium } from './chromium.mjs';
import { Market, SYMBOLS, micros } from './market.mjs';
import { System, pause } from './system.mjs';

const MINUTE = 60_000;
const market = new Market(20_241);
let system;
let browser;
let page;

before(async () => {
  system = await System.create();
  await system.startServer();
  await system.startBridge(SYMBOLS);
  const now = Date.now();
  await system.replay(market.make(now - 210 * MINUTE, now - 1000, 1500));
  browser = await Chromium.start();
  page = await browser.page({ width: 1440, height: 900, scheme: 'dark' });
});

after(async () => {
  await browser?.stop();
  await system?.stop();
});

/** The page anew, with that instrument chosen. */
async function begin(name) {
  await page.goto('about:blank');
  await page.goto(`${system.url}#${name}`);
  await page.until('the page is live', () => document.getElementById('link').dataset.state === 'open' && document.querySelector('#tape tr'));
}

/** Publishes for so many seconds, as it would happen. */
function live(seconds, perSecond = 20, options = {}) {
  const now = Date.now() + 200;
  return system.replay(market.make(now, now + 1000 * seconds, Math.round(perSecond * seconds)), { speed: '1', ...options });
}

/** What the page shows of all instruments in sight, without the commas of its thousands. */
const rows = () => page.run(() => {
  const text = (row, name) => row.querySelector(`.c-${name}`).textContent.replaceAll(',', '');
  return Object.fromEntries([...document.querySelectorAll('.row.body:not([hidden])')].map((row) => [row.dataset.symbol, { last: text(row, 'last'), bid: text(row, 'bid'), ask: text(row, 'ask') }]));
});

const tape = () => page.run(() => [...document.querySelectorAll('#tape tr')].map((row) => {
  const [time, price, qty, side] = [...row.cells].map(({ textContent }) => textContent.replaceAll(',', ''));
  return { seq: Number(row.dataset.seq), time, price, qty, side: side.toLowerCase() };
}));

/** The candles of the feed, and times and closes as the library has drawn them. */
const candles = () => page.run(() => ({ all: tickring.candles.all, drawn: tickring.chart.drawn.map(({ time, close }) => [time, close]) }));

const shown = (id) => page.run((one) => document.getElementById(one).textContent.replaceAll(',', ''), id);

async function settled() {
  await page.until('every instrument shows its last price', (expected) => expected.every(([symbol, last, bid]) => {
    const one = tickring.market.get(symbol);
    return one.last === last && one.bid === bid;
  }), SYMBOLS.map((name) => [name, market.last(name, 'trade').price, market.last(name, 'quote').bid]));
  await page.run(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await tapeIsDrawn();
}

/** Time and sales are drawn less often than the rest. */
function tapeIsDrawn() {
  return page.until('time and sales show the newest trade', () => Number(document.querySelector('#tape tr').dataset.seq) === Number(tickring.trades.all[0].seq));
}

function expectedTape(name, length) {
  return market.trades(name).slice(0, length).map(({ seq, ns, price, qty, side }) => ({
    seq, time: new Date(Number(ns.slice(0, -6))).toISOString().slice(11, 23), price, qty, side,
  }));
}

/** All that the page shows of the chosen instrument is what was published, to the last decimal. */
async function chosenIsRight(name, period) {
  const trades = await tape();
  assert.ok(trades.length >= 100, `only ${trades.length} trades`);
  assert.deepEqual(trades, expectedTape(name, trades.length), 'time and sales: each trade once, in order');
  const expected = market.candles(name, period);
  await page.until('the chart is complete', (count) => tickring.candles.all.length >= count, Math.min(expected.length, 500));
  const { all, drawn } = await candles();
  const wanted = expected.slice(-all.length);
  const numbers = ({ time, open, high, low, close, volume, trades: count }) => [time, ...[open, high, low, close, volume].map((one) => String(typeof one === 'bigint' ? one : micros(one))), count].join(' ');
  assert.deepEqual(all.map(numbers), wanted.map(numbers), `the candles of ${period}: none is missing, doubled or wrong`);
  assert.deepEqual(drawn, all.map(({ time, close }) => [time, Number(close)]), 'and all of them are drawn');
}

test('prices shown are those published, to the last decimal', async () => {
  await begin('CORAL');
  const announced = await watchAnnouncements();
  await live(6);
  await settled();
  const seen = await rows();
  for (const name of SYMBOLS) {
    const [trade, quote] = [market.last(name, 'trade'), market.last(name, 'quote')];
    assert.deepEqual(seen[name], { last: trade.price, bid: quote.bid, ask: quote.ask }, name);
  }
  assert.equal(await shown('symbol'), 'CORAL');
  assert.equal(await shown('last'), market.last('CORAL', 'trade').price);
  await chosenIsRight('CORAL', '1m');
  assert.equal(await announced(), 0, 'ticks are not announced');
});

test('the period can be switched', async () => {
  for (const [key, period] of [['1', '1s'], ['3', '1h'], ['4', '1d'], ['2', '1m']]) {
    await page.press(key);
    await page.until(`candles of ${period}`, (one) => document.querySelector('[aria-checked="true"]').dataset.period === one && tickring.candles.joined, period);
    await settled();
    await chosenIsRight('CORAL', period);
  }
});

test('another instrument is chosen with the mouse and with keys, while prices move', async () => {
  const playing = live(5);
  await page.click('[data-symbol="EMBER"]');
  await page.until('EMBER is chosen', () => document.getElementById('symbol').textContent === 'EMBER' && document.querySelector('#tape tr'));
  await pause(500);
  await page.press('j');
  await page.press('j'); // passes one by
  await page.until('GROVE is chosen', () => document.getElementById('symbol').textContent === 'GROVE' && document.querySelector('#tape tr'));
  await playing;
  await settled();
  await chosenIsRight('GROVE', '1m');
  assert.deepEqual(Object.keys(await rows()).sort(), [...SYMBOLS].sort());
  await page.click('#search');
  for (const letter of 'ind') await page.press(letter);
  await page.until('one is found', () => document.getElementById('count').textContent === '1 of 12');
  await page.press('Enter');
  await page.until('INDIGO is chosen', () => document.getElementById('symbol').textContent === 'INDIGO' && document.querySelector('#tape tr'));
  await page.run(() => { const search = document.getElementById('search'); search.value = ''; search.dispatchEvent(new Event('input')); });
  await settled();
  await chosenIsRight('INDIGO', '1m');
});

test('an unsubscribed instrument never updates again', async () => {
  await begin('CORAL');
  const seqBefore = await page.run(async () => {
    const one = tickring.market.get('KELP');
    const { lastSeq } = await one.subscription.unsubscribe();
    globalThis.keptVersion = one.version;
    return lastSeq;
  });
  assert.equal(seqBefore, market.events.get('KELP').length);
  const before = (await rows()).KELP;
  await live(3);
  const [juno, lark] = ['JUNO', 'LARK'].map((name) => market.last(name, 'trade').price);
  await page.until('others go on', (a, b) => tickring.market.get('JUNO').last === a && tickring.market.get('LARK').last === b, juno, lark);
  assert.notEqual(market.last('KELP', 'trade').price, before.last, 'it was published');
  assert.deepEqual((await rows()).KELP, before);
  assert.equal(await page.run(() => tickring.market.get('KELP').version === keptVersion), true);
});

test('pictures', { skip: !process.env.SCREENSHOTS && 'SCREENSHOTS is not set' }, async () => {
  const folder = process.env.SCREENSHOTS;
  await mkdir(folder, { recursive: true });
  await begin('BIRCH');
  const playing = live(16, 30);
  await pause(9000);
  for (const scheme of ['dark', 'light']) {
    await page.look({ width: 1440, height: 900, scheme });
    await pause(800);
    await page.screenshot(join(folder, `wide-${scheme}.png`));
    await page.look({ width: 400, height: 800, scheme, scale: 2 });
    for (const pane of ['watch', 'chart']) {
      await page.click(`.panes [data-pane="${pane}"]`);
      await pause(700);
      await page.screenshot(join(folder, `narrow-${pane}-${scheme}.png`));
    }
  }
  await page.look({ width: 1440, height: 900, scheme: 'dark' });
  await playing;
});

test('the bridge is killed and started again: the page recovers, and nothing is missing or doubled', async () => {
  await begin('HAZEL');
  const playing = live(9);
  await pause(2000);
  await system.kill(system.bridge);
  await page.until('the page says so', () => document.getElementById('link-text').textContent === 'Reconnecting');
  await pause(2000);
  await system.startBridge(SYMBOLS);
  await page.until('the page is live again', () => document.getElementById('link-text').textContent === 'Live');
  await playing;
  await settled();
  await chosenIsRight('HAZEL', '1m');
  await page.press('1');
  await page.until('candles of a second', () => tickring.candles.joined);
  await chosenIsRight('HAZEL', '1s');
  await page.press('2');
});

test('the server is killed and started again while prices come: the page recovers, and shows what the server kept', async () => {
  await begin('HAZEL');
  await page.press('1');
  const playing = live(8, 20, { mayFail: true });
  await pause(2500);
  await system.kill(system.server);
  await playing;
  await page.until('the page says so', () => document.getElementById('link-text').textContent !== 'Live');
  await system.startServer();
  await page.until('the page is live again', () => document.getElementById('link-text').textContent === 'Live');
  await live(4);
  const last = market.last('HAZEL', 'trade');
  await page.until('prices go on', (price) => tickring.market.get('HAZEL').last === price, last.price);
  // A crash may lose the last moments, so what counts now is what the server has stored.
  const stored = await page.until('all is stored', async (ns) => {
    const read = async (series) => { for await (const { rows: page } of tickring.client.history('market/HAZEL', { series, newestFirst: true, limit: 500 })) return page; };
    const ticks = await read('ticks');
    const trades = ticks.filter(({ kind }) => kind === 'trade');
    return trades[0]?.ts_event_ns === ns && { trades, seconds: await read('1s') };
  }, last.ns);
  await tapeIsDrawn();
  const trades = await tape();
  assert.ok(trades.length >= 100);
  assert.deepEqual(trades.map(({ seq, price, qty }) => [seq, price, qty]).slice(0, stored.trades.length), stored.trades.slice(0, trades.length).map(({ seq, price, qty }) => [seq, price, qty]));
  assert.deepEqual(trades.map(({ seq }) => seq), [...new Set(trades.map(({ seq }) => seq))].sort((a, b) => b - a));
  const { all } = await candles();
  const numbers = ({ open, high, low, close, volume, trades: count }) => [open, high, low, close, volume, count].join(' ');
  assert.deepEqual(all.slice(-300).map(numbers), stored.seconds.slice(0, 300).reverse().map(numbers));
});

test('text has a contrast of 4.5 or more in both themes', async () => {
  for (const scheme of ['dark', 'light']) {
    await page.look({ width: 1440, height: 900, scheme });
    const poor = await page.run(() => {
      const probe = document.body.appendChild(document.createElement('i'));
      const luminance = (name) => {
        probe.style.color = `var(--${name})`;
        const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g).map((one) => { const c = one / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const pairs = [];
      for (const ground of ['paper', 'panel', 'raised', 'accent-soft']) for (const text of ['text', 'muted', 'up', 'down']) pairs.push([text, ground]);
      pairs.push(['text', 'up-flash'], ['text', 'down-flash']);
      return pairs.map(([text, ground]) => {
        const [a, b] = [luminance(text), luminance(ground)].sort((x, y) => y - x);
        return [`${text} on ${ground}`, (a + 0.05) / (b + 0.05)];
      }).filter(([, contrast]) => contrast < 4.5);
    });
    assert.deepEqual(poor, [], scheme);
  }
});

test('8,000 instruments at 5,000 updates a second', async (context) => {
  const names = synthetic(8000);
  await system.kill(system.bridge);
  await system.startBridge(names);
  await page.look({ width: 1440, height: 900, scheme: 'dark' });
  await page.goto('about:blank');
  await page.goto(system.url);
  await page.until('the page is live', () => document.getElementById('link').dataset.state === 'open' && tickring.market.size === 8000);
  const playing = system.feed(['synth', '--symbols', '8000', '--rate', '5000', '--seconds', '9']);
  await pause(2500);
  const before = await page.metrics();
  const seen = await page.run(async () => {
    const gaps = [];
    // Which cells were written, and how often between two frames.
    let [writes, batches, most] = [0, 0, 0];
    const observer = new MutationObserver((changes) => {
      const times = new Map();
      for (const { target } of changes) times.set(target, (times.get(target) ?? 0) + 1);
      writes += changes.length;
      batches += 1;
      most = Math.max(most, ...times.values());
    });
    observer.observe(document.getElementById('watch-body'), { subtree: true, characterData: true, childList: true });
    const messages = tickring.client.counts.messages;
    const from = performance.now();
    let last = from;
    await new Promise((done) => {
      const frame = (now) => { gaps.push(now - last); last = now; if (now < from + 5000) requestAnimationFrame(frame); else done(); };
      requestAnimationFrame(frame);
    });
    observer.disconnect();
    gaps.sort((a, b) => a - b);
    return { frames: gaps.length, seconds: (last - from) / 1000, p99: gaps[Math.floor(gaps.length * 0.99)], updates: tickring.client.counts.messages - messages, writes, batches, most, rows: document.querySelectorAll('.row.body').length };
  });
  const after = await page.metrics();
  await playing;
  const spent = (name) => after[name] - before[name];
  const perFrame = (name) => 1000 * spent(name) / seen.frames;
  const perUpdate = 1e6 * spent('ScriptDuration') / seen.updates;
  const figures = `8,000 instruments: ${(seen.frames / seen.seconds).toFixed(1)} frames/s, 99 % within ${seen.p99.toFixed(1)} ms, at ${(seen.updates / seen.seconds).toFixed(0)} updates/s; `
    + `CPU of a frame ${perFrame('TaskDuration').toFixed(1)} ms (script ${perFrame('ScriptDuration').toFixed(1)}, layout ${perFrame('LayoutDuration').toFixed(1)}), script of an update ${perUpdate.toFixed(0)} µs`;
  context.diagnostic(figures);
  console.log(figures);
  assert.ok(seen.updates > 1000, 'updates came');
  // What makes 60 frames possible, none of which depends on how busy the machine is:
  assert.ok(seen.rows < 60, 'only what is in sight exists');
  assert.ok(seen.writes > 0 && seen.most === 1 && seen.batches <= seen.frames + 2, `a cell is written at most once a frame: ${JSON.stringify(seen)}`);
  assert.ok(spent('LayoutCount') <= 2 * seen.frames, `layout once a frame, and once more for the chart: ${spent('LayoutCount')} for ${seen.frames} frames`);
  assert.ok(perUpdate < 250, `taking an update in costs little: ${perUpdate} µs of CPU`);
});

test('the demo prints an address: its prices move, its chart has a past and goes on', async () => {
  const { demo, url } = await system.startDemo();
  await page.goto(url);
  const past = await page.until('the chart has a past', () => document.querySelector('#tape tr') && tickring.candles.joined && tickring.chart.drawn.length > 60 && tickring.chart.drawn.length);
  await page.until('the chart goes on', (count) => tickring.chart.drawn.length > count + 1, past);
  await page.until('prices move', () => [...tickring.market.values()].filter(({ version }) => version > 5).length === 12);
  assert.equal(await system.interrupt(demo), 0);
});

test('nothing went wrong that nobody saw', () => assert.deepEqual(page.faults, []));

/** The names of the feed handler's made-up market. */
function synthetic(count) {
  const base = ['ACME', 'BOLT', 'CRUX', 'DYNE', 'ECHO', 'FLUX', 'GALE', 'HALO', 'IRIS', 'JADE', 'KITE', 'LYNX', 'MICA', 'NOVA', 'ONYX', 'PINE', 'QUAY', 'RUNE', 'SAGE', 'TIDE', 'UMBRA', 'VOLT', 'WREN', 'XENO', 'YARN', 'ZINC'];
  return Array.from({ length: count }, (_, index) => { const round = Math.floor(index / base.length); return `${base[index % base.length]}${round || ''}`; });
}

/** Counts what screen readers are told from here on. */
async function watchAnnouncements() {
  await page.run(() => {
    globalThis.announcements = 0;
    for (const region of document.querySelectorAll('[aria-live]')) new MutationObserver(() => { announcements += 1; }).observe(region, { childList: true, characterData: true, subtree: true });
  });
  return () => page.run(() => announcements);
}
