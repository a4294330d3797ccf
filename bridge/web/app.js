// The page: one client, the instruments that it feeds, and what shows them, drawn once a frame.

import { Client } from './tickring.js';
import { Instrument } from './market.js';
import { CandleFeed } from './candles.js';
import { TradeFeed } from './trades.js';
import { WatchList, short } from './watchlist.js';
import { Tape } from './tape.js';
import { Chart } from './chart.js';
import { change, changePercent, direction, grouped, padded, places } from './decimal.js';

const PERIODS = ['1s', '1m', '1h', '1d'];
/** A choice is acted on when no other follows at once, as with a held key. */
const CHOICE_MS = 90;
const FIGURES_MS = 500;
const $ = (id) => document.getElementById(id);
const narrow = matchMedia('(max-width: 819px)');

const address = new URL('ws', location.href);
address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
const client = new Client(address, { name: 'page', backoff: { attempts: 60 } });

const market = new Map();
const tape = new Tape({ body: $('tape'), empty: $('tape-empty'), count: $('tape-count') });
const chart = new Chart($('chart'), $('legend'));
const watch = new WatchList({ grid: $('watch-grid'), body: $('watch-body'), empty: $('watch-empty'), count: $('count') }, (symbol) => {
  choose(symbol);
  if (narrow.matches) showPane('chart'); // where one pane shows at a time, a choice is a wish to see it
});

let chosen = null;
let period = '1m';
let trades = null;
let candles = null;
let days = null;
let choice = null;
const latencies = [];

// The watch list

/** Every instrument's state; after a lost connection the state as it then is. */
function watchSymbol(one) {
  const now = () => performance.now();
  const subscription = client.subscribe(`market/${one.symbol}`, {
    policy: 'conflate',
    resume: false,
    onSnapshot: (snapshot) => one.snapshot(snapshot, now()),
    onEvent: (event) => {
      late(event);
      if (!one.event(event, now()) || subscription.isLeaving) return;
      subscription.unsubscribe();
      one.subscription = watchSymbol(one);
    },
  });
  return subscription;
}

function late(event) {
  const age = client.ageMs(event.ts_node_ns);
  if (age !== null) latencies.push(age);
}

/** What the bridge knows of this page. */
async function config() {
  const named = new URLSearchParams(location.search).get('symbols');
  if (named) return { symbols: named.split(',').filter(Boolean) };
  const response = await fetch('config.json', { cache: 'no-store' });
  if (!response.ok) throw new Error(`config.json: ${response.status}`);
  return response.json();
}

// The chosen instrument

function choose(symbol) {
  if (!market.has(symbol)) return;
  watch.chosen = symbol;
  clearTimeout(choice);
  choice = setTimeout(() => focus(symbol), CHOICE_MS);
}

/**
 * The chosen instrument's topic is held with the policy `resume`, so that no trade is missed; all others
 * are conflated. The hand-over is by seq: what UNSUBSCRIBED said is where the next subscription begins.
 */
async function focus(symbol) {
  if (symbol === chosen) return;
  const before = market.get(chosen);
  const one = market.get(symbol);
  chosen = symbol;
  trades?.stop();
  if (before) before.subscription = watchSymbol(before);
  $('symbol').textContent = symbol;
  document.title = `${symbol} · tickring`;
  history.replaceState(null, '', `${location.pathname}${location.search}#${encodeURIComponent(symbol)}`);
  tape.trades = [];
  if (candles !== days) candles?.stop();
  days?.stop();
  days = candles = null;
  days = candleFeed('1d', (feed) => { if (feed.newest) one.day(feed.newest); }).start();
  showCandles();
  header.version = -1;
  const { lastSeq } = await one.subscription.unsubscribe();
  if (chosen !== symbol) return; // another was chosen meanwhile, which gave this one back to the watch list
  trades = new TradeFeed(client, symbol, {
    onEvent: (event) => { one.event(event, performance.now()); late(event); },
    onSnapshot: (snapshot) => one.snapshot(snapshot, performance.now()),
    onTrade: (trade) => tape.add(trade),
    onTrades: () => { tape.trades = feed.all; },
  });
  const feed = trades;
  one.subscription = feed;
  await feed.start(lastSeq);
}

