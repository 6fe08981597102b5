// The stage in headless Chromium, against nodes that tests/stage.rs starts and names in STAGE_NODES:
// `open` lets anybody speak, `locked` nobody in without a token, `full` has one place and takes one line a second; `key` is their API key, `token` Mei's.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, test as unbounded } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { api, openBrowser, overlaps, push } from './support.mjs';

const PATIENCE_MS = 20_000;
const nodes = JSON.parse(process.env.STAGE_NODES);
let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser.close(), { timeout: PATIENCE_MS });

/** A test that waits for ever, as for a promise inside the page, is one that fails. */
const test = (name, run) => unbounded(name, { timeout: 6 * PATIENCE_MS }, run);

/** A page in a context of its own, and what went wrong in it: console errors, exceptions, policy violations, outside requests. */
async function open(address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (said) => said.type() === 'error' && wrong.push(said.text()));
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('dialog', (dialog) => wrong.push(`dialog: ${dialog.message()}`));
  const host = new URL(address).host;
  page.on('request', (request) => new URL(request.url()).host === host || wrong.push(`outside: ${request.url()}`));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`));
  });
  await page.goto(address);
  return { page, wrong, close: () => context.close() };
}

const at = (node, room, more = '') => `http://${node.public}/?room=${room}${more}`;
const state = (page, name) => page.waitForFunction((wanted) => document.body.dataset.state === wanted, name);
const texts = (page) => page.$$eval('#chat .line .text', (entries) => entries.map((entry) => entry.textContent));
const said = (page, text) => page.locator('#chat .line .text', { hasText: text }).first().waitFor();

async function say(page, text) {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
}

async function clean({ page, wrong }) {
  assert.deepEqual(wrong, []);
  assert.deepEqual(await page.evaluate(() => window.violations), []);
}

test('a line typed in one page is seen in another, on the stage and in the chat', async () => {
  const [one, two] = [await open(at(nodes.open, 'pair')), await open(at(nodes.open, 'pair', `&token=${nodes.token}`))];
  await Promise.all([state(one.page, 'live'), state(two.page, 'live')]);
  await one.page.waitForFunction(() => document.getElementById('online').textContent === '2');
  assert.equal(await two.page.textContent('#who'), 'Mei');
  await say(one.page, '弹幕 from one 🎉');
  await two.page.check('input[value="#ff6b81"]', { force: true });
  await said(two.page, '弹幕 from one 🎉');
  await two.page.check('input[value="top"]', { force: true });
  await say(two.page, 'standing, from two');
  await said(one.page, 'standing, from two');
  const flies = (text) => window.danmakuStage.lines().find((line) => line.text === text)?.mode;
  await one.page.waitForFunction(flies, '弹幕 from one 🎉');
  assert.equal(await one.page.evaluate(flies, 'standing, from two'), 'top');
  assert.equal(await one.page.locator('#chat .own').count(), 1, "one's own line is marked");
  assert.equal(await two.page.locator('#chat .own .name').textContent(), 'Mei');
  assert.equal(await one.page.inputValue('#text'), '');

  const gift = { user: { id: 'k', name: 'Ken' }, gift: 'Rocket', count: 3 };
  await api(nodes.open, 'POST', '/api/v1/danmaku/push', { room: 'pair', type: 'event', event: 'gift', data: gift });
  await one.page.locator('#gifts .banner', { hasText: 'Ken' }).waitFor();
  await one.page.locator('#chat .gift', { hasText: 'Rocket × 3' }).waitFor();
  await api(nodes.open, 'POST', '/api/v1/broadcast', { event: 'maintenance', data: { text: 'at noon' } });
  await one.page.locator('#chat .event', { hasText: 'maintenance to everyone' }).waitFor();

  // A newcomer is shown what was said before.
  const late = await open(at(nodes.open, 'pair'));
  await said(late.page, '弹幕 from one 🎉');
  for (const each of [one, two, late]) {
    await clean(each);
    await each.close();
  }
});

