import { test } from 'node:test';
import assert from 'node:assert/strict';
import { Client } from '../tickring.js';
import { World, settled } from './world.js';

async function connected(options = {}) {
  const world = new World(options);
  const client = new Client('ws://bridge/ws', { ...world.options, ...options.client });
  const statuses = [];
  client.on('status', (status) => statuses.push(status));
  client.connect();
  await world.welcome();
  return { world, client, statuses };
}

test('says hello under the JSON sub-protocol and is open at WELCOME', async () => {
  const { world, statuses } = await connected();
  assert.equal(world.socket.protocol, 'tickring.json.v1');
  assert.deepEqual(world.socket.sent[0], { type: 'hello', name: 'test', session: null });
  assert.deepEqual(statuses.map(({ state }) => state), ['connecting', 'open']);
});

test('a subscription gets its snapshot and its events in order', async () => {
  const { world, client } = await connected();
  const seen = [];
  const subscription = client.subscribe('market/A', { onEvent: ({ seq }) => seen.push(seq), onSnapshot: ({ seq }) => seen.push(`snapshot ${seq}`) });
  await settled();
  world.socket.subscribed({ next: 8 });
  world.socket.say({ type: 'snapshot', topic: 'market/A', seq: 7 }, { type: 'event', topic: 'market/A', seq: 8 }, { type: 'event', topic: 'market/A', seq: 9 });
  assert.deepEqual(seen, ['snapshot 7', 8, 9]);
  assert.equal((await subscription.ready).nextSeq, 8);
});

test('requests made in one go leave in one message, and never in one that is too large', async () => {
  const { world, client } = await connected();
  const sizes = [];
  const send = world.socket.send.bind(world.socket);
  world.socket.send = (text) => { sizes.push(text.length); send(text); };
  for (let i = 0; i < 3000; i += 1) client.subscribe(`market/S${i}`);
  await settled();
  assert.equal(world.socket.all('subscribe').length, 3000);
  assert.ok(sizes.length < 10, `${sizes.length} messages`);
  assert.ok(Math.max(...sizes) < 65_536);
});

test('unsubscribe settles at UNSUBSCRIBED, and nothing is heard of the topic after that', async () => {
  const { world, client } = await connected();
  const seen = [];
  const subscription = client.subscribe('stream/a', { onEvent: ({ seq }) => seen.push(seq) });
  await settled();
  world.socket.subscribed();
  let left = null;
  subscription.unsubscribe().then((told) => { left = told; });
  await settled();
  world.socket.event('stream/a', 1); // was on its way
  assert.equal(left, null);
  world.socket.say({ type: 'unsubscribed', id: world.socket.last('unsubscribe').id, topic: 'stream/a', last_seq: 1 });
  await settled();
  assert.deepEqual(left, { lastSeq: 1 });
  assert.deepEqual(seen, [1]);
  const faults = [];
  client.on('protocol', (error) => faults.push(error.message));
  world.socket.event('stream/a', 2);
  assert.deepEqual(seen, [1]);
  assert.equal(faults.length, 1, 'that the server broke its promise is told');
});

test('unsubscribe before SUBSCRIBED gives up as soon as it can be said', async () => {
  const { world, client } = await connected();
  const subscription = client.subscribe('stream/a');
  const left = subscription.unsubscribe();
  await settled();
  assert.equal(world.socket.all('unsubscribe').length, 0);
  world.socket.subscribed({ next: 5 });
  await settled();
  world.socket.say({ type: 'unsubscribed', id: world.socket.last('unsubscribe').id, topic: 'stream/a', last_seq: 4 });
  assert.deepEqual(await left, { lastSeq: 4 });
});

test('a topic that is being given up can be subscribed again at once, and both hear their own', async () => {
  const { world, client } = await connected();
  const [first, second] = [[], []];
  const subscription = client.subscribe('stream/a', { onEvent: ({ seq }) => first.push(seq) });
  await settled();
  world.socket.subscribed();
  subscription.unsubscribe();
  client.subscribe('stream/a', { from: 2, onEvent: ({ seq }) => second.push(seq) });
  await settled();
  assert.equal(world.socket.all('subscribe').length, 1);
  world.socket.event('stream/a', 1);
  world.socket.say({ type: 'unsubscribed', id: world.socket.last('unsubscribe').id, topic: 'stream/a', last_seq: 1 });
  await settled();
  assert.equal(world.socket.last('subscribe').from_seq, 2);
  world.socket.subscribed({ next: 2 });
  world.socket.event('stream/a', 2);
  assert.deepEqual([first, second], [[1], [2]]);
  assert.throws(() => client.subscribe('stream/a'), { code: 'already_subscribed' });
});

