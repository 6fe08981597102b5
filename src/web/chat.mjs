// The chat list: what was said, as text and never as markup. Owns the list element; keeps a bounded number of entries and writes
// to the page once per frame, however many lines came.

import { describeEvent, hueOf, nameOf } from './protocol.mjs';

/** Entries the list keeps. */
const ENTRIES_MAX = 300;
/** Within so many pixels of the end the list follows what comes. */
const AT_END_PX = 48;
/** How often the list is written while the page is hidden, when there are no frames. */
const HIDDEN_MS = 1_000;

export class Chat {
  #list;
  #newest;
  #pending = [];
  #scheduled = false;
  #follows = true;

  /** `list` is the element entries go into, `newest` the button that leads to its end. */
  constructor(list, newest) {
    this.#list = list;
    this.#newest = newest;
    list.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    newest.addEventListener('click', () => {
      this.#follow(true);
      list.focus({ preventScroll: true });
    });
  }

  /** What somebody said. */
  line(message, own) {
    this.#append(lineEntry(message, own));
  }

  /** A gift or another event: of the room, to everyone, or to this user. */
  event(message) {
    this.#append(eventEntry(message));
  }

  /** What the page has to say itself. The entry is returned: `before` puts earlier lines above it. */
  note(text, kind = 'plain') {
    const entry = element('li', `note ${kind}`, text);
    this.#append(entry);
    return entry;
  }

  /** Earlier lines and events, in order, above an entry that is still there. */
  before(entry, messages) {
    this.#write();
    if (entry.parentNode !== this.#list) return;
    const earlier = document.createDocumentFragment();
    for (const message of messages) {
      earlier.append(message.type === 'event' ? eventEntry(message) : lineEntry(message, false));
    }
    this.#list.insertBefore(earlier, entry);
    this.#trim();
  }

  /** Marks one's own line, whose number became known after it came. False: it has not come yet. */
  mine(seq) {
    this.#write();
    const entry = this.#bySeq(seq);
    entry?.classList.add('own');
    return entry !== null;
  }

  /** A line was taken back. */
  recall(seq) {
    this.#write();
    const entry = this.#bySeq(seq);
    if (entry) entry.replaceChildren(element('span', 'text', 'This line was taken back.'));
    entry?.classList.add('recalled');
  }

  clear() {
    this.#pending = [];
    this.#list.replaceChildren();
    this.#follow(true);
  }

  #bySeq(seq) {
    return this.#list.querySelector(`[data-seq="${CSS.escape(String(seq))}"]`);
  }

  #append(entry) {
    this.#pending.push(entry);
    if (this.#pending.length > ENTRIES_MAX) this.#pending.shift();
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (document.hidden) setTimeout(() => this.#write(), HIDDEN_MS);
    else requestAnimationFrame(() => this.#write());
  }

  #write() {
    this.#scheduled = false;
    if (this.#pending.length === 0) return;
    this.#list.append(...this.#pending);
    this.#pending = [];
    this.#trim();
  }

  #trim() {
    for (let over = this.#list.childElementCount - ENTRIES_MAX; over > 0; over -= 1) {
      this.#list.firstElementChild.remove();
    }
    if (this.#follows) this.#list.scrollTop = this.#list.scrollHeight;
    else this.#newest.hidden = false;
  }

  #scrolled() {
    const below = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight;
    this.#follow(below < AT_END_PX, false);
  }

  #follow(follows, jump = follows) {
    this.#follows = follows;
    if (follows) this.#newest.hidden = true;
    if (jump) this.#list.scrollTop = this.#list.scrollHeight;
  }
}

function lineEntry({ seq, ts, user, text, style }, own) {
  const entry = element('li', own ? 'line own' : 'line');
  entry.dataset.seq = seq;
  const time = element('time', '', clockOf(ts));
  time.dateTime = new Date(ts).toISOString();
  const said = element('span', 'text', text);
  if (style.color !== '#ffffff') {
    const dot = element('i', 'tint');
    dot.style.backgroundColor = style.color;
    said.prepend(dot);
  }
  const name = element('span', user ? `name hue-${hueOf(user)}` : 'name guest', nameOf(user));
  // Spaces between the parts, for those who hear or copy them.
  entry.append(name, ' ', said, ' ', time);
  return entry;
}

function eventEntry({ seq, type, event, data }) {
  const { name, who, what } = describeEvent(event, data);
  const entry = element('li', `event ${name === 'gift' ? 'gift' : ''}`);
  if (seq !== undefined) entry.dataset.seq = seq;
  const scope = { broadcast: 'to everyone', push: 'to you' }[type];
  entry.append(element('span', 'kind', scope ? `${name} ${scope}` : name));
  if (who !== '') entry.append(' ', element('span', 'name', who));
  if (what !== '') entry.append(' ', element('span', 'text', what));
  return entry;
}

function clockOf(ts) {
  const at = new Date(ts);
  return [at.getHours(), at.getMinutes()].map((part) => String(part).padStart(2, '0')).join(':');
}

/** An element with a class and text: text, whatever it looks like. */
export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
