import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import { parse } from 'yaml';
import { SEVERITIES } from '../src/monitor/alerts.ts';
import { alertGauges, createAlerts } from '../src/monitor/evaluate.ts';
import { monitorGauges } from '../src/monitor/gauges.ts';
import { prometheusRules } from '../src/monitor/prometheus-rules.ts';
import { RULES, STREAMS } from '../src/monitor/rules.ts';
import { createExposition } from '../src/telemetry/exposition.ts';
import { createMeasurements } from '../src/telemetry/measurements.ts';
import { createProducer } from '../src/telemetry/producer.ts';
import { runCommand } from './support/command.ts';
import { FIGURES, SERVER } from './support/figures.ts';
import { METHODS } from './support/methods.ts';
import { labelsIn, metricsIn, readExposition } from './support/promql.ts';
import { newProject, useService } from './support/service.ts';

const read = (file: string): string => readFileSync(new URL(`../deploy/monitoring/${file}`, import.meta.url), 'utf8');

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
  readonly keep_firing_for: string;
  readonly labels: { readonly severity: string };
}

const rulesOf = (text: string): Rule[] => parse(text).groups.flatMap(({ rules }: { rules: Rule[] }) => rules);
const rules = rulesOf(read('alerts.yaml'));

/** Every query of the dashboard: of panels, variables and annotations. */
const queries = (() => {
  const found: string[] = [];
  const dashboard = JSON.parse(read('dashboard.json'), (key, value) => {
    if (key === 'expr') found.push(value);
    return value;
  });
  const variables = dashboard.templating.list.flatMap(({ query }: { query: { query?: string } }) => query.query ?? []);
  return { panels: found, variables: variables as string[] };
})();

/** `label_values(metric, label)` is no PromQL. */
const variable = (query: string) => /^label_values\((\w+), (\w+)\)$/.exec(query)?.slice(1) ?? assert.fail(query);

const expressions = [...rules.map(({ expr }) => expr), ...queries.panels];
const named = new Set([
  ...expressions.flatMap(metricsIn),
  ...queries.variables.flatMap((query) => variable(query)[0] ?? []),
]);

/** What Prometheus adds to what it reads, and what buckets have. */
const ADDED = ['job', 'instance', 'le'];

/** All metrics with all labels that they can have: of a service whose calls failed too, with replicas and PgBouncer. */
const everything = async (): Promise<string> => {
  const measurements = createMeasurements();
  measurements.call('grpc', { name: 'a.B/C', streaming: false }, 'UNAVAILABLE', 1);
  measurements.statement('a.b', '57014', 1);
  const alerts = createAlerts({ rules: RULES, log: { info: () => {}, warn: () => {}, error: () => {} } });
  const pool = { database: 'jeex', user: 'jeex_app', poolMode: 'transaction' };
  const figures = {
    ...FIGURES,
    server: {
      ...SERVER,
      replicas: [{ name: 'one', state: 'streaming', synchronous: false, lagBytes: 1n, replayLag: 0 }],
    },
    pgbouncerPools: [
      { ...pool, clientsActive: 1, clientsWaiting: 1, serversActive: 1, serversIdle: 1, maxWaitMicros: 1 },
    ],
    pgbouncerStats: [{ database: 'jeex', transactionsPerSecond: 1, queriesPerSecond: 1, queryTime: 1, waitTime: 1 }],
  };
  const report = { ...figures, alerts: alerts.update(figures) };
  const gauges = () => [...monitorGauges(report, measurements), ...alertGauges(alerts)];
  return await createExposition(createProducer(() => ({ measurements, place: {}, gauges })))();
};

