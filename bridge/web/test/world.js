// A world for the client under test: WebSockets that a test answers by hand, and a clock that it moves.

export class World {
  sockets = [];
  time = 1_000_000;
  #timers = [];
  #count = 0;

  constructor({ chance = 0 } = {}) { this.chance = chance; }

  /** What `new Client` takes. */
  get options() {
    const world = this;
    return {
      name: 'test',
      now: () => this.time,
      random: () => this.chance,
      setTimeout: (run, ms) => { this.#count += 1; this.#timers.push({ id: this.#count, at: this.time + ms, run }); return this.#count; },
      clearTimeout: (id) => { this.#timers = this.#timers.filter((timer) => timer.id !== id); },
      WebSocket: class extends FakeSocket { constructor(url, protocol) { super(url, protocol); world.sockets.push(this); } },
    };
  }

  /** Lets time pass, and what is due happen in its order. */
  async pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at || a.id - b.id)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.time = due.at;
      due.run();
      await settled();
    }
    this.time = end;
    await settled();
  }

  /** Milliseconds to the timer that is next; `null` when there is none. */
  get nextTimer() { return this.#timers.length ? Math.min(...this.#timers.map(({ at }) => at)) - this.time : null; }

  get socket() { return this.sockets.at(-1); }

  /** Opens the newest socket and welcomes the client. */
  async welcome({ session = '00'.repeat(15) + '01', resumed = false } = {}) {
    this.socket.open();
    this.socket.say({ type: 'welcome', session, resumed, upstream: 'up', max_subscriptions: 10_000, node_ns: '0' });
    await settled();
  }
}

class FakeSocket {
  readyState = 0;
  sent = [];
  closed = null;

  constructor(url, protocol) { this.url = url; this.protocol = protocol; }

  open() { this.readyState = 1; this.onopen(); }

  send(text) {
    if (this.readyState !== 1) throw new Error('not open');
    for (const message of [JSON.parse(text)].flat()) this.sent.push(message);
  }

  close(code) { this.readyState = 3; this.closed = code; }

  /** The bridge says something: objects, in one message. */
  say(...messages) { this.onmessage({ data: JSON.stringify(messages.length === 1 ? messages[0] : messages) }); }

  /** The connection ends from the other side. */
  end(code = 1006, reason = '') { this.readyState = 3; this.onclose({ code, reason }); }

  /** What the client sent of a type, the newest last. */
  all(type) { return this.sent.filter((message) => message.type === type); }

  last(type) { return this.all(type).at(-1); }

  /** Answers the newest SUBSCRIBE. */
  subscribed({ next = 1, epoch = '7', topic } = {}) {
    const asked = this.all('subscribe').findLast((message) => !topic || message.topic === topic);
    this.say({ type: 'subscribed', id: asked.id, topic: asked.topic, policy: asked.policy ?? 'resume', next_seq: next, last_seq: next - 1, epoch });
  }

  event(topic, seq, more = {}) { this.say({ type: 'event', topic, seq, kind: 'message', data: `m${seq}`, ...more }); }
}

/** Everything that waits for nothing but its turn has had it. */
export async function settled() { for (let i = 0; i < 10; i += 1) await Promise.resolve(); }
