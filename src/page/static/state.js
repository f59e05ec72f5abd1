import { now } from './ask.js';
import { byId, say } from './dom.js';
import { duration, timeOfDay } from './format.js';
import { TONES, WORDS } from './words.js';

/** Since when the state is what it is; `seen` when the page saw it begin, `whole` when all known samples are of it. */
const state = { status: '', since: 0, seen: false, whole: true, checked: 0 };

/** Why there are no new figures; empty while there are. */
let trouble = '';

/** @param {string} word @param {string} tone */
const sayWord = (word, tone) => {
  say(byId('word'), word);
  byId('state').dataset.tone = tone;
  document.title = `${word} · JEEX persistence`;
};

/** @param {boolean} shown */
const showFigures = (shown) => {
  for (const node of document.querySelectorAll('[data-figures]')) node.toggleAttribute('hidden', !shown);
};

/** Says how old everything is, which changes by itself. */
export const sayAge = () => {
  byId('state').dataset.stale = String(trouble !== '');
  byId('figures').dataset.stale = String(trouble !== '');
  say(byId('age'), ageOf());
  say(byId('since'), trouble || sinceOf());
};

const ageOf = () => {
  if (state.checked === 0) return '';
  const age = Math.max(0, Math.round((now() - state.checked) / 1000));
  const measured = `measured ${age === 0 ? 'just now' : `${duration(age)} ago`}`;
  return trouble
    ? `What is below is of ${timeOfDay(state.checked)}: ${measured}.`
    : `${measured}, at ${timeOfDay(state.checked)}`;
};

const sinceOf = () => {
  if (state.since === 0) return '';
  const length = duration(Math.max(1, Math.round((now() - state.since) / 1000)));
  if (!state.seen && state.whole) return `for ${length} at least`;
  return `since ${timeOfDay(state.since)}, for ${length}`;
};

/**
 * Shows the state of the database.
 * @param {Record<string, any>} health of GetDatabaseHealth
 * @returns whether it is another than before
 */
export const showState = (health) => {
  const { status = '', checkTime } = health;
  const changed = status !== state.status;
  const checked = checkTime ? Date.parse(checkTime) : now();
  if (changed) Object.assign(state, { seen: state.status !== '', since: checked, whole: true, status });
  state.checked = checked;
  trouble = '';
  sayWord(WORDS[status] ?? 'Not known', TONES[status] ?? 'unknown');
  showFigures(true);
  sayAge();
  return changed;
};

/** Shows that the service gives no figures. @param {string} word @param {string} why */
export const showTrouble = (word, why) => {
  trouble = why;
  sayWord(word, 'critical');
  sayAge();
};

/** Shows that a token is needed, and no figures any more. */
export const showLocked = () => {
  Object.assign(state, { status: '', since: 0, checked: 0 });
  trouble = '';
  sayWord('A token is needed', 'unknown');
  showFigures(false);
  sayAge();
};

/** Learns from the samples how long the state has lasted, unless the page saw it begin. @param {readonly any[]} samples */
export const learnSince = (samples) => {
  const other = samples.findLastIndex(({ status = '' }) => status !== state.status);
  const first = samples[other + 1];
  if (state.seen || first === undefined) return;
  state.since = Math.min(state.since, Date.parse(first.time));
  state.whole = other === -1;
  sayAge();
};
