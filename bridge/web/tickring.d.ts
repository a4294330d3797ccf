/** The tickring client for browsers. Decimals, times and epochs are strings, so that nothing is rounded. */

export interface BackoffOptions {
  /** The first step, in milliseconds; doubled with each attempt. Default 250. */
  firstMs?: number;
  /** The longest step, in milliseconds. Default 15,000. */
  maxMs?: number;
  /** Attempts in a row before the client gives up. Default 30. */
  attempts?: number;
}

export interface ClientOptions {
  /** What the connection calls itself, at most 64 bytes. */
  name?: string;
  /** What the server's access check reads. */
  credentials?: string;
  backoff?: BackoffOptions;
}

export interface Status {
  state: 'connecting' | 'open' | 'waiting' | 'closed';
  /** Whether the bridge reaches the server; `null` while the client does not reach the bridge. */
  upstream: 'up' | 'down' | null;
  /** Attempts since the last connection that stood. */
  attempt: number;
  /** Why the connection was lost or is closed. */
  reason?: string;
  /** How long until the next attempt, in milliseconds. */
  retryInMs?: number;
}

export type Policy = 'default' | 'conflate' | 'resume' | 'disconnect';
export type GapReason = 'delayed' | 'conflated' | 'expired' | 'reset';
export type Side = 'buy' | 'sell' | 'unknown';

interface Told { topic: string; seq: number; ts_event_ns: string; ts_node_ns: string }
export interface Trade { price: string; qty: string; side: Side }
export interface Quote { bid: string; bid_qty: string; ask: string; ask_qty: string }
export interface Candle { start_ns: string; open: string; high: string; low: string; close: string; volume: string; trades: number }

export type Event = Told & (
  | ({ kind: 'trade' } & Trade)
  | ({ kind: 'quote' } & Quote)
  | ({ kind: 'candle' } & Candle)
  | { kind: 'message'; data?: string; data_base64?: string }
  | { kind: string; [field: string]: unknown });

/** The state of a topic: of `market/…` what there was, of `candle/…` the newest candle. */
export type Snapshot = Told & (
  | ({ kind: 'market_state' } & Partial<Trade & Quote & { ts_trade_ns: string; ts_quote_ns: string; day: string; open: string; high: string; low: string; volume: string; trades: number }>)
  | ({ kind: 'candle' } & Candle)
  | { kind: string; [field: string]: unknown });

export interface Gap { reason: GapReason; firstSeq: number; /** 0 with `delayed`. */ lastSeq: number }
export interface Live { nextSeq: number; lastSeq: number; epoch: string; policy: Policy }

export interface SubscribeOptions {
  /** First seq wanted; 0 (default): the state as it is and what follows. */
  from?: number;
  /** The epoch that `from` belongs to. */
  epoch?: string;
  /** What happens when this client reads too slowly. */
  policy?: Policy;
  /** `false`: begin with the state again after a lost connection, instead of going on by seq. */
  resume?: boolean;
  onEvent?(event: Event): void;
  onSnapshot?(snapshot: Snapshot): void;
  onGap?(gap: Gap): void;
  /** SUBSCRIBED, after each connection. */
  onLive?(live: Live): void;
  /** Nothing comes any more: given up (`null`), refused, or the client closed. */
  onEnd?(error: TickringError | null): void;
}

export interface Subscription {
  readonly topic: string;
  readonly state: 'asking' | 'live' | 'leaving' | 'gone';
  /** The newest seq that came; 0: none. */
  readonly lastSeq: number;
  readonly epoch: string | null;
  /** SUBSCRIBED; rejects when it is refused. */
  readonly ready: Promise<Live | null>;
  /** Resolves at UNSUBSCRIBED. No handler is called after that. */
  unsubscribe(): Promise<{ lastSeq: number }>;
}

export interface Reply { topic: string; seq: number; data?: string; data_base64?: string }

export type Body = { kind?: 'message'; data: string } | ({ kind: 'trade'; ts_event_ns?: string } & Trade) | ({ kind: 'quote'; ts_event_ns?: string } & Quote);

export interface HistoryOptions {
  series?: 'ticks' | '1s' | '1m' | '1h' | '1d';
  newestFirst?: boolean;
  /** Rows of a page; 0: as many as one holds. */
  limit?: number;
  fromNs?: string;
  toNs?: string | null;
}
export type Row = Candle | (Event & { session: 'closed' | 'pre' | 'regular' | 'after' });
export interface Page { rows: Row[]; more: boolean }

/** `code` is a name of SPEC.md section 11, or `closed`, or `unknown_outcome`. */
export class TickringError extends Error {
  readonly code: string;
  readonly retryAfterMs: number;
}

export class Client {
  constructor(url: string | URL, options?: ClientOptions);
  connect(): this;
  close(): void;
  readonly status: Status;
  readonly counts: { messages: number; connections: number };
  readonly roundTripMs: number | null;
  /** How long ago a `ts_node_ns` was, in milliseconds; `null` until the clocks are compared. */
  ageMs(ns: string): number | null;
  on(type: 'status', listener: (status: Status) => void): () => void;
  on(type: 'gap', listener: (gap: Gap & { topic: string }) => void): () => void;
  on(type: 'latency', listener: (roundTripMs: number) => void): () => void;
  on(type: 'protocol', listener: (error: Error) => void): () => void;
  /** Throws `already_subscribed` for a topic that this client holds. */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  publish(topic: string, body: Body): Promise<Reply>;
  command(topic: string, command: number, data?: string): Promise<Reply>;
  history(topic: string, options?: HistoryOptions): AsyncGenerator<Page, void>;
}
