// Takes the screenshots of docs/images: both sizes, both colour schemes, over a node of its own on free ports.
// Usage: node tests/stage/shots.mjs (after `cargo build` and `scripts/test.sh`; with Debian's pngquant, fonts-wqy-microhei and
// fonts-noto-color-emoji, so that the pictures are small and every script is drawn).

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { api, client, openBrowser, push, root } from './support.mjs';

const SIZES = { desk: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };
const PEOPLE = ['Mei', 'Ken', 'Ana', '小林', 'Noor', 'Léa', 'Tom', 'さくら', 'Ivo', '阿杰'];
const LINES = [
  ['来了来了！', '#ffffff'], ['first time here, hello everyone', '#4dd4ff'], ['前方高能', '#ff6b81', 'scroll', 36], ['that intro though', '#ffffff'],
  ['こんばんは！', '#f28cf5'], ['awesome 🎉🎉🎉', '#ffe066'], ['哈哈哈哈哈哈哈', '#ffffff'], ['encore!', '#69db7c', 'scroll', 36],
  ['sound is great tonight', '#ffffff'], ['🔥🔥🔥', '#ffffff'], ['这个舞台太美了', '#9a9dff'], ['can we see the drummer?', '#ffffff'],
  ['bonsoir de Lyon', '#ffa94d', 'scroll', 18], ['弹幕护体', '#ff6b81'], ['the lights are unreal', '#ffffff'], ['拍手 👏👏', '#ffffff'],
  ['greetings from Porto', '#69db7c'], ['who else is watching on the train', '#ffffff', 'scroll', 18], ['絶対これ好き', '#4dd4ff'], ['goosebumps', '#ffffff'],
];

const WebSocket = client('ws');
const folder = mkdtempSync(path.join(tmpdir(), 'stage-shots-'));
const ready = path.join(folder, 'ready.json');
const config = path.join(folder, 'node.toml');
const key = 'screenshots-api-key-0123';
writeFileSync(config, `[listen]\npublic = "127.0.0.1:0"\ninternal = "127.0.0.1:0"\n[server]\nshards = 1\n[auth]\nanonymous = "speak"\n
[[auth.keys]]\nkid = "t"\nalgorithm = "HS256"\nsecret = "screenshots-secret-0123456789abcdef-0123"\n[[api_keys]]\nname = "b"\nkey = "${key}"\n`);
const binary = path.join(root, 'target/debug/danmaku');
const child = spawn(binary, ['serve', '--config', config, '--ready-file', ready], { stdio: ['ignore', 'ignore', 'inherit'] });
try {
  while (!existsSync(ready)) await sleep(20);
  const node = { ...JSON.parse(readFileSync(ready, 'utf8')), key };
  const token = execFileSync(binary, ['token', '--config', config, '--user', 'mei', '--name', 'Mei', '--ttl', '1h'], { encoding: 'utf8' }).trim();
  await api(node, 'PUT', '/api/v1/rooms/1001', { title: 'Night session, live from the big stage' });
  const audience = Array.from({ length: 127 }, () => new WebSocket(`ws://${node.public}/ws?room=1001`));
  const browser = await openBrowser();
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ['dark', 'light']) {
      await shoot(browser, node, token, `stage-${size}-${colorScheme}`, viewport, colorScheme);
    }
  }
  await browser.close();
  for (const viewer of audience) viewer.terminate();
} finally {
  child.kill();
  rmSync(folder, { recursive: true, force: true });
}

async function shoot(browser, node, token, name, viewport, colorScheme) {
  const phone = viewport.width < 600;
  const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: phone ? 2 : 1 });
  const page = await context.newPage();
  await page.goto(`http://${node.public}/?room=1001&token=${token}`);
  await page.waitForFunction(() => document.body.dataset.state === 'live');
  for (let at = 0; at < (phone ? 30 : 66); at += 1) {
    const [text, color, mode = 'scroll', size = 25] = LINES[at % LINES.length];
    if (at === (phone ? 12 : 14)) await welcome(node);
    const who = PEOPLE[(at * 7) % PEOPLE.length];
    await push(node, '1001', text, { user: { id: who === 'Mei' ? 'mei' : `u-${who}`, name: who }, style: { color, mode, size } });
    await sleep(phone ? 190 : 105);
  }
  await push(node, '1001', 'lyrics: follow the light', { user: { id: 'host', name: 'Host' }, style: { color: '#4dd4ff', mode: 'bottom', size: 25 } });
  const gift = { user: { id: 'u-Ken', name: 'Ken' }, gift: 'Rocket', count: 3 };
  await api(node, 'POST', '/api/v1/danmaku/push', { room: '1001', type: 'event', event: 'gift', data: gift });
  await page.fill('#text', phone ? '' : 'what a night');
  await page.locator('#text').blur();
  await sleep(500);
  const file = path.join(root, `docs/images/${name}.png`);
  await page.screenshot({ path: file });
  execFileSync('pngquant', ['--force', '--skip-if-larger', '--quality', '60-90', '--speed', '1', '--output', file, '128', file]);
  await context.close();
}

/** A line that stands at the top: it takes its place when the movers there have passed. */
function welcome(node) {
  const style = { color: '#ffe066', mode: 'top', size: 25 };
  return push(node, '1001', '欢迎来到直播间 · welcome', { user: { id: 'host', name: 'Host' }, style });
}
