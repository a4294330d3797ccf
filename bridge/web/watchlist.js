// The watch list: a virtual grid. Only the rows in sight exist, and once a frame those whose instrument
// has changed are written anew, cell by cell. Eight thousand instruments cost what thirty cost.

import { changePercent, direction, grouped, narrowPercent } from './decimal.js';

const SPARE_ROWS = 4; // above and below what is in sight
const RESORT_MS = 1_000;
const FLASH_MS = 650;
/** A flash of the same direction is not begun anew sooner. */
const FLASH_AGAIN_MS = 250;
/** A row's sparkline, whose points stand for a second each, is drawn no more often. */
const SPARK_MS = 250;
const SPARK = { width: 60, height: 24 };

const SORTS = {
  symbol: null, // the order of the list
  last: (one) => (one.last === null ? null : Number(one.last)),
  change: (one) => (one.last === null || !one.open ? null : (Number(one.last) - Number(one.open)) / Math.abs(Number(one.open))),
  volume: (one) => (one.open === null ? null : Number(one.volume)),
};

export class WatchList {
  #grid; #body; #spacer; #empty; #count;
  #all = [];
  #shown = [];
  #rows = [];
  #rowHeight = 38;
  #filter = '';
  #sort = 'symbol';
  #descending = false;
  #sortedAt = 0;
  #cursor = 0;
  #chosen = null;
  #choose;
  #layoutDirty = true;
  #colours = null;
  #still = matchMedia('(prefers-reduced-motion: reduce)');

