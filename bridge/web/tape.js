// Time and sales: the newest trade on top, a row for each seq.

import { grouped } from './decimal.js';
import { KEPT } from './trades.js';

const SIDES = { buy: 'Buy', sell: 'Sell' };
const TONES = { buy: 'up', sell: 'down' };

/** Nobody reads faster than this, and with each trade the whole list moves down and is painted anew. */
const DRAW_MS = 150;

export class Tape {
  #body; #empty; #count;
  #drawnAt = -Infinity;
  #fresh = [];
  #all = null;
  #counted = 0;

  constructor({ body, empty, count }) {
    this.#body = body;
    this.#empty = empty;
    this.#count = count;
  }

  /** One more, newer than all. */
  add(trade) { this.#fresh.push(trade); }

  /** Another list, newest first. */
  set trades(all) {
    this.#all = all;
    this.#fresh = [];
  }

  /** Draws what changed, a few times a second; a list as a whole at once. */
  draw(nowMs) {
    if (!this.#all && (!this.#fresh.length || nowMs - this.#drawnAt < DRAW_MS)) return;
    this.#drawnAt = nowMs;
    const body = this.#body;
    if (this.#all) {
      body.replaceChildren(...this.#all.map(row));
      this.#all = null;
    } else {
      const fresh = this.#fresh.slice(-KEPT).reverse(); // more than fit: only those that stay
      body.prepend(...fresh.map(row));
      while (body.rows.length > KEPT) body.lastChild.remove();
      this.#fresh = [];
    }
    const count = body.rows.length;
    if (count === this.#counted) return;
    this.#counted = count;
    this.#empty.hidden = count > 0;
    this.#count.textContent = count ? `last ${count}` : '';
  }
}

function row(trade) {
  const element = document.createElement('tr');
  element.dataset.seq = trade.seq;
  const tone = TONES[trade.side] ?? '';
  element.append(
    cell('time', clock(trade.ts_event_ns)), cell(`num ${tone}`, grouped(trade.price)),
    cell('num', grouped(trade.qty)), cell(`side ${tone}`, SIDES[trade.side] ?? ''),
  );
  return element;
}

function cell(name, text) {
  const element = document.createElement('td');
  element.className = name;
  element.textContent = text;
  return element;
}

/** Nanoseconds since 1970 as the time of day in UTC, to the millisecond. */
export function clock(ns) { return new Date(Number(ns.slice(0, -6))).toISOString().slice(11, 23); }
