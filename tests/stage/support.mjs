// What the stage's browser tests and its screenshots share: headless Chromium driven by playwright-core, and pushes to a node as
// a back end makes them. `scripts/test.sh` installs both; what is missing is an error that names the package.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

const CHROMIUM = '/usr/bin/chromium';
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A package that `scripts/test.sh` installs. */
export function client(name) {
  const clients = path.resolve(root, process.env.TEST_CLIENTS ?? 'target/clients');
  if (!existsSync(path.join(clients, 'node_modules', name))) {
    throw new Error(`npm's ${name} is not installed in ${clients}: run scripts/test.sh`);
  }
  return createRequire(`${clients}/`)(name);
}

/** A browser with a fresh profile. */
export async function openBrowser() {
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: apt install chromium`);
  return client('playwright-core').chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}

/** A request to the internal listener, as a back end makes it. A refusal is an error that says so. */
export async function api(node, method, route, body) {
  const answer = await fetch(`http://${node.internal}${route}`, {
    method,
    headers: { Authorization: `Bearer ${node.key}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${route}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

/** Says a line in a room as somebody. */
export function push(node, room, text, more = {}) {
  return api(node, 'POST', '/api/v1/danmaku/push', { room, text, ...more });
}

/** Pairs of lines that share a point of the stage; none, if lanes do their work. */
export function overlaps(lines) {
  const pairs = [];
  for (let a = 0; a < lines.length; a += 1) {
    for (let b = a + 1; b < lines.length; b += 1) {
      const [one, two] = [lines[a], lines[b]];
      const beside = one.x + one.width <= two.x || two.x + two.width <= one.x;
      const above = one.y + one.height <= two.y || two.y + two.height <= one.y;
      if (!beside && !above) pairs.push([one, two]);
    }
  }
  return pairs;
}
