// The stage's picture: draws the lines that fly. Owns the canvas and its frame loop. A line's text is drawn once, aside; a frame
// only moves pictures. It never measures in a frame what it drew before, and never keeps more lines than it can show.

import { Lanes, leftOf } from './lanes.mjs';

/** Lines that may wait for a free lane; the oldest is left out when another comes. */
const WAITING_MAX = 64;
/** How long a line waits, in milliseconds: one that comes late says nothing any more. One's own, and standing lines, wait longer. */
const PATIENCE_MS = 1_500;
const PATIENCE_LONG_MS = 10_000;
/** Texts drawn aside per frame, so that a burst does not cost a frame. */
const DRAWN_PER_FRAME = 12;
const LETTERS_MAX = 100;
const FRAMES_KEPT = 120;
const PIXEL_RATIO_MAX = 2;
const FONT = '"Helvetica Neue", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "WenQuanYi Micro Hei", Arial, sans-serif';

export class Flight {
  #canvas;
  #pen;
  #ratio = 1;
  #scale = 1;
  #lanes = new Lanes(1, 1);
  #waiting = [];
  #flying = [];
  #spare = [];
  #measure = document.createElement('canvas').getContext('2d');
  #share = 0.75;
  #opacity = 1;
  #still = false;
  #on = true;
  #now = 0;
  #lastFrame = null;
  #frames = [];
  #skipped = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext('2d');
    new ResizeObserver(() => this.#fit()).observe(canvas);
    document.addEventListener('visibilitychange', () => this.#wake());
    this.#fit();
  }

  /** Whether lines are shown, how much of the stage they may use (0..1), how solid they are (0..1), whether they may move. */
  set({ on = this.#on, share = this.#share, opacity = this.#opacity, still = this.#still }) {
    const cleared = (this.#on && !on) || still !== this.#still;
    this.#on = on;
    this.#share = share;
    this.#opacity = opacity;
    this.#still = still;
    if (cleared) this.clear();
    this.#lanes.resize(this.#canvas.clientWidth, this.#canvas.clientHeight, share);
    this.#wake();
  }

  /** A line for the stage: `{seq, text, style, own}`. Shown as soon as a lane is free, or not at all. */
  add({ seq, text, style, own = false }) {
    if (!this.#on || document.hidden) {
      this.#skipped += 1;
      return;
    }
    const mode = this.#still && style.mode === 'scroll' ? 'still' : style.mode;
    const patience = own || mode === 'top' || mode === 'bottom' ? PATIENCE_LONG_MS : PATIENCE_MS;
    const line = { seq, text: shorten(text), color: style.color, size: style.size, mode, own, width: 0, until: this.#now + patience };
    if (this.#waiting.length === WAITING_MAX) {
      this.#skipped += 1;
      const oldest = this.#waiting.findIndex((other) => !other.own);
      this.#waiting.splice(Math.max(0, oldest), 1);
    }
    this.#waiting.push(line);
    this.#wake();
  }

  /** Takes one line off the stage. */
  remove(seq) {
    this.#waiting = this.#waiting.filter((line) => line.seq !== seq);
    for (const flying of this.#flying) if (flying.line.seq === seq) flying.gone = true;
    this.#wake();
  }

  /** An empty stage. */
  clear() {
    for (const { sprite } of this.#flying) this.#spare.push(sprite);
    this.#flying = [];
    this.#waiting = [];
    this.#lanes.clear();
    this.#wake();
  }

  /** Where every line is now, in CSS pixels from the stage's upper left corner. */
  lines() {
    return this.#flying.map(({ flight, line }) => ({
      seq: line.seq,
      text: line.text,
      mode: line.mode,
      x: leftOf(flight, this.#now),
      y: flight.y,
      width: flight.width,
      height: flight.height,
    }));
  }

  /** Figures of the last frames: per second, milliseconds of drawing (median, worst), lines flying, waiting, left out. */
  figures() {
    const gaps = this.#frames.map((frame) => frame.gap_ms).sort((a, b) => a - b);
    const draws = this.#frames.map((frame) => frame.draw_ms).sort((a, b) => a - b);
    const total = gaps.reduce((sum, gap) => sum + gap, 0);
    return {
      fps: total > 0 ? (1000 * gaps.length) / total : 0,
      frames: gaps.length,
      late: gaps.filter((gap) => gap > 25).length,
      draw_ms_median: draws[draws.length >> 1] ?? 0,
      draw_ms_worst: draws[draws.length - 1] ?? 0,
      flying: this.#flying.length,
      waiting: this.#waiting.length,
      skipped: this.#skipped,
    };
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    this.#ratio = Math.min(PIXEL_RATIO_MAX, window.devicePixelRatio || 1);
    // The same line is as wide a part of a phone's stage as of a desk's.
    this.#scale = Math.min(1, Math.max(0.68, width / 900));
    this.#canvas.width = Math.max(1, Math.round(width * this.#ratio));
    this.#canvas.height = Math.max(1, Math.round(height * this.#ratio));
    this.#lanes.resize(width, height, this.#share);
    this.#wake();
  }

  #wake() {
    if (document.hidden) {
      this.#lastFrame = null;
      return;
    }
    if (this.#lastFrame !== null) return;
    this.#lastFrame = performance.now();
    requestAnimationFrame((time) => this.#frame(time));
  }

  #frame(time) {
    if (this.#lastFrame === null) return;
    const gap_ms = Math.max(0, time - this.#lastFrame);
    this.#lastFrame = time;
    const began = performance.now();
    // The stage's own time stands still while nobody looks.
    this.#now += Math.min(gap_ms, 100);
    this.#land();
    this.#launch();
    this.#draw();
    this.#frames.push({ gap_ms, draw_ms: performance.now() - began });
    if (this.#frames.length > FRAMES_KEPT) this.#frames.shift();
    if (this.#flying.length === 0 && this.#waiting.length === 0) {
      this.#lastFrame = null;
      this.#frames = [];
      return;
    }
    requestAnimationFrame((next) => this.#frame(next));
  }

  #land() {
    let kept = 0;
    for (const flying of this.#flying) {
      if (flying.flight.endsAt > this.#now && !flying.gone) this.#flying[kept++] = flying;
      else this.#spare.push(flying.sprite);
    }
    this.#flying.length = kept;
    // As many as a burst needs; what a larger one left over is given back.
    this.#spare.length = Math.min(this.#spare.length, WAITING_MAX);
  }

  #launch() {
    let drawn = 0;
    let kept = 0;
    for (const line of this.#waiting) {
      const flight = drawn < DRAWN_PER_FRAME ? this.#place(line) : null;
      if (flight !== null) {
        drawn += 1;
        this.#flying.push({ flight, line, sprite: this.#paint(line), gone: false });
      } else if (line.until > this.#now) {
        this.#waiting[kept++] = line;
      } else {
        this.#skipped += 1;
      }
    }
    this.#waiting.length = kept;
  }

  #place(line) {
    if (line.width === 0) {
      this.#measure.font = this.#font(line);
      line.width = Math.ceil(this.#measure.measureText(line.text).width) + this.#pad(line) * 2;
      line.height = Math.ceil(line.size * this.#scale * 1.36);
    }
    const wish = { width: line.width, height: line.height, mode: line.mode, now: this.#now };
    const flight = this.#lanes.place(wish);
    if (flight === null && (line.mode === 'top' || line.mode === 'bottom')) this.#lanes.reserve(wish);
    return flight;
  }

  #font(line) {
    return `600 ${Math.round(line.size * this.#scale)}px ${FONT}`;
  }

  #pad(line) {
    return line.own ? 10 : 3;
  }

  /** The line's picture: text with a dark edge, so that every colour can be read on every ground. */
  #paint(line) {
    const sprite = this.#spare.pop() ?? document.createElement('canvas');
    sprite.width = Math.ceil(line.width * this.#ratio);
    sprite.height = Math.ceil(line.height * this.#ratio);
    const pen = sprite.getContext('2d');
    pen.scale(this.#ratio, this.#ratio);
    if (line.own) {
      pen.strokeStyle = line.color;
      pen.fillStyle = 'rgb(10 10 24 / 45%)';
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.roundRect(1, 1, line.width - 2, line.height - 2, line.height / 2);
      pen.fill();
      pen.stroke();
    }
    pen.font = this.#font(line);
    pen.textBaseline = 'middle';
    pen.lineJoin = 'round';
    pen.lineWidth = Math.max(2.5, line.size * this.#scale * 0.13);
    pen.strokeStyle = edgeOf(line.color);
    pen.fillStyle = line.color;
    const middle = line.height / 2 + 0.5;
    pen.strokeText(line.text, this.#pad(line), middle);
    pen.fillText(line.text, this.#pad(line), middle);
    return sprite;
  }

  #draw() {
    const pen = this.#pen;
    pen.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    pen.globalAlpha = this.#opacity;
    for (const { flight, sprite } of this.#flying) {
      pen.drawImage(sprite, leftOf(flight, this.#now) * this.#ratio, Math.round(flight.y * this.#ratio));
    }
  }
}

/** A dark edge round light text, a light one round dark text. */
function edgeOf(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
  const light = (red * 299 + green * 587 + blue * 114) / 1000;
  return light < 72 ? 'rgb(255 255 255 / 80%)' : 'rgb(8 8 20 / 72%)';
}

/** What fits on the stage in one line; the chat has all of it. */
function shorten(text) {
  const flat = text.replace(/\s+/g, ' ');
  const letters = Array.from(flat);
  return letters.length > LETTERS_MAX ? `${letters.slice(0, LETTERS_MAX - 1).join('')}…` : flat;
}