test('markup arrives as text and nothing runs', async () => {
  const watching = await open(at(nodes.open, 'markup'));
  await state(watching.page, 'live');
  const hostile = '<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b>';
  await say(watching.page, hostile);
  await said(watching.page, '<b>bold</b>');
  await push(nodes.open, 'markup', 'second', { user: { id: 'x', name: '<img src=x onerror=alert(3)>' }, style: { color: '#00ff00' } });
  const data = { user: '<svg onload=alert(4)>', gift: '<i>x</i>' };
  await api(nodes.open, 'POST', '/api/v1/danmaku/push', { room: 'markup', type: 'event', event: 'gift', data });
  await watching.page.locator('#chat .gift').waitFor();
  assert.equal((await texts(watching.page))[0], hostile);
  assert.equal(await watching.page.locator('#chat img, #chat script, #chat b, #chat svg, #gifts svg, #gifts i').count(), 0);
  await watching.page.locator('#chat .name', { hasText: 'onerror' }).waitFor();
  await clean(watching);
  await watching.close();
});

/** A TCP relay that can be cut and mended: the network between page and node. */
async function relay(target) {
  const [host, port] = target.split(':');
  const sockets = new Set();
  const serve = (client) => {
    const upstream = net.connect({ host, port: Number(port) });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.on('close', () => sockets.delete(socket));
    }
    client.pipe(upstream);
    upstream.pipe(client);
  };
  // Unreferenced: a test that fails halfway leaves it behind, and it must not keep this process.
  const listen = async (at) => {
    const listening = net.createServer(serve).unref();
    listening.listen(at, '127.0.0.1');
    await once(listening, 'listening');
    return listening;
  };
  let server = await listen(0);
  const { port: own } = server.address();
  return {
    address: `127.0.0.1:${own}`,
    cut() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
    async mend() {
      server = await listen(own);
    },
  };
}

test('a cut is healed: no line missing, none twice', async () => {
  const wire = await relay(nodes.open.public);
  const { page, close } = await open(at({ public: wire.address }, 'cut'));
  await state(page, 'live');
  const wanted = [];
  let number = 0;
  const pushSome = async (count) => {
    for (let end = number + count; number < end; number += 1) {
      wanted.push(`line ${number}`);
      await push(nodes.open, 'cut', `line ${number}`);
    }
  };
  for (let round = 0; round < 2; round += 1) {
    await pushSome(10);
    wire.cut();
    await state(page, 'waiting');
    assert.match(await page.textContent('#state'), /^Reconnecting in \d+ s$/);
    assert.notEqual(await page.textContent('#why-text'), '');
    await pushSome(15);
    await wire.mend();
    await page.click('#again');
    await state(page, 'live');
    await pushSome(5);
    await said(page, `line ${number - 1}`);
  }
  assert.deepEqual(await texts(page), wanted);
  await page.locator('#chat .note', { hasText: 'caught up' }).first().waitFor();

  // Longer away than the room remembers: that is said, and what is left is shown once.
  wire.cut();
  await state(page, 'waiting');
  await pushSome(130);
  await wire.mend();
  await page.click('#again');
  await page.locator('#chat .note', { hasText: '130 lines went by' }).waitFor();
  await said(page, `line ${number - 1}`);
  const after = await texts(page);
  assert.equal(new Set(after).size, after.length, 'none twice');
  assert.deepEqual(after.slice(60), wanted.slice(-(after.length - 60)));
  wire.cut();
  await close();
});

test('close codes decide: asked to come back it does, sent away it does not', async () => {
  const { page, close } = await open(at(nodes.open, 'sent', `&token=${nodes.token}`));
  await state(page, 'live');
  // A room in which something was said is remembered while nobody is in it.
  await say(page, 'before');
  await said(page, 'before');
  await api(nodes.open, 'POST', '/api/v1/users/mei/disconnect', { reason: 'please come back', reconnect: true });
  await page.locator('#chat .note', { hasText: 'nothing was missed' }).waitFor();
  await state(page, 'live');
  await api(nodes.open, 'POST', '/api/v1/rooms/sent/kick', { user: 'mei', reason: 'mind your words' });
  await state(page, 'refused');
  assert.equal(await page.textContent('#why-text'), 'mind your words');
  assert.equal(await page.textContent('#why-code'), 'kicked');
  await page.click('#again');
  await state(page, 'live');
  await api(nodes.open, 'POST', '/api/v1/users/mei/disconnect', { reason: 'go home' });
  await state(page, 'refused');
  assert.equal(await page.textContent('#why-text'), 'Go home');
  await sleep(700);
  await state(page, 'refused');
  await close();
});

