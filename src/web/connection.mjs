// One viewer's connection: connects, joins, keeps alive, comes back where it left off. Owns the socket and its timers; it knows
// nothing of the page, which hears of everything by the callbacks it gave.

import { SUBPROTOCOLS, Thread, backoffMs, judgeClose, judgeProbe, readFrame } from './protocol.mjs';

/** A connection that stayed for so long was a good one: waiting times begin small again. */
const STEADY_MS = 10_000;
const PROBE_TIMEOUT_MS = 5_000;
/** A browser itself waits for minutes on a node that takes the connection and then says nothing. */
const CONNECT_TIMEOUT_MS = 10_000;

export class Connection {
  #on;
  #token;
  #room;
  #thread = new Thread();
  #socket = null;
  #welcome = null;
  #seated = false;
  #attempt = 0;
  #steadyTimer = 0;
  #retryTimer = 0;
  #connectTimer = 0;
  #heartbeatTimer = 0;
  #pingedAt = null;
  #comeBackAt = 0;
  #nextId = 1;
  #unacked = new Map();
  #state = { name: 'idle' };

  /**
   * Callbacks: `state({name, ...})`, `welcome(user)`, `joined({kind, ...})`, `message(m)` for what is new, `acked(seq)`,
   * `unsaid({text, sentence, retry_after_ms, sent})` for a line that was refused or never confirmed.
   * States: connecting (again: with the `sentence` of what ended it), live, waiting (`until`, `sentence`), refused (`code`, `sentence`, `hint`).
   */
  constructor({ room, token, on }) {
    this.#room = room;
    this.#token = token;
    this.#on = on;
  }

  get room() {
    return this.#room;
  }

