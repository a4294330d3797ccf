// The candlestick chart with volume, drawn by TradingView Lightweight Charts.

import { grouped, padded, places } from './decimal.js';
import { short } from './watchlist.js';

const { createChart, CandlestickSeries, HistogramSeries, CrosshairMode, LineStyle } = globalThis.LightweightCharts;
/** How many candles show at first. */
const IN_SIGHT = 90;
/** Older ones are loaded when fewer than these are left of the sight. */
const MARGIN = 30;

export class Chart {
  #element; #legend; #chart; #prices; #volumes;
  #feed = null;
  #changed = new Map();
  #reload = false;
  #fit = false;
  #newest = -Infinity;
  #count = 0;
  #decimals = 2;
  #hovered = null;
  #colours = {};
  #loadingOlder = false;

  constructor(element, legend) {
    this.#element = element;
    this.#legend = legend;
    this.#chart = createChart(element, {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, minimumWidth: 68 },
      timeScale: { borderVisible: false, timeVisible: true, secondsVisible: false, rightOffset: 4, minBarSpacing: 1.5 },
    });
    this.#prices = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#volumes = this.#chart.addSeries(HistogramSeries, { priceFormat: { type: 'custom', formatter: (value) => short(String(value)), minMove: 0.000001 }, lastValueVisible: false, priceLineVisible: false }, 1);
    const [main, below] = this.#chart.panes();
    main.setStretchFactor(4);
    below.setStretchFactor(1);
    this.#chart.subscribeCrosshairMove((move) => { this.#hovered = move.time ?? null; this.#tell(); });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => this.#lookedBack(range));
    this.restyle();
  }

  /** Shows another instrument or period. */
  show(feed, period) {
    this.#feed = feed;
    this.#reload = true;
    this.#fit = true;
    this.#chart.applyOptions({ timeScale: { timeVisible: period !== '1d', secondsVisible: period === '1s' } });
  }

  /** One candle changed. */
  update(candle) { this.#changed.set(candle.time, candle); }

  /** Many did. */
  reload() { this.#reload = true; }

  /** Draws what changed; once a frame. */
  draw() {
    const changed = [...this.#changed.values()].sort((a, b) => a.time - b.time);
    // A candle of before, which late trades changed or made: the library takes those with all others only.
    if (changed.length && changed[0].time < this.#newest) this.#reload = true;
    if (this.#reload) this.#load();
    else if (changed.length) changed.forEach((candle) => this.#one(candle));
    else return;
    this.#changed.clear();
    this.#tell();
  }

  /** Colours come from the style sheet. */
  restyle() {
    const probe = document.createElement('i');
    document.body.append(probe);
    const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    const [up, down, line, muted, panel, text] = ['--up', '--down', '--line', '--muted', '--panel', '--text'].map(colour);
    probe.remove();
    this.#colours = { up: faint(up), down: faint(down) };
    this.#chart.applyOptions({
      layout: { background: { color: panel }, textColor: muted, fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 11, panes: { separatorColor: line, separatorHoverColor: line, enableResize: false } },
      grid: { vertLines: { color: line, style: LineStyle.Solid }, horzLines: { color: line, style: LineStyle.Solid } },
      crosshair: { vertLine: { color: muted, labelBackgroundColor: text }, horzLine: { color: muted, labelBackgroundColor: text } },
    });
    this.#prices.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.#reload = this.#feed !== null;
  }

  /** What is drawn, as the library has it; for tests. */
  get drawn() { return this.#prices.data(); }

  #load() {
    this.#reload = false;
    const all = this.#feed?.all ?? [];
    this.#format(all);
    this.#prices.setData(all.map(bar));
    this.#volumes.setData(all.map((candle) => this.#volume(candle)));
    this.#newest = all.at(-1)?.time ?? -Infinity;
    this.#count = all.length;
    if (this.#fit && all.length) {
      this.#fit = false;
      this.#chart.priceScale('right').applyOptions({ autoScale: true });
      this.#chart.timeScale().setVisibleLogicalRange({ from: all.length - IN_SIGHT, to: all.length + 3 });
    }
  }

  #one(candle) {
    this.#prices.update(bar(candle));
    this.#volumes.update(this.#volume(candle));
    if (candle.time > this.#newest) { this.#newest = candle.time; this.#count += 1; }
  }

  /** As many decimals as the prices have. */
  #format(all) {
    let decimals = 0;
    for (const { open, high, low, close } of all.slice(-100)) decimals = Math.max(decimals, ...[open, high, low, close].map(places));
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    this.#prices.applyOptions({ priceFormat: { type: 'price', precision: decimals, minMove: 1 / 10 ** decimals } });
  }

  #volume(candle) {
    const up = Number(candle.close) >= Number(candle.open);
    return { time: candle.time, value: Number(candle.volume), color: up ? this.#colours.up : this.#colours.down };
  }

  #lookedBack(range) {
    if (!range || range.from > MARGIN || !this.#feed || this.#loadingOlder || !this.#count) return;
    this.#loadingOlder = true;
    this.#feed.more().finally(() => { this.#loadingOlder = false; });
  }

  /** The figures of the candle under the cross hair, or of the newest. */
  #tell() {
    const candle = this.#feed?.at(this.#hovered) ?? this.#feed?.newest;
    if (!candle) { this.#legend.replaceChildren(); return; }
    const tone = Number(candle.close) >= Number(candle.open) ? 'up' : 'down';
    const parts = [['O', candle.open], ['H', candle.high], ['L', candle.low], ['C', candle.close], ['V', candle.volume]];
    this.#legend.replaceChildren(...parts.map(([name, value]) => {
      const part = document.createElement('span');
      const figure = document.createElement('b');
      figure.textContent = grouped(name === 'V' ? value : padded(value, this.#decimals));
      if (name !== 'V') figure.className = tone;
      part.append(`${name} `, figure);
      return part;
    }));
    this.#element.dataset.newest = candle.time;
  }
}

function bar({ time, open, high, low, close }) {
  return { time, open: Number(open), high: Number(high), low: Number(low), close: Number(close) };
}

function faint(colour) { return colour.replace(/^rgb\((.*)\)$/, 'rgba($1, 0.45)'); }
