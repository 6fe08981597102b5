// What the page makes of messages, closes and refusals.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Thread,
  backoffMs,
  cleanStyle,
  describeEvent,
  hueOf,
  isRoom,
  judgeClose,
  judgeProbe,
  nameOf,
  readFrame,
  readQuery,
} from '../../src/web/protocol.mjs';

test('a frame holds one object or several, and bad ones harm no other', () => {
  assert.deepEqual(readFrame('{"type":"pong","ts":1}'), [{ type: 'pong', ts: 1 }]);
  const frame = '{"type":"a"}\n{"type":\n\n[1]\nnull\n{"type":7}\n{"type":"b","text":"x\\ny"}\n';
  assert.deepEqual(readFrame(frame), [{ type: 'a' }, { type: 'b', text: 'x\ny' }]);
});

test('a style is always whole and in range', () => {
  assert.deepEqual(cleanStyle(undefined), { color: '#ffffff', mode: 'scroll', size: 25 });
  assert.deepEqual(cleanStyle({ color: '#FF00aa', mode: 'top', size: 36 }), { color: '#ff00aa', mode: 'top', size: 36 });
  const hostile = { color: 'url(x)', mode: 'constructor', size: '9' };
  assert.deepEqual(cleanStyle(hostile), { color: '#ffffff', mode: 'scroll', size: 25 });
  assert.equal(cleanStyle({ size: 1e9 }).size, 64);
  assert.equal(cleanStyle({ size: NaN }).size, 25);
});

test('room and token come from the address', () => {
  assert.deepEqual(readQuery('?room=vip-1&token=a.b.c'), { room: 'vip-1', token: 'a.b.c' });
  assert.deepEqual(readQuery(''), { room: '1001', token: null });
  assert.deepEqual(readQuery('?room=%3Cscript%3E&token='), { room: '1001', token: null });
  assert.ok(isRoom('a:b.c_d-9') && isRoom('x'.repeat(128)));
  assert.ok(!isRoom('') && !isRoom('x'.repeat(129)) && !isRoom('房间'));
});

test('names and their colours', () => {
  assert.equal(nameOf(null), 'guest');
  assert.equal(nameOf({ id: 'u1' }), 'u1');
  assert.equal(nameOf({ id: 'u1', name: 'Mei' }), 'Mei');
  assert.equal(hueOf({ id: 'u1' }), hueOf({ id: 'u1', name: 'other' }));
  assert.ok([null, { id: '弹幕🎉' }].every((user) => hueOf(user) >= 0 && hueOf(user) < 8));
});

test('waiting times double to a bound, are spread, and never come before what the node asked', () => {
  assert.equal(backoffMs(0, 1), 500);
  assert.equal(backoffMs(0, 0), 250);
  assert.equal(backoffMs(3, 1), 4_000);
  for (const attempt of [6, 20, 1e6]) assert.equal(backoffMs(attempt, 1), 30_000);
  for (const chance of [0, 0.5, 0.999]) {
    assert.ok(backoffMs(0, chance, 5_000) >= 5_000);
    assert.ok(backoffMs(0, chance, 5_000) <= 6_250);
  }
});

test('close codes: 4000-4099 stay away, everything else comes back', () => {
  for (const code of [4000, 4001, 4003, 4004, 4008, 4099]) assert.equal(judgeClose(code, '').back, false, code);
  for (const code of [1000, 1001, 1005, 1006, 1011, 3999, 4100, 4400, 4408, 4410, 4413, 4429, 4499]) {
    assert.equal(judgeClose(code, '').back, true, code);
  }
  assert.equal(judgeClose(4008, 'bye for now').sentence, 'Bye for now');
  assert.equal(judgeClose(4008, '').sentence, 'You were disconnected.');
  assert.match(judgeClose(4777, '').sentence, /4777/);
});

test('a refusal is read off plain answers', () => {
  const ok = { status: 200, body: {} };
  assert.equal(judgeProbe(null, null).code, 'unreachable');
  const denied = { status: 401, body: { code: 'token_missing', reason: 'no token', hint: 'send one' } };
  assert.deepEqual(judgeProbe(ok, denied), {
    back: false,
    code: 'token_missing',
    sentence: 'no token',
    hint: 'send one',
    retry_after_ms: undefined,
  });
  const full = { status: 503, body: { code: 'connections_full', reason: 'full', hint: 'later', retry_after_ms: 5000 } };
  const verdict = judgeProbe(full, { status: 404, body: { code: 'room_not_found' } });
  assert.deepEqual([verdict.back, verdict.code, verdict.retry_after_ms], [true, 'connections_full', 5000]);
  assert.equal(judgeProbe(ok, { status: 429, body: null }).back, true);
  assert.equal(judgeProbe(ok, { status: 502, body: null }).code, 'http_502');
  assert.match(judgeProbe(ok, ok).hint, /auth\.origins/);
});

test('events are told in one short line', () => {
  assert.deepEqual(describeEvent('gift', { user: { id: 'a', name: 'Ken' }, gift: 'Rocket', count: 3 }), {
    name: 'gift',
    who: 'Ken',
    what: 'Rocket × 3',
  });
  assert.deepEqual(describeEvent('sale', null), { name: 'sale', who: '', what: '' });
  assert.equal(describeEvent('x', 'plain').what, 'plain');
  assert.equal(describeEvent('x', { odd: [1, 2] }).what, '{"odd":[1,2]}');
  assert.equal(Array.from(describeEvent('x', '🎉'.repeat(500)).what).length, 120);
  assert.equal(describeEvent('x', { count: {}, gift: { toString: 1 } }).name, 'x');
});

test('a thread shows every line once and says what was missed', () => {
  const thread = new Thread();
  assert.deepEqual(thread.resume(), {});
  assert.equal(thread.joined({ epoch: 7, seq: 10, recovered: false }).kind, 'first');
  assert.ok(thread.isNew({ seq: 11 }) && !thread.isNew({ seq: 11 }) && !thread.isNew({ seq: 9 }));
  assert.ok(thread.isNew({ type: 'online' }));
  assert.deepEqual(thread.resume(), { epoch: 7, seq: 11 });

  const messages = [{ seq: 11 }, { seq: 12 }, { seq: 13 }];
  const back = thread.joined({ epoch: 7, seq: 13, recovered: true, messages });
  assert.equal(back.kind, 'resumed');
  assert.deepEqual(back.messages, [{ seq: 12 }, { seq: 13 }]);
  assert.ok(!thread.isNew({ seq: 13 }) && thread.isNew({ seq: 14 }));

  const gap = thread.joined({ epoch: 7, seq: 200, recovered: false });
  assert.deepEqual([gap.kind, gap.missed, gap.since, gap.until], ['gap', 186, 14, 200]);
  const anew = thread.joined({ epoch: 8, seq: 3, recovered: false });
  assert.equal(anew.kind, 'renumbered');
  assert.ok(!thread.isNew({ seq: 3 }) && thread.isNew({ seq: 4 }));
  thread.leftOut({ count: 3 });
  assert.ok(thread.isNew({ seq: 5 }));
  thread.leftOut({ count: 3, upto: 8 });
  assert.ok(!thread.isNew({ seq: 8 }) && thread.isNew({ seq: 9 }));
  thread.renumbered({ epoch: 9, seq: 0 });
  assert.ok(thread.isNew({ seq: 1 }));
});
