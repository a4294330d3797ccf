// The tickring client for browsers, over the WebSocket sub-protocol `tickring.json.v1` of the bridge.
// A plain ES module without dependencies; `tickring.d.ts` has its types, README.md shows its use.

import { Backoff } from './backoff.js';
import { ServerClock } from './clock.js';
import { Subscription } from './subscription.js';

const PROTOCOL = 'tickring.json.v1';
/** A PING this often; silence for three of them means that the connection is dead. */
const PING_MS = 5_000;
/** A read that was not answered for so long is asked again: it may have been lost behind the bridge. */
const READ_MS = 10_000;
/** How long WELCOME may take. */
const WELCOME_MS = 10_000;
/** A connection that stood this long was a success; the next loss begins with the shortest delay again. */
const STEADY_MS = 5_000;
/** Requests in one message, and characters: below the bridge's `max_message_bytes`. */
const BATCH = 400;
const BATCH_CHARS = 40_000;
/** Close codes behind which to connect again; the others would only repeat. */
const PASSING = new Set([1001, 1005, 1006, 1011, 1012, 1013, 4026, 4027, 4029, 4100]);

/** A refusal, or a request that cannot be answered. `code` is a name of SPEC.md 11, or one of this client:
 *  `closed`, `unknown_outcome`, `cancelled`. */
