import { now } from './ask.js';
import { byId, fill, fillFacts, fillTable, make, say } from './dom.js';
import { ago, bytes, count, duration, known, measure, percent, seconds, timeOfDay, UNKNOWN, whole } from './format.js';
import { TONES } from './words.js';

/** @typedef {Record<string, any>} Health of GetDatabaseHealth */

const SEVERITIES = /** @type {Record<string, string>} */ ({
  ALERT_SEVERITY_WARNING: 'Warning',
  ALERT_SEVERITY_CRITICAL: 'Critical',
});

/** @param {any} alert */
const lineOf = ({ value = 0, threshold = 0, unit = '', fireTime }) => {
  const figures = `${measure(value, unit)}, threshold ${measure(threshold, unit)}`;
  if (!fireTime) return figures;
  const began = Date.parse(fireTime);
  return `${figures}, for ${duration(Math.max(1, Math.round((now() - began) / 1000)))} since ${timeOfDay(began)}`;
};

/** @param {Health} health */
const showAlerts = ({ alerts = [] }) => {
  const parts = () => make('li', {}, make('b'), make('strong'), make('span'), make('p'));
  const rank = (/** @type {any} */ alert) => (alert.severity === 'ALERT_SEVERITY_CRITICAL' ? 0 : 1);
  const sorted = alerts.toSorted((/** @type {any} */ one, /** @type {any} */ other) => rank(one) - rank(other));
  byId('alerts-none').hidden = alerts.length > 0;
  fill(byId('alerts'), sorted, parts, (node, alert) => {
    const [severity, name, figures, description] = node.children;
    say(severity, SEVERITIES[alert.severity] ?? 'Alert');
    say(name, (alert.name ?? '').replaceAll('_', ' '));
    say(figures, lineOf(alert));
    say(description, alert.description ?? '');
    node.className = TONES[alert.severity] ?? '';
  });
};

/** @param {Health} health */
const showRpcs = ({ rpcs = [] }) => {
  const quantile = (/** @type {string | undefined} */ text) => known(seconds(text), duration).replace(UNKNOWN, '–');
  const sorted = rpcs.toSorted((/** @type {any} */ one, /** @type {any} */ other) => other.calls - one.calls);
  const rows = sorted.map((/** @type {any} */ rpc) => {
    const [service = '', method = ''] = rpc.method.split('.').at(-1).split('/');
    const errors = whole(rpc.errors);
    return {
      over: service,
      tone: errors > 0 ? 'warning' : '',
      cells: [method, count(whole(rpc.calls)), count(errors), quantile(rpc.p50), quantile(rpc.p95), quantile(rpc.p99)],
    };
  });
  fillTable('rpcs', rows);
};

/** @param {Health} health */
const showPool = ({ servicePool }) => {
  if (!servicePool) return fillFacts('pool', [{ name: 'Connections', value: UNKNOWN }]);
  const [acquired, idle, limit, waiting, acquisitions, timeouts, connects, failed] = [
    ...['acquired', 'idle', 'limit', 'waiting', 'acquisitions', 'acquisitionTimeouts', 'connects', 'failedConnects'],
  ].map((field) => whole(servicePool[field]));
  const waited = seconds(servicePool.acquisitionWait) ?? 0;
  return fillFacts('pool', [
    { name: 'In use', value: `${count(acquired)} of ${count(limit)}`, note: `${count(idle)} idle` },
    { name: 'Waiting calls', value: count(waiting), tone: waiting > 0 ? 'warning' : '' },
    {
      name: 'Mean wait',
      value: acquisitions > 0 ? duration(waited / acquisitions) : UNKNOWN,
      note: `${count(acquisitions)} turns since the start`,
    },
    { name: 'Refused as overloaded', value: count(timeouts), note: 'since the start' },
    { name: 'Failed connects', value: count(failed), note: `of ${count(connects)} since the start` },
  ]);
};

/** @param {Health} health */
const showPooler = ({ pgbouncerPools = [], pgbouncerStats = [] }) => {
  const rows = pgbouncerPools.map((/** @type {any} */ pool) => ({
    over: pool.database ?? '',
    tone: whole(pool.clientsWaiting) > 0 ? 'warning' : '',
    cells: [
      pool.user ?? '',
      count(whole(pool.clientsActive)),
      count(whole(pool.clientsWaiting)),
      `${count(whole(pool.serversActive))} + ${count(whole(pool.serversIdle))} idle`,
      duration(seconds(pool.maxWait) ?? 0),
    ],
  }));
  fillTable('pooler', rows);
  const traffic = pgbouncerStats.map((/** @type {any} */ stats) => ({
    name: stats.database ?? '',
    value: `${count(stats.transactionsPerSecond ?? 0)} tx/s, ${count(stats.queriesPerSecond ?? 0)} queries/s`,
    note: `a query ${known(seconds(stats.queryTime), duration)}, waiting ${known(seconds(stats.waitTime), duration)} each second`,
  }));
  fillFacts('pooler-traffic', traffic);
};