test('a refused connection says why', async () => {
  const denied = await open(at(nodes.locked, 'a'));
  await state(denied.page, 'refused');
  assert.equal(await denied.page.textContent('#why-code'), 'token_missing');
  assert.match(await denied.page.textContent('#why-text'), /without a token/);
  assert.match(await denied.page.textContent('#why-hint'), /danmaku token/);
  await denied.page.goto(at(nodes.locked, 'a', '&token=not.a.token'));
  await state(denied.page, 'refused');
  assert.equal(await denied.page.textContent('#why-code'), 'token_invalid');
  await denied.close();

  // One place: the second waits as long as it is asked to, and says what for.
  const first = await open(at(nodes.full, 'a'));
  await state(first.page, 'live');
  const second = await open(at(nodes.full, 'a'));
  await state(second.page, 'waiting');
  assert.equal(await second.page.textContent('#why-code'), 'connections_full');
  await first.close();
  await second.page.click('#again');
  await state(second.page, 'live');
  await second.close();
});

test('errors of the node are shown as it said them, with the time to wait, and the line is given back', async () => {
  // This node takes one line a second; both are sent at once.
  const { page, close } = await open(at(nodes.full, 'flood'));
  await state(page, 'live');
  const told = page.waitForFunction(() => document.getElementById('problem').textContent);
  await page.evaluate(() => {
    for (const line of ['taken', 'too fast']) {
      document.getElementById('text').value = line;
      document.getElementById('composer').requestSubmit();
    }
  });
  assert.match(await (await told).jsonValue(), /more than 1 lines per second – again in [\d.]+ s/);
  await page.waitForFunction(() => document.getElementById('text').value === 'too fast');
  await said(page, 'taken');
  assert.deepEqual(await texts(page), ['taken']);
  await close();
});

test('another room is entered in place, and back', async () => {
  const moving = await open(at(nodes.open, 'here'));
  await state(moving.page, 'live');
  await say(moving.page, 'said here');
  await said(moving.page, 'said here');
  await moving.page.fill('#room', 'no such room!');
  await moving.page.press('#room', 'Enter');
  assert.match(await moving.page.textContent('#problem'), /A room is/);
  await moving.page.fill('#room', 'there');
  await moving.page.press('#room', 'Enter');
  await moving.page.locator('#chat .note', { hasText: 'You are in room there' }).waitFor();
  await push(nodes.open, 'here', 'not for there');
  await push(nodes.open, 'there', 'for there');
  await said(moving.page, 'for there');
  assert.deepEqual(await texts(moving.page), ['for there']);
  assert.match(moving.page.url(), /room=there/);
  await moving.page.goBack();
  await said(moving.page, 'not for there');
  assert.deepEqual(await texts(moving.page), ['said here', 'not for there']);
  await clean(moving);
  await moving.close();
});

test('the browser agrees upon compression, and a batch reaches it whole', async () => {
  await api(nodes.open, 'PUT', '/api/v1/rooms/small', { tick_ms: 500 });
  const { page, close } = await open(at(nodes.open, 'small'));
  await state(page, 'live');
  const socket = page.evaluate((address) => new Promise((done, failed) => {
    const texts = [];
    const ws = new WebSocket(address, ['danmaku.v1.batch']);
    ws.onerror = () => failed(new Error('the socket failed'));
    ws.onmessage = ({ data }) => {
      for (const line of data.split('\n').map((text) => JSON.parse(text))) {
        if (line.type === 'joined') window.joined = true;
        if (line.type === 'danmaku') texts.push(line.text);
      }
      if (texts.length === 30) done([ws.extensions, texts]);
    };
  }), `ws://${nodes.open.public}/ws?room=small`);
  await page.waitForFunction(() => window.joined);
  const lines = Array.from({ length: 30 }, (_, n) => `弹幕 ${n}`);
  const requests = lines.map((text) => ({ method: 'POST', path: '/api/v1/danmaku/push', body: { room: 'small', text } }));
  await api(nodes.open, 'POST', '/api/v1/batch', { requests });
  const [extensions, texts] = await socket;
  assert.match(extensions, /^permessage-deflate/);
  assert.deepEqual(texts, lines);
  const metrics = await (await fetch(`http://${nodes.open.internal}/metrics`)).text();
  assert.ok(Number(metrics.match(/^danmaku_deflated_messages_total (\d+)/m)[1]) > 0);
  await close();
});

