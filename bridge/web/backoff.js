// When to connect again: growing delays with jitter, capped, and only so many in a row.

/** Defaults: 0.25 s, doubled up to 15 s, 30 attempts (about six minutes). */
export const BACKOFF = Object.freeze({ firstMs: 250, maxMs: 15_000, attempts: 30 });

export class Backoff {
  #options;
  #random;
  #failed = 0;

  constructor(options = {}, random = Math.random) {
    this.#options = { ...BACKOFF, ...options };
    this.#random = random;
  }

  /** Attempts since the last success. */
  get attempt() { return this.#failed; }

  /**
   * How long to wait before the next attempt, in milliseconds: half of the step for sure, the other half
   * by chance, so that clients that lost the same server do not come back in step; never less than what
   * the server asked for. `null` when there have been as many as allowed.
   */
  next(retryAfterMs = 0) {
    const { firstMs, maxMs, attempts } = this.#options;
    if (this.#failed >= attempts) return null;
    const step = Math.min(maxMs, firstMs * 2 ** this.#failed);
    this.#failed += 1;
    return Math.max(retryAfterMs, step / 2 + this.#random() * step / 2);
  }

  reset() { this.#failed = 0; }
}
