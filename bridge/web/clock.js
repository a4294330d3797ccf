// The server's clock as seen from here, by PING and PONG.

const KEPT = 8;

export class ServerClock {
  #samples = [];

  /**
   * A PONG: sent and received are this side's clock, node is the server's, all in milliseconds since 1970.
   * The server read its clock at some moment between the two; in the middle, as far as can be told.
   */
  sample(sent, received, node) {
    this.#samples.push({ roundTrip: received - sent, offset: node - (sent + received) / 2 });
    if (this.#samples.length > KEPT) this.#samples.shift();
  }

  /** What was measured belongs to the connection before. */
  reset() { this.#samples = []; }

  get known() { return this.#samples.length > 0; }

  /** The quickest of the last samples is the one that can be wrong by least. */
  get #best() { return this.#samples.reduce((best, one) => (one.roundTrip < best.roundTrip ? one : best)); }

  /** Round trip to the server in milliseconds, `null` before the first PONG. */
  get roundTripMs() { return this.known ? this.#best.roundTrip : null; }

  /** What to add to this side's clock to get the server's, in milliseconds; 0 before the first PONG. */
  get offsetMs() { return this.known ? this.#best.offset : 0; }
}