test('two hundred lines on the stage: none touches another; what drawing costs', async () => {
  const crowded = await open(at(nodes.open, 'crowd'), { viewport: { width: 1920, height: 1080 } });
  const { page } = crowded;
  await state(page, 'live');
  await page.fill('#density', '100');
  const modes = ['scroll', 'scroll', 'scroll', 'scroll', 'scroll', 'scroll', 'scroll', 'top', 'bottom'];
  const deadline = Date.now() + PATIENCE_MS;
  let most = 0;
  for (let line = 0; most < 200 && Date.now() < deadline; line += 24) {
    const batch = Array.from({ length: 24 }, (_, at) => {
      const style = { color: '#ffffff', mode: modes[(line + at) % modes.length], size: 14 + ((line + at) % 3) * 2 };
      return push(nodes.open, 'crowd', `crowd line ${line + at}${'!'.repeat((line + at) % 13)}`, { style });
    });
    await Promise.all(batch);
    const lines = await page.evaluate(() => window.danmakuStage.lines());
    assert.deepEqual(overlaps(lines), []);
    most = Math.max(most, lines.length);
  }
  assert.ok(most >= 200, `only ${most} lines were on the stage at once`);
  // Two seconds of nothing but drawing.
  await sleep(2_000);
  const figures = await page.evaluate(() => window.danmakuStage.figures());
  console.log(`stage: ${most} lines at once, ${figures.flying} at the end; ${figures.fps.toFixed(1)} frames/s, ${figures.late} of ${figures.frames} frames late,`,
    `drawing ${figures.draw_ms_median.toFixed(2)} ms median, ${figures.draw_ms_worst.toFixed(2)} ms worst`);
  assert.ok((await page.locator('#chat > li').count()) <= 300, 'the chat is bounded');
  // Switched off, the stage is empty; the chat goes on.
  await page.uncheck('#flying', { force: true });
  await push(nodes.open, 'crowd', 'unseen but read');
  await said(page, 'unseen but read');
  assert.deepEqual(await page.evaluate(() => window.danmakuStage.lines()), []);
  await clean(crowded);
  await crowded.close();
});

test('phone and desk, dark and light, with and without motion: nothing is cut off, everything is named', async () => {
  for (const viewport of [{ width: 390, height: 844 }, { width: 1280, height: 800 }]) {
    for (const colorScheme of ['dark', 'light']) {
      const shown = await open(at(nodes.open, 'looks'), { viewport, colorScheme, reducedMotion: 'reduce' });
      const { page } = shown;
      await state(page, 'live');
      if (viewport.width < 700) await page.click('#options');
      const cut = await page.evaluate(() => {
        const inside = ({ left, right, top, bottom }) => left >= 0 && right <= innerWidth + 0.5 && top >= 0 && bottom <= innerHeight + 0.5;
        const wanted = ['#stage', '#chat', '#text', '.send', '.pill', '#online', '#room', '#density', '.colors', '.switch'];
        return wanted.filter((name) => !inside(document.querySelector(name).getBoundingClientRect()));
      });
      assert.deepEqual(cut, [], `${viewport.width} ${colorScheme}`);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(ground, colorScheme === 'dark' ? 'rgb(14, 13, 25)' : 'rgb(241, 240, 248)');
      const unnamed = await page.$$eval('input, button', (controls) =>
        controls.filter((c) => !c.labels?.[0]?.textContent.trim() && !c.getAttribute('aria-label') && !c.textContent.trim()).map((c) => c.outerHTML));
      assert.deepEqual(unnamed, []);
      await say(page, `still ${viewport.width} ${colorScheme}`);
      await page.waitForFunction(() => window.danmakuStage.lines().some((line) => line.mode === 'still'));
      await clean(shown);
      await shown.close();
    }
  }
});