test('a lost connection is made again, and topics go on where they were', async () => {
  const { world, client, statuses } = await connected();
  const seen = [];
  client.subscribe('stream/a', { onEvent: ({ seq }) => seen.push(seq) });
  client.subscribe('market/b', { resume: false });
  await settled();
  world.socket.subscribed({ topic: 'stream/a', epoch: '42' });
  world.socket.subscribed({ topic: 'market/b', next: 10 });
  world.socket.event('stream/a', 1);
  world.socket.event('stream/a', 2);
  world.socket.end(1006);
  assert.equal(statuses.at(-1).state, 'waiting');
  await world.pass(125);
  assert.equal(world.sockets.length, 2);
  await world.welcome({ resumed: true });
  assert.equal(world.socket.sent[0].session, '00'.repeat(15) + '01');
  const [a, b] = world.socket.all('subscribe');
  assert.deepEqual([a.topic, a.from_seq, a.epoch], ['stream/a', 3, '42']);
  assert.deepEqual([b.topic, b.from_seq, b.epoch], ['market/b', 0, undefined]);
  world.socket.subscribed({ topic: 'stream/a', next: 3 });
  world.socket.event('stream/a', 3);
  assert.deepEqual(seen, [1, 2, 3]);
});

test('a handler that throws harms nobody but itself', async () => {
  const thrown = [];
  const { world, client } = await connected({ client: { report: (error) => thrown.push(error.message) } });
  const seen = [];
  client.subscribe('stream/a', { onEvent: ({ seq }) => { seen.push(seq); if (seq === 1) throw new Error('oops'); } });
  await settled();
  world.socket.subscribed();
  world.socket.say({ type: 'event', topic: 'stream/a', seq: 1 }, { type: 'event', topic: 'stream/a', seq: 2 });
  assert.deepEqual([seen, thrown, client.status.state], [[1, 2], ['oops'], 'open']);
});

test('a gap is told, and moves the seq that comes next', async () => {
  const { world, client } = await connected();
  const told = [];
  const subscription = client.subscribe('market/a', { onGap: (gap) => told.push(gap), onEvent: ({ seq }) => told.push(seq) });
  await settled();
  world.socket.subscribed();
  world.socket.say({ type: 'gap', topic: 'market/a', reason: 'delayed', first_seq: 1, last_seq: 0 });
  world.socket.event('market/a', 1);
  world.socket.say({ type: 'gap', topic: 'market/a', reason: 'conflated', first_seq: 2, last_seq: 9 });
  world.socket.say({ type: 'snapshot', topic: 'market/a', seq: 9 });
  world.socket.event('market/a', 10);
  world.socket.say({ type: 'gap', topic: 'market/a', reason: 'reset', first_seq: 11, last_seq: 3, epoch: '8' });
  world.socket.event('market/a', 4);
  assert.deepEqual(told.map((one) => one.reason ?? one), ['delayed', 1, 'conflated', 10, 'reset', 4]);
  assert.deepEqual(subscription.start, { fromSeq: 5, epoch: '8' });
});

for (const [what, seqs] of [['a doubled', [1, 1]], ['a skipped', [1, 3]]]) {
  test(`${what} event is handed to nobody: the connection is made anew from the last good one`, async () => {
    const { world, client } = await connected();
    const seen = [];
    const faults = [];
    client.on('protocol', (error) => faults.push(error.message));
    client.subscribe('stream/a', { onEvent: ({ seq }) => seen.push(seq) });
    await settled();
    world.socket.subscribed();
    for (const seq of seqs) world.socket.event('stream/a', seq);
    assert.deepEqual(seen, [1]);
    assert.equal(faults.length, 1);
    await world.pass(1000);
    await world.welcome();
    assert.equal(world.socket.last('subscribe').from_seq, 2);
  });
}

