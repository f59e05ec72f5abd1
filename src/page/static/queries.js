import { now } from './ask.js';
import { byId, fill, fillFacts, make, say } from './dom.js';
import { ago, count, duration, known, seconds, UNKNOWN, whole } from './format.js';

const SHORT = 80;
const MOST = 20;

/** @param {string} statement */
const shorten = (statement) => {
  const line = statement.replace(/\s+/g, ' ').trim();
  return line.length > SHORT ? `${line.slice(0, SHORT)}…` : line;
};

const makeQuery = () => {
  const summary = make('summary', {}, make('b'), make('dl', { class: 'small' }));
  const plan = make('div', {}, make('h4', {}, 'Plan'), make('pre'));
  return make('details', {}, summary, make('h4', {}, 'Statement'), make('pre'), plan);
};

/** @param {any} node @param {any} query */
const updateQuery = (node, query) => {
  const [summary, , statement, plan] = node.children;
  say(summary.children[0], query.name || shorten(query.statement ?? '') || UNKNOWN);
  const mean = known(seconds(query.meanTime), duration);
  const figures = [
    ['calls', count(whole(query.calls))],
    ['mean', mean],
    ['max', known(seconds(query.maxTime), duration)],
    ['total', known(seconds(query.totalTime), duration)],
  ];
  const create = () => make('div', {}, make('dt'), make('dd'));
  fill(summary.children[1], figures, create, (pair, [name, value]) => {
    say(pair.children[0], name);
    say(pair.children[1], value);
  });
  say(statement, query.statement ?? '');
  say(plan.children[1], query.genericPlan || 'not known');
};

/** @type {Map<string, Element>} */
let shown = new Map();

/**
 * Shows the statements that took the most time; what is open stays open.
 * @param {{ queries?: any[] }} answer of ListSlowQueries
 */
export const showQueries = ({ queries = [] }) => {
  const most = queries.slice(0, MOST);
  shown = new Map(most.map(({ queryId = '' }) => [queryId, shown.get(queryId) ?? makeQuery()]));
  const nodes = most.map((query) => {
    const node = /** @type {Element} */ (shown.get(query.queryId ?? ''));
    updateQuery(node, query);
    return node;
  });
  const parent = byId('queries');
  // Moving a node takes the focus away from it.
  if (nodes.some((node, index) => parent.children[index] !== node)) parent.replaceChildren(...nodes);
  while (parent.children.length > nodes.length) parent.lastElementChild?.remove();
  sayNone(
    'queries',
    nodes.length === 0 ? 'None known: PostgreSQL keeps no statistics of statements, or has none yet.' : '',
  );
};

/** Shows the migrations. @param {any} answer of GetMigrationStatus */
export const showMigrations = ({ applied = [], pending = [], checksumMismatches = [], oldestRelease = 0 }) => {
  const last = applied.at(-1);
  const names = (/** @type {any[]} */ list) => list.map(({ version, name }) => `${version} ${name}`).join(', ');
  sayNone('schema', '');
  fillFacts('schema', [
    {
      name: 'Last migration',
      value: last ? `${last.version} ${last.name}` : 'none',
      note: last?.applyTime ? `${ago(last.applyTime, now())}${last.release ? `, by release ${last.release}` : ''}` : '',
    },
    { name: 'Applied', value: count(applied.length) },
    {
      name: 'Pending',
      value: count(pending.length),
      note: names(pending),
      tone: pending.length > 0 ? 'warning' : '',
    },
    {
      name: 'Altered since',
      value: count(checksumMismatches.length),
      note: names(checksumMismatches),
      tone: checksumMismatches.length > 0 ? 'critical' : '',
    },
    { name: 'Asks of a release', value: oldestRelease > 0 ? `migration ${oldestRelease}` : 'nothing' },
  ]);
};

/** Says in a section why nothing stands there. @param {string} id @param {string} why */
const sayNone = (id, why) => {
  const none = byId(`${id}-none`);
  none.hidden = why === '';
  say(none, why);
};

/** Says in a section that what stands there may be old. @param {string} id @param {string} why */
export const sayStale = (id, why) => {
  // What follows a semicolon tells a program what to do.
  sayNone(id, `There is no newer answer: ${why.split(';')[0]}.`);
};
