// Where lines fly: the rows of the stage and who is in them. Pure: sizes and time (milliseconds) are arguments, nothing is drawn.
// Two flights never share a point of the stage: every answer of `place` holds for the whole flight, so nothing is
// looked at again in the frame loop.

/** Height of a row in CSS pixels. A line takes as many rows as it needs. */
export const ROW_PX = 8;
/** Least distance between two lines in the same row, in CSS pixels. */
export const GAP_PX = 24;
/** How long a top or bottom line stands, in milliseconds. */
export const STAND_MS = 4500;
/** Standing lines keep to this share of the stage from their edge, and may hold back movers on half as much. */
const STAND_SHARE = 0.5;
/** How long rows are held free for a standing line that waits; it asks again every frame. */
const RESERVE_MS = 300;

/** Time from the right edge to gone, in milliseconds: wide stages take longer, so that speed stays readable. */
export function crossingMs(width) {
  return Math.min(10_000, Math.max(5_500, 4_500 + width * 4));
}

/** Left edge of a flight at a moment, in CSS pixels. */
export function leftOf(flight, now) {
  return flight.fromX - flight.speed * (now - flight.bornAt);
}

export class Lanes {
  #width = 0;
  #rows = [];
  #reservedUntil = [];
  #usable = 0;

  /** A stage of that many CSS pixels, of which lines may use `share` (above 0, at most 1) from the top. */
  constructor(width, height, share = 1) {
    this.resize(width, height, share);
  }

  /** Lines under way fly on as they were; rows that no longer exist are forgotten. */
  resize(width, height, share) {
    this.#width = Math.max(1, width);
    const count = Math.max(1, Math.floor(height / ROW_PX));
    while (this.#rows.length < count) {
      this.#rows.push([]);
      this.#reservedUntil.push(0);
    }
    this.#rows.length = count;
    this.#reservedUntil.length = count;
    this.#usable = Math.max(1, Math.round(count * share));
  }

  /** Forgets all flights. */
  clear() {
    for (const row of this.#rows) row.length = 0;
  }

  /**
   * A flight for a line of that size, or null where there is no room for it now.
   * A line higher than the stage's share gets all of it.
   */
  place({ width, height, mode, now }) {
    const needs = Math.min(this.#usable, Math.max(1, Math.ceil(height / ROW_PX)));
    const flight = mode === 'scroll' ? this.#mover(width, now) : this.#stander(width, now);
    const fits = mode === 'scroll' ? moverFits : standerFits;
    const row = this.#find(flight, needs, mode, fits, now);
    if (row === null) return null;
    Object.assign(flight, { mode, row, rows: needs, y: row * ROW_PX, width, height });
    for (let at = row; at < row + needs; at += 1) this.#rows[at].push(flight);
    return flight;
  }

  /** Keeps movers from entering the rows at the edge where a standing line waits. */
  reserve({ height, mode, now }) {
    const needs = Math.max(1, Math.ceil(height / ROW_PX));
    const held = Math.max(needs, Math.floor(this.#usable * STAND_SHARE * 0.5));
    const isFree = (row) => !this.#rows[row].some((f) => f.speed === 0 && f.endsAt > now);
    const order = this.#standRows(mode).slice(0, held);
    let taken = 0;
    for (const row of order) {
      if (taken === needs) return;
      if (isFree(row)) {
        this.#reservedUntil[row] = now + RESERVE_MS;
        taken += 1;
      } else {
        taken = 0;
      }
    }
  }

  #mover(width, now) {
    const crossing = crossingMs(this.#width);
    const speed = (this.#width + width) / crossing;
    return { fromX: this.#width, speed, bornAt: now, endsAt: now + crossing, width };
  }

  #stander(width, now) {
    const fromX = (this.#width - width) / 2;
    return { fromX, speed: 0, bornAt: now, endsAt: now + STAND_MS, width };
  }

  /** The first run of rows that are all free for it, seen from the edge of its mode. */
  #find(flight, needs, mode, fits, now) {
    let run = 0;
    for (const row of mode === 'scroll' ? this.#flyRows() : this.#standRows(mode)) {
      const tenants = this.#rows[row];
      if (tenants.length > 0 && tenants.some((f) => f.endsAt <= now)) {
        this.#rows[row] = tenants.filter((f) => f.endsAt > now);
      }
      const held = mode === 'scroll' && this.#reservedUntil[row] > now;
      const free = !held && this.#rows[row].every((other) => fits(flight, other, now));
      run = free ? run + 1 : 0;
      if (run === needs) return mode === 'bottom' ? row : row - needs + 1;
    }
    return null;
  }

  #flyRows() {
    return Array.from({ length: this.#usable }, (_, row) => row);
  }

  /** Rows for standing lines, nearest to their edge first. `still` is a scrolling line where motion is not wanted. */
  #standRows(mode) {
    if (mode === 'still') return this.#flyRows();
    const count = Math.max(1, Math.ceil(this.#usable * STAND_SHARE));
    const last = this.#rows.length - 1;
    return Array.from({ length: count }, (_, at) => (mode === 'bottom' ? last - at : at));
  }
}

/** Whether a line that enters now never touches one that is in the row. */
function moverFits(flight, other, now) {
  if (other.speed === 0) {
    const leftAtItsEnd = leftOf(flight, other.endsAt);
    return leftAtItsEnd >= other.fromX + other.width + GAP_PX;
  }
  const tail = leftOf(other, now) + other.width + GAP_PX;
  if (tail > flight.fromX) return false;
  // Both distances are straight lines over time: apart now and apart when the other is gone is apart all the while.
  const goneAt = now + Math.max(0, tail) / other.speed;
  return leftOf(flight, goneAt) >= 0;
}

/** Whether a line that stands from now on is never touched by one that is in the row. */
function standerFits(flight, other, now) {
  if (other.speed === 0) return false;
  const hasPassed = leftOf(other, now) + other.width + GAP_PX <= flight.fromX;
  const comesLater = leftOf(other, flight.endsAt) >= flight.fromX + flight.width + GAP_PX;
  return hasPassed || comesLater;
}