/** @param {Health} health */
const connectionsOf = ({ connections }) => {
  if (!connections) return { name: 'Connections', value: UNKNOWN };
  const states = Object.entries(connections.byState ?? {}).sort(([one], [other]) => one.localeCompare(other));
  const open = states.reduce((sum, [, many]) => sum + Number(many), 0);
  const note = states.map(([state, many]) => `${many} ${state}`).join(', ');
  return { name: 'Connections', value: `${count(open)} of ${count(whole(connections.limit))}`, note };
};

/** @param {Health} health */
const showDatabase = (health) => {
  const waiting = health.locksWaiting === undefined ? undefined : Number(health.locksWaiting);
  const longest = seconds(health.longestLockWait);
  const size = health.databaseSizeBytes;
  fillFacts('database', [
    connectionsOf(health),
    { name: 'Cache hits', value: known(health.cacheHitRatio, percent) },
    { name: 'Transactions', value: known(health.transactionsPerSecond, (each) => `${count(each)} per second`) },
    { name: 'Queries', value: known(health.queriesPerSecond, (each) => `${count(each)} per second`) },
    { name: 'Size', value: known(size === undefined ? undefined : Number(size), bytes) },
    {
      name: 'Waiting for locks',
      value: known(waiting, count),
      note: waiting && longest !== undefined ? `the longest for ${duration(longest)}` : '',
      tone: waiting ? 'warning' : '',
    },
    { name: 'Oldest transaction', value: known(seconds(health.oldestTransaction), duration) },
    {
      name: 'Slow queries',
      value: known(health.slowQueryCount, (many) => count(Number(many))),
      note: 'of five minutes',
    },
    { name: 'Version', value: known(health.postgresVersion || undefined, String) },
  ]);
};

/** @param {any} archiving */
const archivingFacts = (archiving) => {
  if (!archiving) return [{ name: 'WAL archiving', value: UNKNOWN }];
  if (!archiving.enabled) return [{ name: 'WAL archiving', value: 'off', note: 'no recovery to a point in time' }];
  const { lastArchivedTime: done, lastFailedTime: failed } = archiving;
  const failing = failed !== undefined && (done === undefined || Date.parse(failed) > Date.parse(done));
  return [
    { name: 'WAL archiving', value: failing ? 'failing' : 'on', tone: failing ? 'critical' : '' },
    {
      name: 'Last success',
      value: done ? ago(done, now()) : 'none known',
      note: [archiving.lastArchivedWal, `${count(whole(archiving.archivedCount))} in all`].filter(Boolean).join(', '),
    },
    {
      name: 'Last failure',
      value: failed ? ago(failed, now()) : 'none known',
      note: `${count(whole(archiving.failedCount))} in all`,
    },
  ];
};

/** @param {any} backup */
const backupFact = (backup) => {
  const name = 'Last backup';
  if (!backup) return { name, value: 'none known', tone: 'warning' };
  const when = backup.completeTime ?? backup.startTime;
  const notes = [
    backup.kind,
    backup.sizeBytes && bytes(Number(backup.sizeBytes)),
    backup.verifyTime ? `verified ${ago(backup.verifyTime, now())}` : 'no verification known',
  ];
  return {
    name,
    value: `${backup.succeeded ? '' : 'failed '}${when ? ago(when, now()) : 'at a time that is not known'}`,
    note: notes.filter(Boolean).join(', '),
    tone: backup.succeeded ? '' : 'critical',
  };
};

/** @param {Health} health */
const showReplicas = ({ replicas = [], connections }) => {
  const rows = replicas.map((/** @type {any} */ replica) => ({
    over: replica.synchronous ? 'synchronous' : 'asynchronous',
    tone: replica.state === 'streaming' ? '' : 'warning',
    cells: [
      replica.name ?? '',
      replica.state ?? UNKNOWN,
      bytes(whole(replica.lagBytes)),
      known(seconds(replica.replayLag), duration),
    ],
  }));
  fillTable('replicas', rows);
  // PostgreSQL tells of both or of neither.
  say(byId('replicas-none'), connections ? 'None.' : `${UNKNOWN}.`);
};

/** The figures beside the state. @param {Health} health */
const showVital = (health) => {
  const rpcs = health.rpcs ?? [];
  const sum = (/** @type {string} */ field) =>
    rpcs.reduce((/** @type {number} */ all, /** @type {any} */ rpc) => all + whole(rpc[field]), 0);
  const errors = sum('errors');
  fillFacts('vital', [
    { name: 'Round trip', value: known(seconds(health.latency), duration) },
    { name: 'Calls in 5 min', value: count(sum('calls')) },
    { name: 'Errors in 5 min', value: count(errors), tone: errors > 0 ? 'warning' : '' },
    { name: 'Alerts', value: count((health.alerts ?? []).length) },
  ]);
};

/** Shows everything that GetDatabaseHealth tells. @param {Health} health */
export const showHealth = (health) => {
  showVital(health);
  showAlerts(health);
  showRpcs(health);
  showPool(health);
  showPooler(health);
  showDatabase(health);
  fillFacts('archive', [...archivingFacts(health.walArchiving), backupFact(health.lastBackup)]);
  showReplicas(health);
};
