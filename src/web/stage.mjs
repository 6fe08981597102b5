// The page: ties the connection to the stage, the chat and the controls. Owns what is shown of the connection's state. Text from
// outside reaches the page as text nodes and canvas text only.

import { Chat, element } from './chat.mjs';
import { Connection, ask } from './connection.mjs';
import { Composer, stageControls } from './controls.mjs';
import { Flight } from './flight.mjs';
import { cleanStyle, describeEvent, isRoom, nameOf, readQuery } from './protocol.mjs';

/** Lines of the room's past that a newcomer is shown, and the most that fills a gap. */
const HISTORY_LINES = 40;
const GAP_LINES = 100;
const GIFTS_MAX = 3;
const GIFT_MS = 5_000;
/** Numbers of one's own lines that have not come back yet. */
const OWN_MAX = 64;

const $ = (id) => document.getElementById(id);
const query = readQuery(location.search);
const flight = new Flight($('stage'));
const chat = new Chat($('chat'), $('newest'));
const own = new Set();
let user = null;

const connection = new Connection({
  ...query,
  on: { state: showState, welcome, joined, message, acked, unsaid },
});

const composer = new Composer($('composer'), $('problem'), (text, style) => connection.say(text, style));
stageControls($('view'), (settings) => flight.set(settings));

function welcome(who) {
  user = who;
  $('who').textContent = nameOf(who);
  $('who').title = who ? `speaking as ${who.id}` : 'no token: ?token=… in the address makes you somebody';
}

function joined({ kind, online, messages, missed, since, until, epoch }) {
  showOnline(online);
  const { room } = connection;
  if (kind === 'first') {
    fill(chat.note(`You are in room ${room}`, 'good'), { epoch, since: 0, until, limit: HISTORY_LINES });
  } else if (kind === 'resumed') {
    for (const missedLine of messages) message(missedLine);
    chat.note(messages.length === 0 ? 'Back; nothing was missed' : `Back; ${count(messages.length, 'line')} caught up`, 'good');
  } else if (kind === 'gap') {
    chat.note(`Back after a gap: ${count(missed, 'line')} went by, of which the room still has these`, 'warn');
    fill(chat.note('Live again', 'good'), { epoch, since, until, limit: GAP_LINES });
  } else {
    chat.note("Back; the room's numbering began anew, what was said meanwhile may be missing", 'warn');
    fill(chat.note('Live again', 'good'), { epoch, since: 0, until, limit: GAP_LINES });
  }
  describeRoom(room);
}

/** Puts the newest lines after `since` and up to `until` above a note: what came later has come by the connection. */
async function fill(note, { epoch, since, until, limit }) {
  if (until === since) return;
  const { room } = connection;
  const answer = await ask(`/api/v1/rooms/${encodeURIComponent(room)}/history?limit=${limit}`, query.token);
  if (answer?.status !== 200 || answer.body?.epoch !== epoch || room !== connection.room) return;
  const earlier = answer.body.messages.filter(({ seq }) => seq > since && seq <= until);
  chat.before(note, earlier.map((message) => ({ ...message, style: cleanStyle(message.style) })));
}

/** The room's title, where its owner gave it one. */
async function describeRoom(room) {
  const answer = await ask(`/api/v1/rooms/${encodeURIComponent(room)}`, query.token);
  if (room === connection.room) $('title').textContent = answer?.body?.title ?? '';
}

function message(said) {
  switch (said.type) {
    case 'danmaku': {
      const style = cleanStyle(said.style);
      const isOwn = own.delete(said.seq) || (user !== null && said.user?.id === user.id);
      flight.add({ seq: said.seq, text: said.text, style, own: isOwn });
      chat.line({ ...said, style }, isOwn);
      break;
    }
    case 'event':
    case 'broadcast':
    case 'push':
      showGift(said);
      chat.event(said);
      break;
    case 'online':
      showOnline(said.count);
      break;
    case 'dropped':
      if (!('upto' in said)) chat.note(`${count(said.count, 'line')} left out: this viewer was too slow for them`, 'warn');
      break;
    case 'recall':
      flight.remove(said.recalled);
      chat.recall(said.recalled);
      break;
    case 'epoch':
      chat.note("The room's numbering began anew", 'warn');
      break;
    case 'notice':
      if (said.code === 'reconnect') chat.note('This node is being emptied; the page moves to another by itself', 'warn');
      break;
    case 'left':
      chat.note(`You are out of the room: ${said.reason || said.code}`, 'bad');
      break;
    case 'error':
      composer.problem(said.message);
      break;
    default:
      // A message of a later version.
  }
}