  /** Connects now, whatever it was waiting for. */
  connect() {
    this.#drop();
    // While it keeps trying, why it has to stays in sight.
    const { sentence, code, hint } = this.#state.name === 'refused' ? {} : this.#state;
    this.#to({ name: 'connecting', sentence, code, hint });
    const address = new URL('/ws', location.href);
    address.protocol = address.protocol.replace('http', 'ws');
    // Not in the address, where proxies would log it.
    const bearer = this.#token === null ? [] : [`bearer.${this.#token}`];
    let socket;
    try {
      socket = new WebSocket(address, [...SUBPROTOCOLS, ...bearer]);
    } catch {
      const mistake = 'The token in this address is not one: it holds characters no token has.';
      this.#to({ name: 'refused', code: 'token_invalid', sentence: mistake });
      return;
    }
    this.#socket = socket;
    this.#connectTimer = setTimeout(() => this.#closed(1006, ''), CONNECT_TIMEOUT_MS);
    socket.onmessage = ({ data }) => {
      for (const message of readFrame(data)) if (this.#socket === socket) this.#hear(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket === socket) this.#closed(code, reason);
    };
  }

  /** Tries again by hand: joins if it is only the room that is missing, connects otherwise. */
  retry() {
    if (this.#welcome === null) this.connect();
    else if (!this.#seated) this.#join();
  }

  /** What an earlier wait is worth when the network is back. */
  hurry() {
    if (this.#state.name === 'waiting') this.connect();
  }

  /** Goes over to another room, on the same connection where there is one. */
  enter(room) {
    if (room === this.#room) return;
    const left = this.#room;
    this.#room = room;
    this.#thread = new Thread();
    if (this.#welcome === null) {
      this.connect();
      return;
    }
    if (this.#seated) this.#send({ type: 'leave', room: left, id: 'leave' });
    this.#join();
  }

  /** Says a line. False: there is nobody to say it to just now. */
  say(text, style) {
    if (!this.#seated) return false;
    const id = this.#nextId++;
    this.#unacked.set(id, text);
    this.#send({ type: 'danmaku', room: this.#room, text, style, id });
    return true;
  }

  #to(state) {
    this.#state = state;
    this.#on.state(state);
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #join() {
    clearTimeout(this.#retryTimer);
    this.#seated = false;
    this.#to({ name: 'connecting' });
    this.#send({ type: 'join', room: this.#room, id: 'join', ...this.#thread.resume() });
  }

  #hear(message) {
    this.#pingedAt = null;
    const elsewhere = message.room !== undefined && message.room !== this.#room;
    switch (message.type) {
      case 'welcome':
        clearTimeout(this.#connectTimer);
        this.#welcome = message;
        this.#on.welcome(message.user);
        this.#beat(message.heartbeat_ms);
        this.#join();
        break;
      case 'joined':
        // The answer to a join that was overtaken by another.
        if (elsewhere) this.#send({ type: 'leave', room: message.room, id: 'leave' });
        else this.#joined(message);
        break;
      case 'ack':
        this.#unacked.delete(message.id);
        if (!elsewhere) this.#on.acked(message.seq);
        break;
      case 'error':
        this.#refused(message);
        break;
      case 'left':
        if (!elsewhere && message.id === undefined) this.#left(message);
        break;
      case 'notice':
        if (message.code === 'reconnect') this.#comeBackAt = performance.now() + message.retry_after_ms;
        this.#on.message(message);
        break;
      case 'pong':
        break;
      default:
        if (elsewhere) break;
        if (message.type === 'epoch') this.#thread.renumbered(message);
        else if (message.type === 'dropped') this.#thread.leftOut(message);
        else if (!this.#thread.isNew(message)) break;
        this.#on.message(message);
    }
  }

  #joined(message) {
    const story = this.#thread.joined(message);
    this.#seated = true;
    this.#to({ name: 'live' });
    clearTimeout(this.#steadyTimer);
    this.#steadyTimer = setTimeout(() => {
      this.#attempt = 0;
    }, STEADY_MS);
    this.#on.joined({ ...story, online: message.online });
  }

  #refused({ id, code, message, hint, retry_after_ms }) {
    if (this.#unacked.has(id)) {
      const text = this.#unacked.get(id);
      this.#unacked.delete(id);
      this.#on.unsaid({ text, sentence: message, hint, retry_after_ms, sent: false });
    } else if (id === 'join') {
      if (retry_after_ms === undefined) {
        this.#to({ name: 'refused', code, sentence: message, hint });
      } else {
        const wait_ms = backoffMs(this.#attempt++, Math.random(), retry_after_ms);
        this.#to({ name: 'waiting', until: performance.now() + wait_ms, sentence: message });
        this.#retryTimer = setTimeout(() => this.#join(), wait_ms);
      }
    } else if (id !== 'leave') {
      this.#on.message({ type: 'error', code, message, hint });
    }
  }

  #left({ code, reason }) {
    this.#seated = false;
    this.#to({ name: 'refused', code: code ?? 'left', sentence: reason || 'You are out of the room.' });
    this.#on.message({ type: 'left', code, reason });
  }

  /** Pings a little more often than asked. A ping that is not answered within an interval means that the connection is dead. */
  #beat(heartbeat_ms) {
    clearInterval(this.#heartbeatTimer);
    const every_ms = Math.max(500, heartbeat_ms * 0.8);
    this.#heartbeatTimer = setInterval(() => {
      if (this.#pingedAt !== null && performance.now() - this.#pingedAt > every_ms * 0.9) {
        this.#closed(1006, 'The connection went silent.');
        return;
      }
      this.#pingedAt = performance.now();
      this.#send({ type: 'ping' });
    }, every_ms);
  }

  async #closed(code, reason) {
    const entered = this.#welcome !== null;
    this.#drop();
    if (entered) {
      this.#after(judgeClose(code, reason));
      return;
    }
    const socket = this.#socket;
    const verdict = await probe(this.#room, this.#token);
    // Somebody may have connected by hand meanwhile.
    if (this.#socket === socket && this.#state.name === 'connecting') this.#after(verdict);
  }

  /** Waits and comes back, or says why not. */
  #after({ back, code, sentence, hint, retry_after_ms = 0 }) {
    if (!back) {
      this.#to({ name: 'refused', code, sentence, hint });
      return;
    }
    const now = performance.now();
    const asked_ms = Math.max(retry_after_ms, this.#comeBackAt - now, 0);
    this.#comeBackAt = 0;
    const wait_ms = backoffMs(this.#attempt++, Math.random(), asked_ms);
    this.#to({ name: 'waiting', until: now + wait_ms, code, sentence, hint });
    this.#retryTimer = setTimeout(() => this.connect(), wait_ms);
  }

  /** Lets the socket and all timers go. Lines nobody confirmed are given back. */
  #drop() {
    for (const timer of [this.#retryTimer, this.#steadyTimer, this.#connectTimer]) clearTimeout(timer);
    clearInterval(this.#heartbeatTimer);
    const socket = this.#socket;
    this.#socket = null;
    this.#welcome = null;
    this.#seated = false;
    this.#pingedAt = null;
    if (socket !== null) {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
    }
    const sentence = 'The connection was cut before this line was confirmed.';
    for (const text of this.#unacked.values()) this.#on.unsaid({ text, sentence, sent: true });
    this.#unacked.clear();
  }
}

/** Asks by plain requests why a connection was refused. */
async function probe(room, token) {
  const paths = ['/readyz', `/api/v1/rooms/${encodeURIComponent(room)}`];
  const [ready, detail] = await Promise.all(paths.map((path) => ask(path, token)));
  return judgeProbe(ready, detail);
}

/** One plain request: `{status, body}`, or null where nobody answered. */
export async function ask(path, token) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  try {
    const answer = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return { status: answer.status, body: await answer.json().catch(() => null) };
  } catch {
    return null;
  }
}
