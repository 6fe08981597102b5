// The protocol of docs/PROTOCOL.md as the page needs it: reading messages, judging closes and refusals, waiting times. Pure: no
// socket, no clock, no element of the page; chance is an argument.

/** What is offered in Sec-WebSocket-Protocol: several objects per frame where the node can, one where it cannot. */
export const SUBPROTOCOLS = ['danmaku.v1.batch', 'danmaku.v1'];

const MODES = ['scroll', 'top', 'bottom'];
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 30_000;

/** The messages of one frame. What is no object with a type is left out. */
export function readFrame(text) {
  const messages = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    try {
      const message = JSON.parse(line);
      if (message !== null && typeof message === 'object' && typeof message.type === 'string') messages.push(message);
    } catch {
      // Not ours to mend: the next message is whole again.
    }
  }
  return messages;
}

/** A style with every part in range, whatever was sent. */
export function cleanStyle(style) {
  const { color, mode, size } = style ?? {};
  return {
    color: typeof color === 'string' && /^#[0-9a-f]{6}$/i.test(color) ? color.toLowerCase() : '#ffffff',
    mode: MODES.includes(mode) ? mode : 'scroll',
    size: Number.isFinite(size) ? Math.min(64, Math.max(12, size)) : 25,
  };
}

/** Whether a room may be called so. */
export function isRoom(text) {
  return /^[A-Za-z0-9_.:-]{1,128}$/.test(text);
}

/** Room and token as the page's address names them. */
export function readQuery(search) {
  const query = new URLSearchParams(search);
  const room = query.get('room') ?? '';
  return { room: isRoom(room) ? room : '1001', token: query.get('token') || null };
}

/** How a user is shown; null is somebody without a token. */
export function nameOf(user) {
  if (user === null || user === undefined) return 'guest';
  return String(user.name || user.id || 'guest');
}

/** One of eight name colours, the same for the same user everywhere. */
export function hueOf(user) {
  let hash = 0;
  for (const letter of String(user?.id ?? '')) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash % 8;
}

/**
 * Milliseconds until the next attempt: doubled each time up to half a minute, spread over its upper half so that not all
 * viewers come back at once, and never before the node asked for.
 */
export function backoffMs(attempt, chance, asked_ms = 0) {
  const full = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 16));
  const spread = full * (0.5 + chance / 2);
  return Math.round(Math.max(spread, asked_ms * (1 + chance / 4)));
}

/** What a close frame means: whether to come back, and a sentence. */
export function judgeClose(code, reason) {
  const sentences = {
    1000: 'The node closed the connection.',
    1001: 'This node is being emptied.',
    1005: 'The node closed the connection.',
    1006: 'The connection was cut.',
    4400: 'The node asked to connect again.',
    4408: 'The connection was silent for too long.',
    4410: 'The token has expired.',
    4413: 'This viewer was too slow to keep up.',
    4429: 'Too many bad or too fast messages.',
    4001: 'The token was refused.',
    4003: 'This is forbidden.',
    4004: 'You are banned.',
    4008: 'You were disconnected.',
  };
  const sentence = reason ? `${reason[0].toUpperCase()}${reason.slice(1)}` : sentences[code];
  return { back: !(code >= 4000 && code <= 4099), code, sentence: sentence ?? `The connection ended (${code}).` };
}

/**
 * Why a connection was refused, which a browser's WebSocket does not say: read off the answers that `/readyz` and the
 * room's own address gave to plain requests. An answer is `{status, body}`, or null where there was none.
 */
export function judgeProbe(ready, room) {
  if (ready === null && room === null) {
    return { back: true, code: 'unreachable', sentence: 'The node cannot be reached.' };
  }
  for (const answer of [room, ready]) {
    if (answer === null || answer.status < 400 || answer.status === 404) continue;
    const { code, reason, hint, retry_after_ms } = answer.body ?? {};
    const back = answer.status === 429 || answer.status >= 500;
    const sentence = reason ?? `The node answered ${answer.status}.`;
    return { back, code: code ?? `http_${answer.status}`, sentence, hint, retry_after_ms };
  }
  return {
    back: true,
    code: 'refused',
    sentence: 'The node is up but did not take this connection.',
    hint: "it may admit no more just now, or not know this page's origin (auth.origins); its log and danmaku_refusals_total say which",
  };
}

/** An event as a person reads it: its name, and what its data says in one short line. */
export function describeEvent(event, data) {
  const name = String(event ?? 'event');
  if (data === null || data === undefined) return { name, who: '', what: '' };
  if (typeof data !== 'object') return { name, who: '', what: cut(String(data)) };
  const who = firstText(data, ['user', 'from', 'sender']);
  const thing = firstText(data, ['gift', 'item', 'text', 'message', 'title']);
  const count = ['count', 'amount', 'n'].map((key) => data[key]).find(Number.isFinite);
  if (thing !== '') return { name, who, what: cut(count > 1 ? `${thing} × ${count}` : thing) };
  return { name, who, what: cut(JSON.stringify(data)) };
}

function firstText(data, keys) {
  for (const key of keys) {
    const value = data[key];
    if (typeof value === 'string' && value !== '') return cut(value);
    if (value && typeof value === 'object' && (value.name || value.id)) return cut(nameOf(value));
  }
  return '';
}

function cut(text) {
  const letters = Array.from(text);
  return letters.length > 120 ? `${letters.slice(0, 119).join('')}…` : text;
}

/**
 * How far this viewer has followed one room. It says what is new, so that a line is shown once whatever comes twice, and what
 * was missed, so that nothing is missed in silence.
 */
export class Thread {
  #epoch = null;
  #seq = 0;

  /** What a join carries so that it goes on where it left off; nothing before the first join. */
  resume() {
    return this.#epoch === null ? {} : { epoch: this.#epoch, seq: this.#seq };
  }

  /**
   * Takes a `joined`: `messages` are those to show; `kind` is first, resumed, gap (`missed` lines and events are beyond the history)
   * or renumbered (how many is not known).
   */
  joined({ epoch, seq, recovered, messages = [] }) {
    const before = { epoch: this.#epoch, seq: this.#seq };
    if (before.epoch === null) {
      this.#epoch = epoch;
      this.#seq = seq;
      return { kind: 'first', since: 0, until: seq, epoch, messages: [] };
    }
    if (recovered) {
      const fresh = messages.filter((message) => this.isNew(message));
      this.#seq = Math.max(this.#seq, seq);
      return { kind: 'resumed', since: before.seq, until: seq, epoch, messages: fresh };
    }
    this.#epoch = epoch;
    this.#seq = seq;
    if (before.epoch !== epoch) return { kind: 'renumbered', since: 0, until: seq, epoch, messages: [] };
    return { kind: 'gap', since: before.seq, until: seq, epoch, missed: Math.max(0, seq - before.seq), messages: [] };
  }

  /** Whether a numbered message has not been seen; it counts as seen from then on. What has no number is always new. */
  isNew({ seq }) {
    if (!Number.isFinite(seq)) return true;
    if (seq <= this.#seq) return false;
    this.#seq = seq;
    return true;
  }

  /** Lines up to `upto` that did not come were left out for everyone: a resume need not bring them. */
  leftOut({ upto }) {
    if (Number.isFinite(upto)) this.#seq = Math.max(this.#seq, upto);
  }

  /** The numbering began anew. */
  renumbered({ epoch, seq }) {
    this.#epoch = epoch;
    this.#seq = seq;
  }
}
