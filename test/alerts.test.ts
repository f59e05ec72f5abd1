import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { suite, test } from 'node:test';
import { createLog } from '../src/log.ts';
import type { AlertRule } from '../src/monitor/alerts.ts';
import { alertGauges, createAlerts } from '../src/monitor/evaluate.ts';
import type { Figures, ServerFigures, Severity } from '../src/monitor/report.ts';
import { RULES } from '../src/monitor/rules.ts';
import { configuredRules, parseAlerts } from '../src/monitor/thresholds.ts';
import { runCommand } from './support/command.ts';
import { FIGURES, POOL, SERVER } from './support/figures.ts';

const of = (server: Partial<ServerFigures>): Partial<Figures> => ({ server: { ...SERVER, ...server } });
const replica = (state: string, lagBytes: bigint) => ({
  name: 'r',
  state,
  synchronous: false,
  lagBytes,
  replayLag: null,
});

/** A rule whose value the tests set: what they call latency is its value. */
const ruleOf = (differs: Partial<AlertRule>): AlertRule => ({
  name: 'load',
  summary: 'much to do',
  description: 'do less',
  unit: 'count',
  fires: 'above',
  thresholds: { warning: 10, critical: 20 },
  forSeconds: 60,
  value: ({ meanPoolWait }) => meanPoolWait,
  promql: 'load',
  ...differs,
});

/** An alert of such a rule, its log, and what makes it judge a value at a time in seconds. */
const useAlerts = (...rules: AlertRule[]) => {
  const lines: Record<string, unknown>[] = [];
  const destination = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const alerts = createAlerts({ rules, log: createLog('trace', destination) });
  const at = (seconds: number, value: number | null) =>
    alerts.update({ ...FIGURES, time: seconds * 1000, meanPoolWait: value })[0];
  return { alerts, lines, at };
};

type Step = readonly [seconds: number, value: number | null, severity: Severity | null];

const COURSES: readonly [what: string, differs: Partial<AlertRule>, steps: readonly Step[]][] = [
  [
    'does not fire at its threshold, but beyond it',
    { forSeconds: 0 },
    [
      [0, 10, null],
      [1, 10.1, 'warning'],
    ],
  ],
  [
    'fires once the threshold was crossed for its time',
    {},
    [
      [0, 11, null],
      [59, 11, null],
      [60, 11, 'warning'],
    ],
  ],
  [
    'begins anew when the value was good in between',
    {},
    [
      [0, 11, null],
      [30, 10, null],
      [60, 11, null],
      [119, 11, null],
      [120, 11, 'warning'],
    ],
  ],
  [
    'an unknown value neither ends a wait nor an alert',
    {},
    [
      [0, 11, null],
      [30, null, null],
      [60, 11, 'warning'],
      [90, null, 'warning'],
      [900, null, 'warning'],
    ],
  ],
  [
    'stays while the value is not better than its margin',
    { forSeconds: 0 },
    [
      [0, 11, 'warning'],
      [1, 9.1, 'warning'],
      [99, 10, 'warning'],
      [100, 9, null],
    ],
  ],
  [
    'clears after 30 s at most of good values',
    {},
    [
      [0, 11, null],
      [60, 11, 'warning'],
      [90, 9, 'warning'],
      [119, 9, 'warning'],
      [120, 9, null],
    ],
  ],
  [
    'clears no sooner than it fires',
    { forSeconds: 10 },
    [
      [0, 11, null],
      [10, 11, 'warning'],
      [20, 9, 'warning'],
      [29, 9, 'warning'],
      [30, 9, null],
    ],
  ],
  [
    'a value that is not good in between makes it stay',
    {},
    [
      [0, 11, null],
      [60, 11, 'warning'],
      [90, 9, 'warning'],
      [110, 9.5, 'warning'],
      [120, 9, 'warning'],
      [150, 9, null],
    ],
  ],
  [
    'gets critical and less again',
    { forSeconds: 0 },
    [
      [0, 11, 'warning'],
      [1, 21, 'critical'],
      [2, 19, 'critical'],
      [3, 18, 'warning'],
      [4, 9, null],
    ],
  ],
  [
    'is critical at once when both thresholds were crossed for their time',
    {},
    [
      [0, 21, null],
      [60, 21, 'critical'],
      [90, 0, 'critical'],
      [120, 0, null],
    ],
  ],
  [
    'gets critical only when that threshold was crossed for its time',
    {},
    [
      [0, 11, null],
      [60, 21, 'warning'],
      [120, 21, 'critical'],
    ],
  ],
  [
    'with one threshold has one severity',
    { forSeconds: 0, thresholds: { critical: 0 } },
    [
      [0, 1, 'critical'],
      [1, 0, null],
    ],
  ],
  [
    'below: clears at a fifth of what lacks to 1',
    { fires: 'below', unit: 'ratio', forSeconds: 0, thresholds: { warning: 0.9, critical: 0.8 } },
    [
      [0, 0.9, null],
      [1, 0.89, 'warning'],
      [2, 0.79, 'critical'],
      [3, 0.83, 'critical'],
      [4, 0.841, 'warning'],
      [5, 0.919, 'warning'],
      [6, 0.921, null],
    ],
  ],
];