suite('deploy/monitoring', () => {
  test('has the rules of this release: `jeex-persistence alerts --prometheus >deploy/monitoring/alerts.yaml` writes them', () => {
    assert.equal(read('alerts.yaml'), prometheusRules(RULES));
  });

  test('the command writes them with the thresholds of ALERTS', async () => {
    const ALERTS = 'connections.warning=0.7,connections.for=20,lock_wait=off';
    const { out } = await runCommand(['alerts', '--prometheus'], { ALERTS });
    const changed = rulesOf(out).filter(
      ({ expr, for: since }) => !rules.some((rule) => rule.expr === expr && rule.for === since),
    );
    assert.deepEqual(
      changed.map(({ alert, expr, labels, for: since, keep_firing_for }) => [
        alert,
        labels.severity,
        expr.match(/ > [\d.]+$/)?.[0],
        since,
        keep_firing_for,
      ]),
      [
        ['jeex_connections', 'critical', ' > 0.95', '20s', '20s'],
        ['jeex_connections', 'warning', ' > 0.7', '20s', '20s'],
      ],
    );
    assert.equal(rulesOf(out).length, rules.length - 2);
  });

  test('has a unit test in which each alert comes with each severity, and goes', () => {
    const { tests } = parse(read('alerts.test.yaml')) as {
      tests: { promql_expr_test?: { exp_samples: { labels: string }[] }[] }[];
    };
    const told = tests.flatMap(({ promql_expr_test: steps = [] }) => {
      const last = steps.at(-1)?.exp_samples ?? [];
      assert.deepEqual(last, [], 'in the end none fires');
      return steps.flatMap(({ exp_samples }) => exp_samples.map(({ labels }) => labels));
    });
    const expected = rules.map(({ alert, labels }) => `{alertname="${alert}", severity="${labels.severity}"}`);
    assert.deepEqual([...new Set(told)].sort(), expected.sort());
  });

  test('asks for metrics that /metrics of a running service has, and no others', async () => {
    const service = await useService();
    await newProject(service);
    const response = await fetch(`http://${service.http}/metrics`);
    assert.equal(response.status, 200);
    const metrics = readExposition(await response.text());
    assert.ok(named.size > 40, 'the queries were understood');
    assert.deepEqual(
      [...named].filter((name) => !metrics.has(name)),
      [],
    );
  });

  test('shows every metric of a service on the dashboard', async () => {
    const shown = new Set(queries.panels.flatMap(metricsIn));
    const metrics = readExposition(await everything());
    const own = [...metrics.keys()].filter((name) => /^(rpc|db|jeex|postgresql|pgbouncer)_/.test(name));
    const family = (name: string) => name.replace(/_(bucket|count|sum)$/, '');
    const families = new Set([...shown].map(family));
    const unseen = own.filter((name) => !families.has(family(name)));
    assert.deepEqual(unseen, []);
  });

  test('tells series by labels that they have', async () => {
    const metrics = readExposition(await everything());
    for (const expression of expressions) {
      const has = new Set([...ADDED, ...metricsIn(expression).flatMap((name) => [...(metrics.get(name) ?? [])])]);
      assert.deepEqual(
        labelsIn(expression).filter((label) => !has.has(label)),
        [],
        expression,
      );
    }
    assert.ok(queries.variables.every((query) => variable(query)[1] === 'instance'));
  });

  test('leaves streams out of latencies, and nothing else', () => {
    const pattern = new RegExp(`^(?:${STREAMS})$`);
    for (const method of METHODS) {
      const name = `${method.parent.typeName}/${method.name}`;
      assert.equal(pattern.test(name), method.methodKind === 'server_streaming', name);
    }
    const buckets = expressions.filter((expression) => expression.includes('rpc_server_call_duration_bucket'));
    assert.ok(buckets.length > 3);
    for (const expression of buckets) assert.ok(expression.includes(`rpc_method!~"${STREAMS}"`), expression);
  });

  test('the dashboard can be provisioned: an id of its own, no database ids, one data source for all queries', () => {
    const dashboard = JSON.parse(read('dashboard.json'));
    assert.equal(dashboard.uid, 'jeex-persistence');
    assert.equal(dashboard.id, undefined);
    const ids = dashboard.panels.map(({ id }: { id: number }) => id);
    assert.equal(new Set(ids).size, ids.length);
    const sources = new Set(
      dashboard.panels.flatMap(({ datasource }: { datasource?: object }) =>
        datasource ? [JSON.stringify(datasource)] : [],
      ),
    );
    assert.match([...sources].join(), /^\{"type":"prometheus","uid":"\$\{datasource\}"\}$/);
    const { datasources } = parse(read('grafana/datasources.yaml'));
    const { providers } = parse(read('grafana/dashboards.yaml'));
    assert.deepEqual(
      [datasources[0].type, providers[0].type, providers[0].allowUiUpdates],
      ['prometheus', 'file', false],
    );
  });

  test('names every severity that Prometheus may route by', () => {
    assert.deepEqual([...new Set(rules.map(({ labels }) => labels.severity))].sort(), [...SEVERITIES].sort());
  });
});