test('delays grow, are capped, spread by chance, and end after as many attempts as allowed', async () => {
  const world = new World({ chance: 1 });
  const client = new Client('ws://bridge/ws', { ...world.options, backoff: { firstMs: 100, maxMs: 1000, attempts: 6 } });
  const delays = [];
  let status;
  client.on('status', (told) => { status = told; if (told.state === 'waiting') delays.push(told.retryInMs); });
  client.connect();
  for (let i = 0; i < 7; i += 1) { world.socket.end(1006); await world.pass(1000); }
  assert.deepEqual(delays, [100, 200, 400, 800, 1000, 1000]);
  assert.deepEqual([status.state, status.reason], ['closed', 'too_many_attempts']);
  world.chance = 0;
  client.connect(); // by hand: from the beginning
  world.socket.end(1006);
  assert.equal(delays.at(-1), 50);
});

test('only a connection that stood for a while makes the delays short again', async () => {
  const { world, statuses } = await connected();
  const delay = () => statuses.at(-1).retryInMs;
  world.socket.end(1006);
  const first = delay();
  await world.pass(first);
  await world.welcome();
  world.socket.end(1006); // at once again
  assert.ok(delay() > first);
  await world.pass(delay());
  await world.welcome();
  await world.pass(5000);
  world.socket.end(1006);
  assert.equal(delay(), first);
});

test('a server that says when to come back is not asked earlier', async () => {
  const { world, statuses } = await connected();
  world.socket.say({ type: 'goodbye', code: 'shutting_down', retry_after_ms: 3000, text: '' });
  world.socket.end(4029, 'shutting_down');
  assert.equal(statuses.at(-1).reason, 'shutting_down');
  await world.pass(2999);
  assert.equal(world.sockets.length, 1);
  await world.pass(1);
  assert.equal(world.sockets.length, 2);
});

test('a refusal that would only repeat closes for good', async () => {
  const { world, client, statuses } = await connected();
  const pending = assert.rejects(client.publish('stream/a', { data: 'x' }), { code: 'closed' });
  world.socket.end(4014, 'unauthorized');
  await pending;
  assert.deepEqual([statuses.at(-1).state, statuses.at(-1).reason], ['closed', 'unauthorized']);
  await world.pass(60_000);
  assert.equal(world.sockets.length, 1);
});

test('a command without a reply is sent again under its id, and settles once', async () => {
  const { world, client } = await connected();
  const reply = client.publish('stream/a', { data: 'x' });
  await settled();
  const sent = world.socket.last('publish');
  world.socket.end(4100, 'upstream_lost');
  await world.pass(1000);
  await world.welcome({ resumed: true });
  assert.deepEqual(world.socket.last('publish'), sent);
  world.socket.say({ type: 'reply', id: sent.id, topic: 'stream/a', code: 'ok', seq: 5, retry_after_ms: 0, data: '' });
  assert.equal((await reply).seq, 5);
});

test('when the session is forgotten, a command that was sent is not sent again: whether it was applied cannot be told', async () => {
  const { world, client } = await connected();
  const sent = assert.rejects(client.publish('stream/a', { data: 'sent' }), { code: 'unknown_outcome' });
  await settled();
  world.socket.end(1006);
  client.publish('stream/a', { data: 'not yet sent' });
  await world.pass(1000);
  await world.welcome({ resumed: false });
  await sent;
  assert.deepEqual(world.socket.all('publish').map(({ data }) => data), ['not yet sent']);
});

test('overloaded is said again after the time that was told, a refusal is told to the caller', async () => {
  const { world, client } = await connected();
  const reply = client.publish('stream/a', { data: 'x' });
  await settled();
  const { id } = world.socket.last('publish');
  world.socket.say({ type: 'reply', id, code: 'overloaded', retry_after_ms: 700, text: '' });
  await world.pass(699);
  assert.equal(world.socket.all('publish').length, 1);
  await world.pass(1);
  assert.equal(world.socket.all('publish').length, 2);
  world.socket.say({ type: 'reply', id, code: 'bad_command', retry_after_ms: 0, text: 'no' });
  await assert.rejects(reply, { code: 'bad_command' });
});