suite('an alert', () => {
  for (const [what, differs, steps] of COURSES) {
    test(what, () => {
      const { at } = useAlerts(ruleOf(differs));
      const severities = steps.map(([seconds, value]) => at(seconds, value)?.severity ?? null);
      assert.deepEqual(
        severities,
        steps.map(([, , severity]) => severity),
      );
    });
  }

  test('tells since when it fires, the threshold that is crossed and the last value that was known', () => {
    const { at, alerts } = useAlerts(ruleOf({ forSeconds: 0 }));
    const about = { name: 'load', unit: 'count', since: 1000, description: 'do less' };
    assert.deepEqual(at(1, 11), { ...about, severity: 'warning', threshold: 10, value: 11 });
    assert.deepEqual(at(2, 21), { ...about, severity: 'critical', threshold: 20, value: 21 });
    assert.deepEqual(at(3, null), { ...about, severity: 'critical', threshold: 20, value: 21 });
    const last = at(4, 12);
    assert.deepEqual(alerts.firing, [last]);
    assert.equal(at(5, 0), undefined);
    assert.equal(at(6, 11)?.since, 6000);
  });

  test('is logged when it starts, when its severity is another, and when it is over', () => {
    const { at, lines } = useAlerts(ruleOf({ forSeconds: 0 }));
    for (const [second, value] of [5, 11, 12, 21, null, 22, 12, 13, 0, 0].entries()) at(second, value);
    const about = { alert: 'load', unit: 'count' };
    assert.deepEqual(
      lines.map(({ time, ...line }) => line),
      [
        { ...about, level: 'warn', severity: 'warning', value: 11, threshold: 10, msg: 'alert fires' },
        { ...about, level: 'error', severity: 'critical', value: 21, threshold: 20, msg: 'alert has another severity' },
        { ...about, level: 'warn', severity: 'warning', value: 12, threshold: 10, msg: 'alert has another severity' },
        {
          ...about,
          level: 'info',
          severity: 'warning',
          value: 0,
          threshold: 10,
          firedForSeconds: 7,
          msg: 'alert over',
        },
      ],
    );
  });

  test('has gauges: of every severity whether it fires with it, and the value while that is known', () => {
    const { alerts, at } = useAlerts(ruleOf({ forSeconds: 0 }));
    const seen = () =>
      alertGauges(alerts).flatMap(({ name, points }) =>
        points.map((point) => [name, point.value, ...Object.values(point.attributes)]),
      );
    assert.deepEqual(seen(), [
      ['jeex.alert.firing', 0, 'load', 'critical'],
      ['jeex.alert.firing', 0, 'load', 'warning'],
    ]);
    at(1, 11);
    assert.deepEqual(seen(), [
      ['jeex.alert.firing', 0, 'load', 'critical'],
      ['jeex.alert.firing', 1, 'load', 'warning'],
      ['jeex.alert.value', 11, 'load'],
    ]);
    at(2, null);
    assert.deepEqual(seen(), [
      ['jeex.alert.firing', 0, 'load', 'critical'],
      ['jeex.alert.firing', 1, 'load', 'warning'],
    ]);
  });
});

/** Of each rule: figures that are just good, figures that are a warning, and figures that are critical. */
const CAUSES: Readonly<Record<string, readonly (Partial<Figures> | null)[]>> = {
  database_down: [{ ready: true }, null, { ready: false }],
  connections: [
    of({ connectionsByState: { active: 30, idle: 50 } }),
    of({ connectionsByState: { active: 31, idle: 50 } }),
    of({ connectionsByState: { active: 96 } }),
  ],
  cache_hit_ratio: [of({ cacheHitRatio: 0.9 }), of({ cacheHitRatio: 0.89 }), of({ cacheHitRatio: 0.79 })],
  latency_p95: [0.5, 0.51, 1.1].map((p95) => ({ latency: { p50: 0.1, p95, p99: 2 } })),
  slow_queries: [10, 11, 51].map((slowQueries) => ({ slowQueries })),
  replica_lag: [
    of({ replicas: [replica('streaming', 100_000_000n), replica('streaming', 0n)] }),
    of({ replicas: [replica('streaming', 0n), replica('streaming', 100_000_001n)] }),
    of({ replicas: [replica('disconnected', 1_000_000_001n), replica('streaming', 0n)] }),
  ],
  replica_missing: [
    of({ replicas: [replica('streaming', 0n)] }),
    of({ replicas: [replica('disconnected', 0n)] }),
    null,
  ],
  lock_wait: [10, 11, 61].map((longestLockWait) => of({ longestLockWait })),
  oldest_transaction: [300, 301, 3601].map((oldestTransaction) => of({ oldestTransaction })),
  archiving_failed: [60, 61, 601].map((failingFor) => of({ archiving: { ...SERVER.archiving, failingFor } })),
  pool_wait: [0.01, 0.011, 0.11].map((meanPoolWait) => ({ meanPoolWait })),
  connect_failures: [0.05, 0.051, 0.51].map((connectFailureRatio) => ({ connectFailureRatio })),
};

