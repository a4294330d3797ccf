// One topic of a client: asked for, live, given up; and the rule of order, checked.

/**
 * States: `asking` (SUBSCRIBE is sent, or waits for a connection), `live` (SUBSCRIBED came), `leaving`
 * (UNSUBSCRIBE is sent), `gone`. A lost connection leads from `live` back to `asking`.
 */
export class Subscription {
  /** The topic's name. */
  topic;
  /** Settles with what SUBSCRIBED told when the topic is live for the first time. */
  ready;
  state = 'asking';
  /** The seq that the next event must have; `null` while that is not known. */
  nextSeq = null;
  /** Which numbering `nextSeq` belongs to. */
  epoch = null;

  #handlers;
  #options;
  #settleReady;
  #left = null;

  /** Made by `Client.subscribe`. */
  constructor(topic, options, leave) {
    this.topic = topic;
    this.#options = options;
    this.#handlers = options;
    this.leave = leave;
    this.ready = new Promise((resolve, reject) => { this.#settleReady = { resolve, reject }; });
    this.ready.catch(() => {}); // whoever does not wait for it is told by `onEnd`
  }

  get policy() { return this.#options.policy ?? null; }

  /** What SUBSCRIBE has to say now: where to begin, or to go on. */
  get start() {
    if (this.nextSeq !== null && this.#options.resume !== false) return { fromSeq: this.nextSeq, epoch: this.epoch };
    return { fromSeq: this.#options.from ?? 0, epoch: this.#options.epoch ?? null };
  }

  /**
   * Gives the topic up. Settles at UNSUBSCRIBED, with the last seq that came, or at once when there is
   * nothing to give up. No handler of this subscription is called after that.
   */
  unsubscribe() {
    if (this.#left) return this.#left.promise;
    this.#left = {};
    this.#left.promise = new Promise((resolve) => { this.#left.resolve = resolve; });
    if (this.state === 'gone') this.#left.resolve({ lastSeq: this.lastSeq });
    else this.leave(this);
    return this.#left.promise;
  }

  /** Whether it is to be given up as soon as that can be said. */
  get isLeaving() { return this.#left !== null && this.state !== 'gone'; }

  /** The newest seq that came; 0: none. */
  get lastSeq() { return this.nextSeq === null ? 0 : this.nextSeq - 1; }

  // What follows is for the client alone.

  subscribed({ next_seq, last_seq, epoch, policy }) {
    this.state = 'live';
    this.nextSeq = next_seq;
    this.epoch = epoch;
    const told = { nextSeq: next_seq, lastSeq: last_seq, epoch, policy };
    this.#settleReady.resolve(told);
    this.#handlers.onLive?.(told);
  }

  /** Yields whether the event is the one that has to come; anything else breaks the rule of order. */
  event(event) {
    if (this.state !== 'live' && this.state !== 'leaving') return false;
    if (event.seq !== this.nextSeq) return false;
    this.nextSeq = event.seq + 1;
    this.#handlers.onEvent?.(event);
    return true;
  }

  snapshot(snapshot) {
    this.nextSeq = snapshot.seq + 1;
    this.#handlers.onSnapshot?.(snapshot);
  }

  gap(gap) {
    if (gap.reason !== 'delayed') this.nextSeq = gap.last_seq + 1;
    if (gap.epoch !== undefined) this.epoch = gap.epoch;
    this.#handlers.onGap?.({ reason: gap.reason, firstSeq: gap.first_seq, lastSeq: gap.last_seq });
  }

  /** The connection is lost: the topic is asked for again on the next one. */
  disconnected() { this.state = 'asking'; }

  /** Nothing comes any more. */
  end(error, lastSeq = this.lastSeq) {
    if (this.state === 'gone') return;
    this.state = 'gone';
    if (error) this.#settleReady.reject(error);
    else this.#settleReady.resolve(null);
    this.#left?.resolve({ lastSeq });
    this.#handlers.onEnd?.(error ?? null);
  }
}