  /** `choose(symbol)` is called when a row is chosen. */
  constructor({ grid, body, empty, count }, choose) {
    this.#grid = grid;
    this.#body = body;
    this.#empty = empty;
    this.#count = count;
    this.#choose = choose;
    this.#spacer = document.createElement('div');
    this.#spacer.className = 'spacer';
    body.append(this.#spacer);
    body.addEventListener('scroll', () => { this.#layoutDirty = true; }, { passive: true });
    new ResizeObserver(() => { this.#layoutDirty = true; }).observe(body);
    body.addEventListener('click', (event) => this.#clicked(event));
    grid.addEventListener('keydown', (event) => this.#pressed(event));
    for (const button of grid.querySelectorAll('[data-sort]')) {
      button.addEventListener('click', () => this.#sortBy(button.dataset.sort));
    }
    this.restyle();
  }

  set instruments(all) {
    this.#all = all;
    this.#arrange();
  }

  set filter(text) {
    this.#filter = text.trim().toUpperCase();
    this.#cursor = 0;
    this.#body.scrollTop = 0;
    this.#arrange();
  }

  set chosen(symbol) {
    this.#chosen = symbol;
    const place = this.#shown.findIndex((one) => one.symbol === symbol);
    if (place >= 0) this.#cursor = place;
    this.#layoutDirty = true;
  }

  /** The first instrument in sight, as the list is ordered and filtered; `undefined` when there is none. */
  get first() { return this.#shown[0]?.symbol; }

  /** The instrument `by` places from the chosen one. */
  neighbour(by) {
    const place = this.#shown.findIndex((one) => one.symbol === this.#chosen);
    const next = this.#shown[Math.min(this.#shown.length - 1, Math.max(0, place + by))];
    if (next) this.#reveal(this.#shown.indexOf(next));
    return next?.symbol;
  }

  /** Colours and sizes come from the style sheet; they change with the theme and the width. */
  restyle() {
    const style = getComputedStyle(document.documentElement);
    this.#rowHeight = parseFloat(style.getPropertyValue('--row'));
    const probe = document.createElement('i');
    document.body.append(probe);
    const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    this.#colours = { up: colour('--up'), down: colour('--down'), flat: colour('--muted'), upFlash: colour('--up-flash'), downFlash: colour('--down-flash') };
    probe.remove();
    for (const row of this.#rows) row.drawn = -1;
    this.#layoutDirty = true;
  }

  /** Draws what changed; once a frame. */
  draw(nowMs) {
    if (this.#sort !== 'symbol' && nowMs - this.#sortedAt > RESORT_MS) this.#arrange(nowMs);
    if (this.#layoutDirty) this.#layout();
    for (const row of this.#rows) {
      const { instrument } = row;
      if (!instrument) continue;
      if (row.drawn !== instrument.version) this.#write(row, instrument, nowMs);
      if (row.sparkStale && nowMs - row.sparkedAt >= SPARK_MS) this.#spark(row, instrument, nowMs);
    }
  }

  #arrange(nowMs = performance.now()) {
    const wanted = this.#filter;
    this.#shown = wanted ? this.#all.filter((one) => one.symbol.toUpperCase().includes(wanted)) : this.#all.slice();
    const key = SORTS[this.#sort];
    const sign = this.#descending ? -1 : 1;
    if (key) {
      const keys = new Map(this.#shown.map((one) => [one, key(one)]));
      this.#shown.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        if (x === y) return a.index - b.index;
        return x === null ? 1 : y === null ? -1 : sign * (x - y); // what has no figure comes last
      });
    } else if (this.#descending) this.#shown.reverse();
    this.#sortedAt = nowMs;
    this.#layoutDirty = true;
    this.#empty.hidden = this.#shown.length > 0;
    this.#count.textContent = wanted ? `${this.#shown.length} of ${this.#all.length}` : String(this.#all.length);
    this.#grid.setAttribute('aria-rowcount', String(this.#shown.length + 1));
  }

  #sortBy(name) {
    this.#descending = this.#sort === name ? !this.#descending : name !== 'symbol';
    this.#sort = name;
    for (const button of this.#grid.querySelectorAll('[data-sort]')) {
      const order = this.#descending ? 'descending' : 'ascending';
      button.parentElement.setAttribute('aria-sort', button.dataset.sort === name ? order : 'none');
    }
    this.#body.scrollTop = 0;
    this.#arrange();
  }

  /** Gives each place in sight a row. A row keeps its instrument while that is in sight. */
  #layout() {
    this.#layoutDirty = false;
    this.#spacer.style.height = `${this.#shown.length * this.#rowHeight}px`;
    const top = this.#body.scrollTop;
    const first = Math.max(0, Math.floor(top / this.#rowHeight) - SPARE_ROWS);
    const last = Math.min(this.#shown.length, Math.ceil((top + this.#body.clientHeight) / this.#rowHeight) + SPARE_ROWS);
    const free = new Map();
    for (const row of this.#rows) if (row.instrument) free.set(row.instrument, row);
    const seats = [];
    for (let place = first; place < last; place += 1) {
      const row = free.get(this.#shown[place]);
      if (row) free.delete(this.#shown[place]);
      seats.push(row);
    }
    const spare = this.#rows.filter((row) => !row.instrument || free.has(row.instrument));
    for (let place = first; place < last; place += 1) {
      const row = seats[place - first] ?? spare.pop() ?? this.#newRow();
      this.#seat(row, this.#shown[place], place);
    }
    for (const row of spare) { row.instrument = null; row.element.hidden = true; }
    const cursor = this.#rows.find((row) => row.instrument && row.place === this.#cursor);
    if (cursor) this.#grid.setAttribute('aria-activedescendant', cursor.element.id);
    else this.#grid.removeAttribute('aria-activedescendant');
  }

  #newRow() {
    const element = document.createElement('div');
    element.className = 'row body';
    element.id = `row-${this.#rows.length}`;
    element.setAttribute('role', 'row');
    const cells = {};
    for (const name of ['symbol', 'spark', 'last', 'change', 'bid', 'ask', 'volume']) {
      const cell = document.createElement('span');
      cell.className = `c-${name}${name === 'symbol' || name === 'spark' ? '' : ' num'}`;
      cell.setAttribute('role', name === 'symbol' ? 'rowheader' : 'gridcell');
      cells[name] = cell;
      element.append(cell);
    }
    const canvas = document.createElement('canvas');
    canvas.setAttribute('aria-hidden', 'true');
    cells.spark.append(canvas);
    this.#body.append(element);
    const row = { element, cells, canvas, instrument: null, place: -1, drawn: -1, last: null, flash: null, flashed: 0, flashedAt: 0, sparkStale: false, sparkedAt: 0 };
    this.#rows.push(row);
    return row;
  }

  #seat(row, instrument, place) {
    const { element } = row;
    if (row.instrument !== instrument) {
      row.instrument = instrument;
      row.drawn = -1;
      row.last = null; // no flash for a row that only scrolled in
      row.flash?.cancel();
      element.dataset.symbol = instrument.symbol;
      element.hidden = false;
    }
    if (row.place !== place || row.height !== this.#rowHeight) {
      row.place = place;
      row.height = this.#rowHeight;
      element.style.transform = `translateY(${place * this.#rowHeight}px)`;
      element.setAttribute('aria-rowindex', String(place + 2));
    }
    const chosen = instrument.symbol === this.#chosen;
    if (element.ariaSelected !== String(chosen)) element.setAttribute('aria-selected', String(chosen));
    element.classList.toggle('cursor', place === this.#cursor);
  }

  #write(row, one, nowMs) {
    const { cells } = row;
    put(cells.symbol, one.symbol);
    price(cells.last, one.last);
    const moved = one.last !== null && one.open !== null ? direction(one.open, one.last) : 0;
    put(cells.change, one.last !== null && one.open !== null ? narrowPercent(changePercent(one.open, one.last)) : '–');
    const tone = moved > 0 ? 'c-change num up' : moved < 0 ? 'c-change num down' : 'c-change num';
    if (cells.change.className !== tone) cells.change.className = tone;
    price(cells.bid, one.bid);
    price(cells.ask, one.ask);
    put(cells.volume, one.volumeText === null ? '–' : short(one.volumeText));
    if (row.last !== null && one.last !== row.last && one.moved !== 0) this.#flash(row, one.moved, nowMs);
    if (row.drawn < 0) row.sparkedAt = -Infinity;
    if (row.last !== one.last || row.drawn < 0) row.sparkStale = true;
    row.last = one.last;
    row.drawn = one.version;
  }

  #flash(row, moved, nowMs) {
    if (this.#still.matches || (row.flashed === moved && nowMs - row.flashedAt < FLASH_AGAIN_MS)) return;
    row.flash?.cancel();
    row.flashed = moved;
    row.flashedAt = nowMs;
    const from = moved > 0 ? this.#colours.upFlash : this.#colours.downFlash;
    row.flash = row.cells.last.animate([{ backgroundColor: from }, { backgroundColor: 'transparent' }], { duration: FLASH_MS, easing: 'steps(6, end)' });
  }

  #spark(row, one, nowMs) {
    row.sparkStale = false;
    row.sparkedAt = nowMs;
    const { canvas } = row;
    const moved = one.last !== null && one.open !== null ? direction(one.open, one.last) : 0;
    const scale = devicePixelRatio || 1;
    const width = SPARK.width * scale;
    const height = SPARK.height * scale;
    if (canvas.width !== width) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, width, height);
    const { spark, sparkLength } = one;
    if (sparkLength < 2) return;
    let low = Infinity;
    let high = -Infinity;
    for (let i = 0; i < sparkLength; i += 1) { low = Math.min(low, spark[i]); high = Math.max(high, spark[i]); }
    const span = high - low || 1;
    const pad = 3 * scale;
    context.beginPath();
    const step = (width - 2 * pad) / (sparkLength - 1);
    for (let i = 0; i < sparkLength; i += 1) {
      const y = high === low ? height / 2 : pad + (height - 2 * pad) * (1 - (spark[i] - low) / span);
      if (i === 0) context.moveTo(pad, y);
      else context.lineTo(pad + i * step, y);
    }
    context.lineWidth = 1.5 * scale;
    context.lineJoin = 'round';
    context.strokeStyle = moved > 0 ? this.#colours.up : moved < 0 ? this.#colours.down : this.#colours.flat;
    context.stroke();
  }

  #clicked(event) {
    const element = event.target.closest('.row.body');
    if (!element) return;
    const row = this.#rows.find((one) => one.element === element);
    this.#cursor = row.place;
    this.#choose(row.instrument.symbol);
  }

  #pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.#body.clientHeight / this.#rowHeight) - 1);
    const last = this.#shown.length - 1;
    const to = { ArrowDown: this.#cursor + 1, ArrowUp: this.#cursor - 1, PageDown: this.#cursor + page, PageUp: this.#cursor - page, Home: 0, End: last }[event.key];
    if (to !== undefined) this.#reveal(Math.max(0, Math.min(last, to)));
    else if ((event.key === 'Enter' || event.key === ' ') && event.target === this.#grid && this.#shown[this.#cursor]) this.#choose(this.#shown[this.#cursor].symbol);
    else return;
    event.preventDefault();
  }

  #reveal(place) {
    this.#cursor = place;
    const top = place * this.#rowHeight;
    const body = this.#body;
    if (top < body.scrollTop) body.scrollTop = top;
    else if (top + this.#rowHeight > body.scrollTop + body.clientHeight) body.scrollTop = top + this.#rowHeight - body.clientHeight;
    this.#layoutDirty = true;
  }
}

/** Writes a cell if that is another text: what the browser is not told of, it does not lay out. */
function put(cell, text) {
  if (cell.firstChild) { if (cell.firstChild.data !== text) cell.firstChild.data = text; } else cell.append(text);
}

/** Characters of a price beyond which it is set smaller: it is shown whole or not at all. */
const LONG_PRICE = 10;

function price(cell, value) {
  const text = value === null ? '–' : grouped(value);
  put(cell, text);
  const long = text.length > LONG_PRICE;
  if (cell.classList.contains('long') !== long) cell.classList.toggle('long', long);
}

const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
/** A volume in a narrow column: rounded, which only a sum may be. */
export function short(text) { return SHORT.format(Number(text)); }
