// The programs under test, on free ports of this machine, in a folder of their own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const BIN = process.env.TICKRING_BIN ?? new URL('../../target/release/', import.meta.url).pathname;

export class System {
  server = null;
  bridge = null;
  #started = new Set();
  #ports; #folder; #serve;

  /** `serve`: more arguments of the server. */
  static async create(serve = []) {
    const system = new System();
    system.#folder = await mkdtemp(join(tmpdir(), 'tickring-system-'));
    system.#ports = { server: await freePort(), bridge: await freePort() };
    system.#serve = serve;
    return system;
  }

  get address() { return `127.0.0.1:${this.#ports.server}`; }

  get url() { return `http://127.0.0.1:${this.#ports.bridge}/`; }

  async startServer() {
    this.server = this.#run('tickring', 'serve', '--listen', this.address, '--data', join(this.#folder, 'data'), ...this.#serve);
    await this.#says(this.server, /listening on/);
  }

  async startBridge(symbols) {
    const file = join(this.#folder, 'symbols');
    await writeFile(file, symbols.join('\n'));
    this.bridge = this.#run('tickring-bridge', '--listen', `127.0.0.1:${this.#ports.bridge}`, '--upstream', this.address, '--symbols-file', file);
    for (let tries = 0; ; tries += 1) {
      const answer = await fetch(`${this.url}healthz`).catch(() => null);
      if (answer?.ok) return;
      if (tries === 100) throw new Error(`the bridge does not answer: ${this.bridge.said}`);
      await pause(50);
    }
  }

  /** Runs the demo; yields the address that it prints. */
  async startDemo() {
    const demo = this.#run('tickring', 'demo', '--listen', '127.0.0.1:0', '--page', '127.0.0.1:0');
    await this.#says(demo, /open (http:\S+) in a browser/);
    return { demo, url: /open (http:\S+) in a browser/.exec(demo.said)[1] };
  }

  /** Asks a program to end, and yields its exit code. */
  async interrupt(program) {
    program.child.kill('SIGINT');
    return program.ended;
  }

  /** Ends a program as a crash would. */
  async kill(program) {
    program.child.kill('SIGKILL');
    await program.ended;
  }

  /** Publishes rows; resolves when the server has confirmed all. */
  async replay({ trades, quotes }, { speed = 'max', mayFail = false } = {}) {
    const [tradesFile, quotesFile] = [join(this.#folder, 'trades.csv'), join(this.#folder, 'quotes.csv')];
    await writeFile(tradesFile, trades);
    await writeFile(quotesFile, quotes);
    await this.feed(['replay', '--format', 'csv', '--speed', speed, tradesFile, quotesFile], { mayFail });
  }

  async feed(args, { mayFail = false } = {}) {
    const feed = this.#run('tickring-feed', ...args, '--connect', this.address);
    const code = await feed.ended;
    if (code !== 0 && !mayFail) throw new Error(`tickring-feed ended with ${code}: ${feed.said}`);
  }

  async stop() {
    for (const program of this.#started) program.child.kill('SIGKILL');
    await Promise.all([...this.#started].map(({ ended }) => ended));
    await rm(this.#folder, { recursive: true, force: true });
  }

  #run(name, ...args) {
    const child = spawn(join(BIN, name), args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const program = { child, said: '', ended: once(child, 'exit').then(([code]) => { this.#started.delete(program); return code; }) };
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { program.said = (program.said + text).slice(-4000); });
    this.#started.add(program);
    return program;
  }

  async #says(program, words) {
    for (let tries = 0; tries < 200; tries += 1) {
      if (words.test(program.said)) return;
      if (program.child.exitCode !== null) break;
      await pause(50);
    }
    throw new Error(`it never said ${words}: ${program.said}`);
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
