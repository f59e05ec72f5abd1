import { Away, ask, Refused, token } from './ask.js';
import { byId, say } from './dom.js';
import { showHealth } from './health.js';
import { showPlots } from './plots.js';
import { sayStale, showMigrations, showQueries } from './queries.js';
import { learnSince, sayAge, showLocked, showState, showTrouble } from './state.js';

const EVERY_MS = 5_000;
const SELDOM_MS = 30_000;
/** When a source is due that has not answered yet. */
const BUSY = Number.POSITIVE_INFINITY;

/**
 * What is asked besides the health, and less often.
 * @typedef {{ method: string, show: (answer: any) => void, fail: (why: string) => void, due: number }} Source
 * @type {Source[]}
 */
const SOURCES = [
  { method: 'GetHealthHistory', show: showHistory, fail: () => {}, due: 0 },
  { method: 'ListSlowQueries', show: showQueries, fail: (why) => sayStale('queries', why), due: 0 },
  {
    method: 'GetMigrationStatus',
    show: showMigrations,
    fail: (why) => sayStale('schema', why),
    due: 0,
  },
  { method: 'GetServerInfo', show: showInfo, fail: () => {}, due: 0 },
];

let about = { service: '', schema: 0, postgres: '' };

/** @param {any} answer */
function showHistory({ samples = [] }) {
  showPlots(samples);
  learnSince(samples);
}

/** @param {any} answer */
function showInfo({ info = {} }) {
  about = { ...about, service: info.serviceVersion ?? '', schema: info.schemaVersion ?? about.schema };
  sayAbout();
}

function sayAbout() {
  const parts = [
    about.service && `version ${about.service}`,
    about.schema && `schema ${about.schema}`,
    about.postgres && `PostgreSQL ${about.postgres}`,
  ];
  say(byId('about'), parts.filter(Boolean).join(' · '));
}

const makeAllDue = () => {
  for (const source of SOURCES) {
    if (source.due !== BUSY) source.due = 0;
  }
};

/** @param {Source} source */
const refresh = async (source) => {
  source.due = BUSY;
  try {
    source.show(await ask(source.method));
    source.due = performance.now() + SELDOM_MS;
  } catch (error) {
    source.due = 0;
    if (!(error instanceof Refused || error instanceof Away)) throw error;
    source.fail(error.message);
  }
};

/** @param {Refused} refused */
const whyLocked = ({ unknown, message }) => {
  if (token.get() === null) return 'This service shows its state to those who hold a token.';
  return `The service refuses this token: ${message}.${unknown ? '' : ' Another one is needed.'}`;
};

/** @param {Refused} refused */
const lock = (refused) => {
  say(byId('door-why'), whyLocked(refused));
  if (refused.unknown) token.forget();
  byId('forget').hidden = token.get() === null;
  byId('door').hidden = false;
  about = { service: '', schema: 0, postgres: '' };
  sayAbout();
  showLocked();
};

/** Asks for everything that is due; the health first, since it tells whether the rest may be asked for. */
const round = async () => {
  const { health = {} } = await ask('GetDatabaseHealth');
  byId('door').hidden = true;
  byId('forget').hidden = token.get() === null;
  if (showState(health)) makeAllDue();
  showHealth(health);
  about = { ...about, postgres: health.postgresVersion ?? '', schema: health.schemaVersion ?? about.schema };
  sayAbout();
  for (const source of SOURCES) {
    if (source.due <= performance.now()) refresh(source).catch(reportError);
  }
};

let turn = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @param {unknown} error @returns whether asking again may help */
const fail = (error) => {
  if (error instanceof Refused && error.wantsToken) {
    lock(error);
    return false;
  }
  makeAllDue();
  if (error instanceof Refused) {
    showTrouble('Refused', `The service refuses this page: ${error.message}.`);
  } else if (error instanceof Away) {
    showTrouble('Not reachable', 'The service does not answer; this page goes on trying.');
  } else {
    showTrouble('Not shown', 'This page cannot show what the service answered; the console of the browser says why.');
    reportError(error);
  }
  return true;
};

/** Asks now, and again every few seconds while the page can be seen. */
const run = async () => {
  clearTimeout(timer);
  turn += 1;
  const own = turn;
  const again = await round().then(() => true, fail);
  // A later turn, begun by the reader meanwhile, goes on instead.
  if (again && own === turn && !document.hidden) timer = setTimeout(run, EVERY_MS);
};

byId('door-form').addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const field = byId('token');
  const text = field.value.trim().replace(/^Bearer\s+/i, '');
  field.value = '';
  // Another would not go into a header.
  if (!/^[\x21-\x7e]+$/.test(text))
    return say(byId('door-why'), 'A token is one word, of letters, digits, dots and dashes.');
  token.keep(text);
  makeAllDue();
  return run();
});

byId('forget').addEventListener('click', () => {
  token.forget();
  // So that nothing stays in the page of what the token showed.
  location.reload();
});

document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer);
  else run();
});

setInterval(sayAge, 1_000);
run();