export class TickringError extends Error {
  constructor(code, text, retryAfterMs = 0) {
    super(text ? `${code}: ${text}` : code);
    this.name = 'TickringError';
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * A connection that comes back by itself.
 *
 * States: `connecting` → `open` (WELCOME came) → `waiting` (lost; the next attempt is timed) → `connecting` …
 * `closed` is the end: by `close()`, by a refusal that would only repeat, or after too many attempts in
 * vain; `connect()` begins anew, with the same subscriptions.
 */
export class Client {
  #url; #name; #credentials;
  #world;
  #backoff;
  #clock = new ServerClock();
  #listeners = new Map();
  #socket = null;
  #state = 'closed';
  #upstream = null;
  #reason = null;
  #session = null;
  #timers = { attempt: null, ping: null, steady: null };
  #heard = 0;
  #pings = new Map();
  #nextId = 1;
  #nextToken = 1;
  #topics = new Map();
  /** Subscriptions whose topic is being given up by the one before. */
  #next = new Map();
  /** Requests that wait for their answer: id → { message, kind, settle, sent, … }, oldest first. */
  #requests = new Map();
  #outbox = [];
  #flushing = false;
  #counts = { messages: 0, connections: 0 };

  /**
   * @param {string | URL} url of the bridge's `/ws`
   * @param {object} [options] `name`, `credentials`, `backoff` (`firstMs`, `maxMs`, `attempts`); for tests
   *   `WebSocket`, `setTimeout`, `clearTimeout`, `now` (milliseconds since 1970),
   *   `random` and `report` (what a handler threw)
   */
  constructor(url, options = {}) {
    this.#url = String(url);
    this.#name = options.name ?? '';
    this.#credentials = options.credentials;
    this.#world = {
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
      setTimeout: options.setTimeout ?? ((run, ms) => setTimeout(run, ms)),
      clearTimeout: options.clearTimeout ?? ((timer) => clearTimeout(timer)),
      report: options.report ?? ((error) => queueMicrotask(() => { throw error; })),
      now: options.now ?? (() => performance.timeOrigin + performance.now()),
    };
    this.#backoff = new Backoff(options.backoff, options.random);
  }

  // The connection

  /** Connects, unless that is under way. What was subscribed is subscribed again. */
  connect() {
    if (this.#state === 'open' || this.#state === 'connecting') return this;
    this.#world.clearTimeout(this.#timers.attempt);
    if (this.#state === 'closed') this.#backoff.reset();
    this.#open();
    return this;
  }

  /** Says goodbye and closes for good. Subscriptions end; requests without an answer fail with `closed`. */
  close() {
    if (this.#state === 'open') {
      this.#flush();
      this.#socket.send('{"type":"goodbye"}');
    }
    this.#drop(1000, 'closed');
    this.#enter('closed', { reason: 'closed' });
    const error = new TickringError('closed');
    for (const subscription of [...this.#next.values(), ...this.#topics.values()]) this.#finish(subscription, error);
    this.#failRequests(() => true, error);
  }

  /**
   * Calls `listener` on `status` (see `status`), `gap` ({ topic, reason, firstSeq, lastSeq }), `latency`
   * (round trip in ms), `protocol` (an Error: the server broke its own rules). Yields how to stop that.
   */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.#listeners.get(type).delete(listener);
  }

  /** `state`; `upstream`: whether the bridge reaches the server (`up`, `down`, `null`); `attempt` in a row,
   *  `retryInMs` and `reason` while not open. */
  get status() {
    return { state: this.#state, upstream: this.#state === 'open' ? this.#upstream : null, attempt: this.#backoff.attempt, ...this.#reason };
  }

  /** Messages (events, answers) that came, and connections made, since the start. */
  get counts() { return { ...this.#counts }; }

  /** Round trip to the bridge in milliseconds; `null` until measured. */
  get roundTripMs() { return this.#clock.roundTripMs; }

  /** How long ago a time of the server (`ts_node_ns`) was, in milliseconds; `null` until the clocks are compared. */
  ageMs(ns) {
    return this.#clock.known ? this.#world.now() + this.#clock.offsetMs - Number(ns) / 1e6 : null;
  }

  // Requests

  /**
   * Subscribes to a topic. Options: `from` (seq; 0: the state and what follows), `epoch`, `policy`, `resume`
   * (`false`: begin with the state again after a lost connection, instead of where it was lost), and the
   * handlers `onEvent`, `onSnapshot`, `onGap`, `onLive`, `onEnd`.
   * A topic that is just being given up is subscribed when that is done.
   */
  subscribe(topic, options = {}) {
    const before = this.#next.get(topic) ?? this.#topics.get(topic);
    if (before && !before.isLeaving) throw new TickringError('already_subscribed', topic);
    const subscription = new Subscription(topic, options, (one) => this.#leave(one));
    if (this.#topics.has(topic)) this.#next.set(topic, subscription);
    else this.#begin(subscription);
    return subscription;
  }

  /**
   * Publishes; settles with the `reply` when the server has carried it out. `body`: `{ data }`, or
   * `{ kind: 'trade', price, qty, side }`, or `{ kind: 'quote', bid, ask, … }`; decimals are strings.
   * After a lost connection it is sent again under the same id, which has one effect; when the server does
   * not know the session any more it fails with `unknown_outcome`.
   */
  publish(topic, body) {
    return this.#command({ type: 'publish', topic, kind: 'message', ...body });
  }

  /** Another command of a topic's machine; `data` is text. As `publish`. */
  command(topic, command, data = '') {
    return this.#command({ type: 'command', topic, command, data });
  }

  /**
   * Reads stored ticks or candles back: `for await (const { rows, more } of client.history(…))`. Options:
   * `series` (`ticks`, `1s`, `1m`, `1h`, `1d`), `newestFirst`, `limit` (rows of a page), `fromNs`, `toNs`.
   * A page that got lost is asked for again.
   */
  async* history(topic, { series = 'ticks', newestFirst = false, limit = 0, fromNs = '0', toNs = null } = {}) {
    let cursor = null;
    for (;;) {
      const page = await this.#request('history', { type: 'history', topic, series, newest_first: newestFirst, limit, from_ns: fromNs, to_ns: toNs, cursor });
      cursor = page.next;
      yield { rows: page.rows, more: page.more };
      if (!page.more) return;
    }
  }

  // Sending

  #command(message) { return this.#request('command', message); }

  #request(kind, message) {
    if (this.#state === 'closed') return Promise.reject(new TickringError('closed'));
    return new Promise((resolve, reject) => {
      const id = this.#id();
      const request = { kind, message: { id, ...message }, resolve, reject, sent: false };
      this.#requests.set(id, request);
      if (this.#state === 'open') this.#transmit(request);
    });
  }

  #id() {
    this.#nextId += 1;
    return this.#nextId - 1;
  }

  #transmit(request) {
    request.sent = true;
    request.sentAt = this.#world.now();
    this.#send(request.message);
  }

  #begin(subscription) {
    this.#topics.set(subscription.topic, subscription);
    if (this.#state === 'open') this.#ask(subscription);
  }

  #ask(subscription) {
    const { fromSeq, epoch } = subscription.start;
    const message = { type: 'subscribe', id: this.#id(), topic: subscription.topic, from_seq: fromSeq };
    if (epoch !== null) message.epoch = epoch;
    if (subscription.policy) message.policy = subscription.policy;
    this.#requests.set(message.id, { kind: 'subscribe', message, subscription, sent: true });
    this.#send(message);
  }

  #leave(subscription) {
    if (this.#state !== 'open' || this.#topics.get(subscription.topic) !== subscription) { this.#finish(subscription, null); return; }
    if (subscription.state !== 'live') return; // when SUBSCRIBED comes
    subscription.state = 'leaving';
    const message = { type: 'unsubscribe', id: this.#id(), topic: subscription.topic };
    this.#requests.set(message.id, { kind: 'unsubscribe', message, subscription, sent: true });
    this.#send(message);
  }

  #finish(subscription, error, lastSeq) {
    const { topic } = subscription;
    subscription.end(error, lastSeq);
    if (this.#next.get(topic) === subscription) this.#next.delete(topic);
    if (this.#topics.get(topic) !== subscription) return;
    this.#topics.delete(topic);
    const next = this.#next.get(topic);
    if (!next) return;
    this.#next.delete(topic);
    this.#begin(next);
  }

  /** What is said in one go leaves in few messages. */
  #send(message) {
    this.#outbox.push(message);
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => { this.#flushing = false; this.#flush(); });
  }

  #flush() {
    if (this.#state !== 'open') { this.#outbox = []; return; }
    let batch = [];
    let size = 0;
    const out = () => {
      if (batch.length === 1) this.#socket.send(batch[0]);
      else if (batch.length) this.#socket.send(`[${batch.join(',')}]`);
      batch = [];
      size = 0;
    };
    for (const message of this.#outbox) {
      const text = JSON.stringify(message);
      if (batch.length === BATCH || size + text.length > BATCH_CHARS) out();
      batch.push(text);
      size += text.length + 1;
    }
    this.#outbox = [];
    out();
  }

  // The life of a connection

  #enter(state, reason = null) {
    this.#state = state;
    this.#reason = reason;
    this.#emit('status', this.status);
  }

  #emit(type, value) {
    for (const listener of this.#listeners.get(type) ?? []) listener(value);
  }

  #open() {
    this.#enter('connecting');
    const socket = new this.#world.WebSocket(this.#url, PROTOCOL);
    this.#socket = socket;
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      const hello = { type: 'hello', name: this.#name, session: this.#session };
      if (this.#credentials !== undefined) hello.credentials = this.#credentials;
      socket.send(JSON.stringify(hello));
    };
    socket.onmessage = ({ data }) => { if (socket === this.#socket) this.#receive(data); };
    socket.onclose = ({ code, reason }) => { if (socket === this.#socket) this.#lost(code, reason); };
    this.#timers.ping = this.#world.setTimeout(() => this.#lost(1006, 'timeout'), WELCOME_MS);
  }

  /** Forgets the socket, so that nothing that it still says is heard. */
  #drop(code, reason) {
    const socket = this.#socket;
    this.#socket = null;
    for (const name of Object.keys(this.#timers)) this.#world.clearTimeout(this.#timers[name]);
    this.#pings.clear();
    this.#outbox = [];
    if (socket && socket.readyState < 2) socket.close(code, reason);
  }

  #lost(code, reason, retryAfterMs = 0) {
    const saidGoodbye = this.#reason?.retryAfterMs ?? 0;
    this.#drop(1000);
    // Requests that were not answered: subscriptions are asked for anew, reads and commands wait.
    for (const [id, request] of this.#requests) if (request.subscription) this.#requests.delete(id);
    this.#state = 'waiting'; // so that nothing is sent from here on
    for (const subscription of [...this.#topics.values()]) {
      if (subscription.isLeaving) this.#finish(subscription, null);
      else subscription.disconnected();
    }
    const why = reason || (code === 1006 || code === 1005 ? 'connection_lost' : `close_${code}`);
    const delay = PASSING.has(code) ? this.#backoff.next(Math.max(retryAfterMs, saidGoodbye)) : null;
    if (delay === null) {
      this.#enter('closed', { reason: PASSING.has(code) ? 'too_many_attempts' : why });
      this.#failRequests(() => true, new TickringError('closed', why));
      return;
    }
    this.#timers.attempt = this.#world.setTimeout(() => this.#open(), delay);
    this.#enter('waiting', { reason: why, retryInMs: delay });
  }

  #ping() {
    const now = this.#world.now();
    for (const sent of this.#pings.values()) {
      // Not by the timer alone: in a page that is out of sight it may come late.
      if (now - sent >= 3 * PING_MS && this.#heard < sent) { this.#lost(1006, 'silent'); return; }
    }
    for (const request of this.#requests.values()) {
      if (request.kind === 'history' && now - request.sentAt >= READ_MS) this.#transmit(request);
    }
    const token = this.#nextToken;
    this.#nextToken += 1;
    this.#pings.set(token, now);
    this.#socket.send(JSON.stringify({ type: 'ping', token }));
    this.#timers.ping = this.#world.setTimeout(() => this.#ping(), PING_MS);
  }

  #failRequests(which, error) {
    for (const [id, request] of this.#requests) {
      if (!which(request)) continue;
      this.#requests.delete(id);
      request.reject?.(error);
    }
  }

  // Receiving

  #receive(data) {
    this.#heard = this.#world.now();
    const parsed = JSON.parse(data);
    const socket = this.#socket;
    for (const message of Array.isArray(parsed) ? parsed : [parsed]) {
      this.#counts.messages += 1;
      try {
        this.#take(message);
      } catch (error) { // of a handler: it is told where uncaught errors are, and the next message is taken
        this.#world.report(error);
      }
      if (socket !== this.#socket) return; // a handler closed, or the order was broken
    }
  }

  #take(message) {
    switch (message.type) {
      case 'event': return this.#event(message);
      case 'snapshot': return this.#live(message.topic)?.snapshot(message);
      case 'gap': return this.#gap(message);
      case 'subscribed': return this.#subscribed(message);
      case 'unsubscribed': return this.#unsubscribed(message);
      case 'reply': return this.#reply(message);
      case 'history_page': return this.#answer(message.id)?.resolve(message);
      case 'error': return this.#refused(message);
      case 'pong': return this.#pong(message);
      case 'welcome': return this.#welcome(message);
      case 'status': this.#upstream = message.upstream; return this.#emit('status', this.status);
      case 'goodbye': this.#reason = { reason: message.code, retryAfterMs: message.retry_after_ms }; return undefined;
      default: return undefined; // of a newer bridge
    }
  }

  #live(topic) {
    const subscription = this.#topics.get(topic);
    return subscription && (subscription.state === 'live' || subscription.state === 'leaving') ? subscription : null;
  }

  #event(event) {
    const subscription = this.#live(event.topic);
    if (!subscription || !subscription.event(event)) {
      const expected = subscription ? `${subscription.nextSeq} of` : 'none of the unsubscribed topic';
      this.#broken(`event ${event.seq} came instead of ${expected} ${event.topic}`);
    }
  }

  #gap(gap) {
    const subscription = this.#live(gap.topic);
    if (!subscription) { this.#broken(`a gap of the unsubscribed topic ${gap.topic}`); return; }
    subscription.gap(gap);
    this.#emit('gap', { topic: gap.topic, reason: gap.reason, firstSeq: gap.first_seq, lastSeq: gap.last_seq });
  }

  #subscribed(message) {
    const { subscription } = this.#answer(message.id) ?? {};
    if (!subscription) return;
    subscription.subscribed(message);
    if (subscription.isLeaving) this.#leave(subscription);
  }

  #unsubscribed(message) {
    const { subscription } = this.#answer(message.id) ?? {};
    if (subscription) this.#finish(subscription, null, message.last_seq);
  }

  #reply(reply) {
    const request = this.#requests.get(reply.id);
    if (!request || this.#again(request, reply)) return;
    this.#requests.delete(reply.id);
    if (reply.code === 'ok') request.resolve(reply);
    else request.reject(new TickringError(reply.code, reply.text, reply.retry_after_ms));
  }

  #refused(error) {
    const request = this.#requests.get(error.id);
    if (!request || this.#again(request, error)) return;
    this.#requests.delete(error.id);
    const reason = new TickringError(error.code, error.text, error.retry_after_ms);
    if (!request.subscription) request.reject(reason);
    // An UNSUBSCRIBE that is refused because there is nothing to give up has what it wanted.
    else this.#finish(request.subscription, request.kind === 'subscribe' ? reason : null);
  }

  /** `overloaded` had no effect: it is said again, later. */
  #again(request, { code, retry_after_ms: delay }) {
    if (code !== 'overloaded') return false;
    const socket = this.#socket;
    this.#world.setTimeout(() => {
      if (socket === this.#socket && this.#requests.get(request.message.id) === request) this.#send(request.message);
    }, Math.max(delay, 50));
    return true;
  }

  #answer(id) {
    const request = this.#requests.get(id);
    this.#requests.delete(id);
    return request;
  }

  #pong({ token, node_ns: node }) {
    const sent = this.#pings.get(token);
    if (sent === undefined) return;
    this.#pings.delete(token);
    this.#clock.sample(sent, this.#world.now(), Number(node) / 1e6);
    this.#emit('latency', this.#clock.roundTripMs);
  }

  #welcome(welcome) {
    const known = this.#session !== null;
    this.#session = welcome.session;
    this.#upstream = welcome.upstream;
    this.#counts.connections += 1;
    this.#clock.reset();
    this.#timers.steady = this.#world.setTimeout(() => this.#backoff.reset(), STEADY_MS);
    this.#state = 'open';
    if (known && !welcome.resumed) {
      this.#failRequests(({ kind, sent }) => kind === 'command' && sent, new TickringError('unknown_outcome', 'the session is not known any more'));
    }
    // Commands first and in their order, under the ids that they had.
    for (const request of [...this.#requests.values()]) if (!request.subscription) this.#transmit(request);
    for (const subscription of [...this.#topics.values()]) this.#ask(subscription);
    this.#enter('open');
    this.#world.clearTimeout(this.#timers.ping);
    this.#ping();
  }

  /** The rule of order is broken, so what this connection says cannot be trusted: from the last good seq, anew. */
  #broken(text) {
    this.#emit('protocol', new Error(text));
    this.#lost(1006, 'order_broken');
  }
}