function showCandles() {
  if (candles !== days) candles?.stop();
  candles = period === '1d' ? days : candleFeed(period);
  chart.show(candles, period);
  if (candles !== days) candles.start();
  else note(null);
}

/** `changed` is called with each change, whether the candles are those that show or not. */
function candleFeed(of, changed = () => {}) {
  const feed = new CandleFeed(client, chosen, of, {
    onCandle: (candle) => { changed(feed); if (feed === candles) chart.update(candle); },
    onCandles: () => { changed(feed); if (feed === candles) chart.reload(); },
    onState: (text) => { if (feed === candles) note(text); },
  });
  return feed;
}

function note(text) {
  $('chart-note').hidden = !text;
  $('chart-note').textContent = text ?? '';
}

/** A choice is remembered. */
function choosePeriod(to) {
  store('period', to);
  setPeriod(to);
}

function setPeriod(to) {
  period = to;
  for (const button of document.querySelectorAll('[data-period]')) {
    const on = button.dataset.period === to;
    button.setAttribute('aria-checked', String(on));
    button.tabIndex = on ? 0 : -1;
  }
  if (chosen) showCandles();
}

const header = {
  version: -1,
  draw() {
    const one = market.get(chosen);
    if (!one || one.version === this.version) return;
    this.version = one.version;
    put('last', one.last === null ? '–' : grouped(one.last));
    const known = one.last !== null && one.open !== null;
    put('change-by', known ? change(one.open, one.last) : '');
    put('change-percent', known ? changePercent(one.open, one.last) : '');
    const moved = known ? direction(one.open, one.last) : 0;
    $('change').className = `delta ${moved > 0 ? 'up' : moved < 0 ? 'down' : 'muted'}`;
    // The day's figures come without the decimals of their source.
    const decimals = places(one.last ?? '');
    for (const name of ['bid', 'ask', 'open', 'high', 'low']) put(name, one[name] === null ? '–' : grouped(padded(one[name], decimals)));
    put('volume', one.volumeText === null ? '–' : grouped(one.volumeText));
  },
};

// Connection and figures

const WORDS = { connecting: 'Connecting', open: 'Live', waiting: 'Reconnecting', closed: 'Disconnected' };
let spoken = null;

client.on('status', ({ state, upstream, reason, retryInMs }) => {
  const away = state === 'open' && upstream === 'down';
  const text = away ? 'Server away' : WORDS[state];
  $('link').dataset.state = away ? 'waiting' : state;
  $('link-text').textContent = text;
  $('link').title = reason ? `${reason}${retryInMs ? `, again in ${Math.round(retryInMs)} ms` : ''}` : '';
  $('retry').hidden = state !== 'closed';
  if (text !== spoken && state !== 'connecting') { // once a change, not once an attempt
    if (spoken !== null) say(text);
    spoken = text;
  }
});
client.on('protocol', (error) => console.error(error.message));

let counted = 0;
let frames = 0;
let figuresAt = performance.now();

function figures(now) {
  const seconds = (now - figuresAt) / 1000;
  if (seconds * 1000 < FIGURES_MS) return;
  const { messages } = client.counts;
  put('rate', `${short(String(Math.round((messages - counted) / seconds)))}/s`);
  put('frames', `${Math.round(frames / seconds)}/s`);
  if (latencies.length) {
    latencies.sort((a, b) => a - b);
    const middle = Math.max(0, latencies[latencies.length >> 1]);
    put('latency', middle < 10 ? `${middle.toFixed(1)} ms` : `${Math.round(middle)} ms`);
    latencies.length = 0;
  }
  counted = messages;
  frames = 0;
  figuresAt = now;
  label();
}

