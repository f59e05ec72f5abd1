import assert from 'node:assert/strict';
import { AlertSeverity } from '../../src/gen/jeex/persistence/v1/database_service_pb.js';
import { createLog } from '../../src/log.ts';
import type { Severity } from '../../src/monitor/report.ts';
import { RULES } from '../../src/monitor/rules.ts';
import { type TestService, useService } from './service.ts';
import { until } from './until.ts';

/** A log line of an alert. */
interface Line {
  readonly alert: string;
  readonly msg: string;
  readonly severity: Severity;
}

/** A service whose monitor looks once a second, and what it tells of its alerts. */
export interface Alerting {
  readonly service: TestService;
  /** What the log has said of an alert, in few words. */
  said(alert: string): string[];
  /** Waits until it fires with that severity: on the log first, and then in GetDatabaseHealth and in the metrics. */
  fires(alert: string, severity: Severity): Promise<void>;
  /** Waits until it is over, likewise. */
  over(alert: string): Promise<void>;
}

const PATIENCE_MS = 60_000;
const SEVERITY = { warning: AlertSeverity.WARNING, critical: AlertSeverity.CRITICAL } as const;

/** @param alerts the variable ALERTS */
export const useAlerting = async (
  alerts: string,
  options: Parameters<typeof useService>[0] = {},
): Promise<Alerting> => {
  const lines: Line[] = [];
  const log = createLog('info', { write: (line) => void lines.push(JSON.parse(line) as Line) });
  const env = { MONITOR_INTERVAL_SECONDS: '1', ALERTS: alerts, ...options.env };
  const service = await useService({ ...options, log, env });

  const of = (alert: string) => lines.filter((line) => line.alert === alert);
  const isFiring = async (alert: string) =>
    (await service.database.getDatabaseHealth({})).health?.alerts.find(({ name }) => name === alert);
  const gaugesOf = async (alert: string) => {
    const text = await (await fetch(`http://${service.http}/metrics`)).text();
    const found = text.matchAll(/^jeex_alert_firing\{alert="(\w+)",severity="(\w+)"\} 1$/gm);
    return [...found].filter(([, name]) => name === alert).map(([, , severity]) => severity);
  };
  return {
    service,
    said: (alert) => of(alert).map(({ msg, severity }) => `${msg}: ${severity}`),
    fires: async (alert, severity) => {
      const is = ({ msg, severity: its }: Line) => msg !== 'alert over' && its === severity;
      await until(() => of(alert).slice(-1).some(is), `${alert} is ${severity}`, PATIENCE_MS);
      const told = await isFiring(alert);
      const rule = RULES.find(({ name }) => name === alert);
      assert.deepEqual(
        [told?.severity, told?.description, told?.unit],
        [SEVERITY[severity], rule?.description, rule?.unit],
      );
      const { value, threshold } = told ?? assert.fail();
      assert.ok(rule?.fires === 'above' ? value > threshold : value < threshold, `${value} is beyond ${threshold}`);
      assert.deepEqual(await gaugesOf(alert), [severity]);
    },
    over: async (alert) => {
      await until(() => of(alert).at(-1)?.msg === 'alert over', `${alert} is over`, PATIENCE_MS);
      assert.equal(await isFiring(alert), undefined);
      assert.deepEqual(await gaugesOf(alert), []);
    },
  };
};