suite('the alerts', () => {
  const judge = (rule: AlertRule, differs: Partial<Figures>): string | null => {
    const { alerts } = useAlerts({ ...rule, forSeconds: 0 });
    return alerts.update({ ...FIGURES, ...differs })[0]?.severity ?? null;
  };

  for (const rule of RULES) {
    test(`${rule.name} fires beyond its thresholds, by the figures that it is about`, () => {
      const severities = CAUSES[rule.name]?.map((figures) => figures && judge(rule, figures));
      const { warning, critical } = rule.thresholds;
      assert.deepEqual(severities, [
        null,
        warning === undefined ? null : 'warning',
        critical === undefined ? null : 'critical',
      ]);
    });
  }

  test('have names of their own, and say what to do', () => {
    assert.equal(new Set(RULES.map(({ name }) => name)).size, RULES.length);
    for (const { name, summary, description } of RULES) {
      assert.match(name, /^[a-z][a-z0-9_]*$/);
      assert.doesNotMatch(summary, /\.$/);
      assert.match(description, /[a-z]\. .*\.$/, name);
    }
  });

  test('of the database change nothing while it does not answer, those of calls clear when there are none', () => {
    const unknown = RULES.filter((rule) => rule.value({ ...FIGURES, server: null }) === null);
    assert.deepEqual(
      unknown.map(({ name }) => name),
      [
        'connections',
        'cache_hit_ratio',
        'replica_lag',
        'replica_missing',
        'lock_wait',
        'oldest_transaction',
        'archiving_failed',
      ],
    );
    const values = RULES.filter((rule) => !unknown.includes(rule)).map((rule) => rule.value(FIGURES));
    assert.deepEqual(values, [0, 0, 0, 0, 0]);
  });

  test('pool_wait is not known while statements wait and none has had its turn', () => {
    const wait = RULES.find(({ name }) => name === 'pool_wait');
    assert.equal(wait?.value({ ...FIGURES, pool: { ...POOL, waiting: 1 } }), null);
  });

  test('take thresholds from ALERTS, and only those that it names', () => {
    const settings =
      parseAlerts('connections.warning=0.7,connections.for=5,replica_missing.critical=3,lock_wait=off') ??
      assert.fail();
    const rules = configuredRules(settings);
    assert.deepEqual(
      rules.map(({ name }) => name),
      RULES.map(({ name }) => name).filter((name) => name !== 'lock_wait'),
    );
    const changed = rules.filter((rule) => !RULES.includes(rule));
    assert.deepEqual(
      changed.map(({ name, thresholds, forSeconds }) => [name, thresholds, forSeconds]),
      [
        ['connections', { warning: 0.7, critical: 0.95 }, 5],
        ['replica_missing', { warning: 0, critical: 3 }, 60],
      ],
    );
    assert.deepEqual(configuredRules([]), RULES);
  });
});

suite('the command alerts', () => {
  test('shows the thresholds in force, as a table or as JSON', async () => {
    const env = { ALERTS: 'connections.warning=0.7,lock_wait=off' };
    const { code, out } = await runCommand(['alerts'], env);
    const rows = out
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/ {2,}/));
    assert.equal(code, 0);
    assert.deepEqual(
      rows.map(([name]) => name),
      ['alert', ...RULES.map(({ name }) => name).filter((name) => name !== 'lock_wait')],
    );
    assert.deepEqual(rows[2], [
      'connections',
      'ratio',
      '> 0.7',
      '> 0.95',
      '60 s',
      '30 s',
      'PostgreSQL runs out of connections',
    ]);
    assert.deepEqual(rows[3]?.slice(1, 4), ['ratio', '< 0.9', '< 0.8']);
    const shown = JSON.parse((await runCommand(['alerts', '--json'], env)).out);
    const { summary, description, ...connections } = shown[1];
    assert.deepEqual(connections, {
      name: 'connections',
      unit: 'ratio',
      fires: 'above',
      thresholds: { warning: 0.7, critical: 0.95 },
      forSeconds: 60,
      clears: { critical: 0.855, warning: 0.63 },
      clearSeconds: 30,
    });
  });

  test('says what ALERTS may be when it is wrong', async () => {
    const { code, err } = await runCommand(['alerts'], { ALERTS: 'disk.warning=5' });
    assert.equal(code, 2);
    assert.match(
      err,
      /ALERTS: expected <alert>\.warning\|critical\|for=.* database_down, connections, .*for example conn/,
    );
    assert.doesNotMatch(err, /disk/);
  });
});
