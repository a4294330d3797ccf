// A headless Chromium, driven by the DevTools protocol over two pipes: no port, no WebSocket, no package.

import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FLAGS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-default-browser-check',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  '--disable-extensions', '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--mute-audio',
  '--force-color-profile=srgb', '--remote-debugging-pipe',
];
const CALL_MS = 30_000;

export class Chromium {
  #process; #profile;
  #pending = new Map();
  #nextId = 1;
  #rest = '';
  #pages = new Map();

  /** Starts a browser with a profile of its own. */
  static async start(command = process.env.CHROMIUM ?? 'chromium') {
    const browser = new Chromium();
    browser.#profile = await mkdtemp(join(tmpdir(), 'tickring-browser-'));
    browser.#process = spawn(command, [...FLAGS, `--user-data-dir=${browser.#profile}`, 'about:blank'], {
      stdio: ['ignore', 'ignore', process.env.BROWSER_LOG ? 'inherit' : 'ignore', 'pipe', 'pipe'],
    });
    browser.#process.on('exit', (code) => {
      for (const { reject } of browser.#pending.values()) reject(new Error(`the browser ended (${code})`));
    });
    browser.#process.stdio[4].setEncoding('utf8').on('data', (text) => browser.#read(text));
    return browser;
  }

  /** A page of that size in CSS pixels. */
  async page({ width = 1440, height = 900, scheme = 'dark', scale = 1 } = {}) {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    this.#pages.set(sessionId, page);
    await page.call('Page.enable');
    await page.call('Runtime.enable');
    await page.call('Performance.enable', { timeDomain: 'threadTicks' });
    await page.look({ width, height, scheme, scale });
    return page;
  }

  call(method, params = {}, sessionId = undefined) {
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => { this.#pending.delete(id); reject(new Error(`${method} was not answered`)); }, CALL_MS);
      const settle = (how) => (value) => { clearTimeout(timer); how(value); };
      this.#pending.set(id, { resolve: settle(resolve), reject: settle(reject) });
      this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  async stop() {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    if (this.#process.exitCode === null) {
      this.call('Browser.close').catch(() => {});
      const forced = setTimeout(() => this.#process.kill('SIGKILL'), 5_000);
      await ended;
      clearTimeout(forced);
    }
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #read(text) {
    const parts = (this.#rest + text).split('\0');
    this.#rest = parts.pop();
    for (const part of parts) this.#take(JSON.parse(part));
  }

  #take({ id, result, error, method, params, sessionId }) {
    if (id === undefined) { this.#pages.get(sessionId)?.told(method, params); return; }
    const { resolve, reject } = this.#pending.get(id) ?? {};
    this.#pending.delete(id);
    if (error) reject?.(new Error(error.message));
    else resolve?.(result);
  }
}

class Page {
  /** What the page printed as an error, and exceptions that nobody caught. */
  faults = [];
  #browser; #session; #target;

  constructor(browser, session, target) { this.#browser = browser; this.#session = session; this.#target = target; }

  call(method, params) { return this.#browser.call(method, params, this.#session); }

  told(method, params) {
    if (method === 'Runtime.exceptionThrown') this.faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Runtime.consoleAPICalled' && params.type === 'error') this.faults.push(params.args.map(({ value, description }) => value ?? description).join(' '));
  }

  async look({ width, height, scheme, scale = 1 }) {
    await this.call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: scale, mobile: false });
    await this.call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  }

  /** Counts, and seconds of the main thread's CPU, since the page began. */
  async metrics() {
    const { metrics } = await this.call('Performance.getMetrics');
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  }

  goto(url) { return this.call('Page.navigate', { url }); }

  /** Runs a function in the page, with arguments that JSON can hold, and yields what it yields. */
  async run(code, ...args) {
    const expression = `(${code})(${args.map((one) => JSON.stringify(one)).join(',')})`;
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until a function in the page yields something true. What it throws meanwhile counts as not yet. */
  async until(what, code, ...args) {
    const end = Date.now() + 30_000;
    let fault = null;
    do {
      try {
        const seen = await this.run(code, ...args);
        if (seen) return seen;
        fault = null;
      } catch (error) { fault = error; }
      await new Promise((resolve) => setTimeout(resolve, 50));
    } while (Date.now() < end);
    throw new Error(`it never came to pass: ${what}`, { cause: fault });
  }

  /** Presses a key, as a person would. */
  async press(key) {
    const text = key.length === 1 ? key : key === 'Enter' ? '\r' : undefined;
    const params = { key, text, code: key, windowsVirtualKeyCode: key === 'Enter' ? 13 : undefined };
    await this.call('Input.dispatchKeyEvent', { ...params, type: 'keyDown' });
    await this.call('Input.dispatchKeyEvent', { ...params, type: 'keyUp', text: undefined });
  }

  async click(selector) {
    const at = await this.run((one) => {
      const element = document.querySelector(one);
      element.scrollIntoView({ block: 'nearest' });
      const { x, y, width, height } = element.getBoundingClientRect();
      return { x: x + width / 2, y: y + height / 2 };
    }, selector);
    for (const type of ['mousePressed', 'mouseReleased']) await this.call('Input.dispatchMouseEvent', { ...at, type, button: 'left', clickCount: 1 });
  }

  async screenshot(path) {
    await this.call('Input.dispatchMouseEvent', { type: 'mouseMoved', x: 1, y: 1 });
    const { data } = await this.call('Page.captureScreenshot', { format: 'png' });
    await writeFile(path, Buffer.from(data, 'base64'));
  }

  close() { return this.#browser.call('Target.closeTarget', { targetId: this.#target }); }
}
