// The rows of the stage: no two flights ever share a point of it, whatever comes and however the stage is resized.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GAP_PX, Lanes, ROW_PX, STAND_MS, crossingMs, leftOf } from '../../src/web/lanes.mjs';
import { overlaps } from './support.mjs';

const line = (more) => ({ width: 200, height: 32, mode: 'scroll', now: 0, ...more });
const boxes = (flights, now) =>
  flights.map((f) => ({ x: leftOf(f, now), y: f.y, width: f.width, height: f.height }));

/** A small generator with a seed, so that a failure can be repeated. */
function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test('a line crosses the whole stage in its time', () => {
  const lanes = new Lanes(1000, 320);
  const flight = lanes.place(line());
  assert.equal(leftOf(flight, 0), 1000);
  assert.ok(Math.abs(leftOf(flight, crossingMs(1000)) + 200) < 1e-6);
  assert.equal(flight.y % ROW_PX, 0);
});

test('the next line takes the lane only when the tail has entered far enough', () => {
  const lanes = new Lanes(1000, 32);
  const first = lanes.place(line());
  assert.equal(lanes.place(line({ now: 1 })), null);
  const enters = (200 + GAP_PX) / first.speed;
  assert.equal(lanes.place(line({ now: enters - 1 })), null);
  assert.notEqual(lanes.place(line({ now: enters + 1 })), null);
});

test('a faster follower waits until it will not catch up', () => {
  const lanes = new Lanes(1000, 32);
  const slow = lanes.place(line({ width: 50 }));
  const wide = line({ width: 2000 });
  const enters = (50 + GAP_PX) / slow.speed;
  assert.equal(lanes.place({ ...wide, now: enters + 1 }), null, 'there is room at the edge, but it would be caught');
  assert.notEqual(lanes.place({ ...wide, now: slow.endsAt }), null);
});

test('lanes fill from the top, and no further than their share', () => {
  const lanes = new Lanes(1000, 320, 0.5);
  const rows = [];
  for (let flight = lanes.place(line()); flight !== null; flight = lanes.place(line())) rows.push(flight.y);
  assert.deepEqual(rows, [0, 32, 64, 96, 128]);
});

test('top and bottom lines stand in the middle at their edges, stacked', () => {
  const lanes = new Lanes(1000, 320);
  const top = [0, 1].map(() => lanes.place(line({ mode: 'top' })));
  const bottom = [0, 1].map(() => lanes.place(line({ mode: 'bottom' })));
  assert.deepEqual(top.map((f) => f.y), [0, 32]);
  assert.deepEqual(bottom.map((f) => f.y), [288, 256]);
  assert.equal(leftOf(top[0], 3000), 400);
  assert.notEqual(lanes.place(line({ mode: 'top', now: STAND_MS })), null);
});

test('a standing line that waits gets its rows: movers are held back there', () => {
  const lanes = new Lanes(1000, 64);
  const random = chance(3);
  let placedAt = null;
  for (let now = 0; now < 20_000 && placedAt === null; now += 16) {
    const wish = line({ mode: 'top', now });
    if (now > 2000 && lanes.place(wish) !== null) placedAt = now;
    else if (now > 2000) lanes.reserve(wish);
    lanes.place(line({ width: 60 + random() * 300, now }));
  }
  assert.ok(placedAt !== null && placedAt < 2000 + crossingMs(1000) + 200, `placed at ${placedAt}`);
});

test('a line higher than the stage is placed, one without motion stands', () => {
  assert.notEqual(new Lanes(300, 20).place(line({ height: 87 })), null);
  const still = new Lanes(1000, 320).place(line({ mode: 'still' }));
  assert.equal(still.speed, 0);
});

test('no two lines ever touch, in any mixture and while the stage is resized', () => {
  for (let seed = 1; seed <= 12; seed += 1) {
    const random = chance(seed);
    let [width, height] = [300 + random() * 1300, 120 + random() * 800];
    const lanes = new Lanes(width, height, 0.3 + random() * 0.7);
    let flights = [];
    let placed = 0;
    for (let now = 0; now < 25_000; now += 16 + random() * 30) {
      if (random() < 0.002) {
        [width, height] = [300 + random() * 1300, 120 + random() * 800];
        lanes.resize(width, height, 0.3 + random() * 0.7);
      }
      for (let offered = 0; offered < 3; offered += 1) {
        const mode = ['scroll', 'scroll', 'scroll', 'scroll', 'top', 'bottom', 'still'][Math.floor(random() * 7)];
        const wish = { width: 20 + random() ** 3 * 1500, height: 16 + random() * 70, mode, now };
        const flight = lanes.place(wish);
        if (flight !== null) flights.push(flight);
        else if (mode !== 'scroll') lanes.reserve(wish);
        placed += flight === null ? 0 : 1;
      }
      flights = flights.filter((flight) => flight.endsAt > now);
      // A line higher than the share of a small stage is cut to it; what is drawn is compared.
      const shown = boxes(flights, now).map((box, at) => ({ ...box, height: flights[at].rows * ROW_PX }));
      assert.deepEqual(overlaps(shown), [], `seed ${seed} at ${now}`);
    }
    assert.ok(placed > 100, `seed ${seed} placed only ${placed}`);
  }
});