test('history is read page by page, and a page that got lost is asked for again', async () => {
  const { world, client } = await connected();
  const read = (async () => {
    const rows = [];
    for await (const page of client.history('market/A', { series: '1m', newestFirst: true, limit: 2 })) rows.push(...page.rows);
    return rows;
  })();
  await settled();
  const first = world.socket.last('history');
  assert.deepEqual([first.series, first.newest_first, first.limit, first.cursor], ['1m', true, 2, null]);
  world.socket.say({ type: 'history_page', id: first.id, more: true, next: { ns: '10', seq: '0' }, rows: [4, 3] });
  await settled();
  world.socket.end(1006);
  await world.pass(1000);
  await world.welcome();
  const second = world.socket.last('history');
  assert.deepEqual(second.cursor, { ns: '10', seq: '0' });
  world.socket.say({ type: 'history_page', id: second.id, more: false, next: null, rows: [2] });
  assert.deepEqual(await read, [4, 3, 2]);
});

test('a read that nobody answers is asked again, and one answer is enough', async () => {
  const { world, client } = await connected();
  const page = client.history('market/A').next();
  await settled();
  for (let i = 0; i < 3; i += 1) {
    world.socket.say({ type: 'pong', token: world.socket.last('ping').token, node_ns: '0' });
    await world.pass(5000);
  }
  assert.equal(world.socket.all('history').length, 2);
  const { id } = world.socket.last('history');
  for (const rows of [[1], [2]]) world.socket.say({ type: 'history_page', id, more: false, next: null, rows });
  assert.deepEqual((await page).value.rows, [1]);
});

test('a subscription that is refused ends with the reason', async () => {
  const { world, client } = await connected();
  const ended = [];
  const subscription = client.subscribe('foo/x', { onEnd: (error) => ended.push(error.code) });
  await settled();
  world.socket.say({ type: 'error', id: world.socket.last('subscribe').id, code: 'unknown_kind', fatal: false, retry_after_ms: 0, text: '' });
  await assert.rejects(subscription.ready, { code: 'unknown_kind' });
  assert.deepEqual(ended, ['unknown_kind']);
  client.subscribe('foo/x'); // may be asked again
});

test('a dead connection is noticed by its silence', async () => {
  const { world, statuses } = await connected();
  for (let i = 0; i < 3; i += 1) {
    world.socket.say({ type: 'pong', token: world.socket.last('ping').token, node_ns: String(world.time * 1e6) });
    await world.pass(5000);
  }
  assert.equal(statuses.at(-1).state, 'open');
  await world.pass(20_000);
  assert.ok(statuses.some(({ reason }) => reason === 'silent'));
});

test('a server that never welcomes is given up', async () => {
  const world = new World();
  const client = new Client('ws://bridge/ws', world.options);
  client.connect();
  world.socket.open();
  await world.pass(10_000);
  assert.equal(client.status.reason, 'timeout');
});

test("the age of an event is by the server's clock, whatever this one shows", async () => {
  const { world, client } = await connected();
  assert.equal(client.ageMs('0'), null);
  const { token } = world.socket.last('ping');
  world.time += 10; // a round trip of 10 ms to a clock that is 5 s ahead
  world.socket.say({ type: 'pong', token, node_ns: String(BigInt(world.time - 5 + 5000) * 1_000_000n) });
  assert.equal(client.roundTripMs, 10);
  const happened = String(BigInt(world.time + 5000 - 20) * 1_000_000n);
  assert.equal(client.ageMs(happened), 20);
});

test('close says goodbye, ends subscriptions, fails what waits, and stays closed', async () => {
  const { world, client, statuses } = await connected();
  const subscription = client.subscribe('stream/a');
  const ended = assert.rejects(client.publish('stream/a', { data: 'x' }), { code: 'closed' });
  await settled();
  client.close();
  await ended;
  await assert.rejects(subscription.ready, { code: 'closed' });
  assert.equal(world.socket.sent.at(-1).type, 'goodbye');
  assert.equal(world.socket.closed, 1000);
  await world.pass(60_000);
  assert.deepEqual([statuses.at(-1).state, world.sockets.length], ['closed', 1]);
});

test('whether the bridge reaches the server is part of the status', async () => {
  const { world, client } = await connected();
  assert.equal(client.status.upstream, 'up');
  world.socket.say({ type: 'status', upstream: 'down' });
  assert.equal(client.status.upstream, 'down');
});