function acked(seq) {
  if (user !== null || chat.mine(seq)) return;
  own.add(seq);
  if (own.size > OWN_MAX) own.delete(own.values().next().value);
}

function unsaid({ text, sentence, hint, retry_after_ms, sent }) {
  composer.problem(sentence, retry_after_ms);
  $('problem').title = hint ?? '';
  if (sent) chat.note(`Not confirmed: “${text}”`, 'warn');
  composer.giveBack(text);
}

function showOnline(online) {
  $('online').textContent = online.toLocaleString('en');
}

/** A banner over the stage's lower edge, for a few seconds. */
function showGift({ event, data }) {
  const { name, who, what } = describeEvent(event, data);
  const banner = element('p', 'banner');
  banner.append(element('span', 'kind', name));
  if (who !== '') banner.append(' ', element('strong', '', who));
  if (what !== '') banner.append(' ', element('span', '', what));
  const gifts = $('gifts');
  gifts.append(banner);
  while (gifts.childElementCount > GIFTS_MAX) gifts.firstElementChild.remove();
  setTimeout(() => banner.remove(), GIFT_MS);
}

const STATE_WORDS = { idle: 'Not connected', connecting: 'Connecting…', live: 'Live', waiting: 'Reconnecting', refused: 'Refused' };
let countdown = 0;

/** State is always visible; it is spoken when it changes, not at every tick of the countdown. */
function showState(state) {
  clearInterval(countdown);
  document.body.dataset.state = state.name;
  $('state').textContent = STATE_WORDS[state.name];
  const why = state.sentence ?? '';
  $('why').hidden = why === '';
  $('why-text').textContent = why;
  $('why-code').textContent = state.code ?? '';
  $('why-hint').textContent = state.hint ?? '';
  $('again').textContent = state.name === 'waiting' ? 'Try now' : 'Try again';
  $('announce').textContent = `${STATE_WORDS[state.name]} ${why}`;
  if (state.name !== 'waiting') return;
  const tick = () => {
    const seconds = Math.max(0, Math.ceil((state.until - performance.now()) / 1000));
    $('state').textContent = `Reconnecting in ${seconds} s`;
  };
  tick();
  countdown = setInterval(tick, 250);
}

function count(number, noun) {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

function enter(room) {
  flight.clear();
  chat.clear();
  $('gifts').replaceChildren();
  $('title').textContent = '';
  $('online').textContent = '–';
  showRoom(room);
  connection.enter(room);
}

function showRoom(room) {
  $('room').value = room;
  document.title = `${room} · danmaku stage`;
}

$('rooms').addEventListener('submit', (event) => {
  event.preventDefault();
  const room = $('room').value.trim();
  if (!isRoom(room)) {
    composer.problem('A room is 1 to 128 of the letters A-Z a-z 0-9 _ . : -');
    return;
  }
  if (room === connection.room) {
    connection.retry();
    return;
  }
  const address = new URL(location.href);
  address.searchParams.set('room', room);
  history.pushState(null, '', address);
  enter(room);
});
window.addEventListener('popstate', () => enter(readQuery(location.search).room));
window.addEventListener('online', () => connection.hurry());
$('again').addEventListener('click', () => connection.retry());
$('options').addEventListener('click', () => {
  const open = document.body.classList.toggle('with-options');
  $('options').setAttribute('aria-expanded', String(open));
});
setInterval(() => {
  const { fps, flying } = flight.figures();
  $('figures').textContent = flying === 0 ? '' : `${Math.round(fps)} fps · ${flying} on stage`;
}, 1_000);

/** For tests and the curious, in the console: where every line is, and what drawing costs. */
window.danmakuStage = Object.freeze({ lines: () => flight.lines(), figures: () => flight.figures() });

showRoom(query.room);
connection.connect();