/** The chart in words, for those who do not see it. */
function label() {
  const candle = candles?.newest;
  const one = market.get(chosen);
  if (!candle || !one) return;
  const text = `${chosen}, candles of ${period.replace(/(\d)(\w)/, '$1 $2')}. Newest: open ${candle.open}, high ${candle.high}, low ${candle.low}, close ${candle.close}, volume ${candle.volume}.`;
  if ($('chart').ariaLabel !== text) $('chart').ariaLabel = text;
}

function frame(now) {
  frames += 1;
  watch.draw(now);
  header.draw();
  tape.draw(now);
  chart.draw();
  figures(now);
  requestAnimationFrame(frame);
}

// Keys, buttons, theme

function say(text) { $('announce').textContent = text; }

function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function stored(name) { try { return localStorage.getItem(`tickring.${name}`); } catch { return null; } }
function store(name, value) { try { localStorage.setItem(`tickring.${name}`, value); } catch { /* lasts as long as the page */ } }

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  store('theme', theme ?? '');
  restyle();
}

function nextTheme() {
  const themes = [undefined, 'light', 'dark'];
  const theme = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
  setTheme(theme);
  say(theme ? `${theme} theme` : 'theme of the system');
}

function restyle() {
  watch.restyle();
  chart.restyle();
}

function showPane(name) {
  document.body.dataset.pane = name;
  for (const button of document.querySelectorAll('.panes button')) {
    if (button.dataset.pane === name) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
  }
}

const KEYS = {
  '/': () => { showPane('watch'); $('search').focus(); },
  j: () => choose(watch.neighbour(1)),
  k: () => choose(watch.neighbour(-1)),
  t: nextTheme,
  a: () => { const one = market.get(chosen); say(`${chosen}: ${one?.last ?? 'no trade yet'}, ${$('change-percent').textContent}`); },
  '?': () => $('keys').showModal(),
};
PERIODS.forEach((one, index) => { KEYS[index + 1] = () => choosePeriod(one); });

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, dialog')) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

$('search').addEventListener('input', ({ target }) => { watch.filter = target.value; });
$('search').addEventListener('keydown', (event) => {
  if (event.key === 'Escape') { event.target.value = ''; watch.filter = ''; $('watch-grid').focus(); }
  if (event.key === 'Enter' && watch.first) { choose(watch.first); $('watch-grid').focus(); }
});
$('theme').addEventListener('click', nextTheme);
$('help').addEventListener('click', () => $('keys').showModal());
$('retry').addEventListener('click', () => client.connect());
for (const button of document.querySelectorAll('.panes button')) button.addEventListener('click', () => showPane(button.dataset.pane));
const periods = document.querySelector('.periods');
periods.addEventListener('click', ({ target }) => { if (target.dataset.period) choosePeriod(target.dataset.period); });
periods.addEventListener('keydown', (event) => {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  choosePeriod(PERIODS[(PERIODS.indexOf(period) + by + PERIODS.length) % PERIODS.length]);
  periods.querySelector('[aria-checked="true"]').focus();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', restyle);
matchMedia('(max-width: 1339px)').addEventListener('change', restyle);
addEventListener('online', () => { if (client.status.state === 'waiting') client.connect(); });

// The beginning

async function start() {
  requestAnimationFrame(frame);
  let names;
  try {
    const told = await config();
    names = told.symbols;
    setPeriod([stored('period'), told.period].find((one) => PERIODS.includes(one)) ?? period);
  } catch (error) {
    note(`The list of instruments did not come (${error.message}). Load the page again.`);
    return;
  }
  names.forEach((symbol, index) => market.set(symbol, new Instrument(symbol, index)));
  watch.instruments = [...market.values()];
  client.connect();
  for (const one of market.values()) one.subscription = watchSymbol(one);
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = market.has(wanted) ? wanted : names[0];
  if (first) { watch.chosen = first; focus(first); }
  else note('No instruments: start the bridge with --symbols, or open this page with ?symbols=A,B');
}

/** For tests, and for the curious: what the page holds. */
globalThis.tickring = { client, market, chart, get candles() { return candles; }, get trades() { return trades; } };
start();
