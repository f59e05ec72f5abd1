import { loadConfig } from '../config.ts';
import { type AlertRule, clearSeconds, clearsAt, SEVERITIES } from '../monitor/alerts.ts';
import { prometheusRules } from '../monitor/prometheus-rules.ts';
import type { Severity } from '../monitor/report.ts';
import { configuredRules } from '../monitor/thresholds.ts';
import { print } from './output.ts';

export interface AlertsOptions {
  readonly prometheus?: boolean;
  readonly json?: boolean;
}

/** Shows the alerts that are judged, with the thresholds in force. */
export const showAlerts = ({ prometheus = false, json = false }: AlertsOptions): void => {
  const rules = configuredRules(loadConfig(process.env, 'command').alerts);
  if (prometheus) process.stdout.write(prometheusRules(rules));
  else print(json ? JSON.stringify(rules.map(asJson)) : table(rules));
};

const asJson = (rule: AlertRule) => {
  const { name, summary, description, unit, fires, thresholds, forSeconds } = rule;
  const clears = Object.fromEntries(
    SEVERITIES.flatMap((severity) => {
      const threshold = thresholds[severity];
      return threshold === undefined ? [] : [[severity, clearsAt(rule, threshold)]];
    }),
  );
  return { name, unit, fires, thresholds, forSeconds, clears, clearSeconds: clearSeconds(rule), summary, description };
};

const HEAD = ['alert', 'unit', 'warning', 'critical', 'for', 'clears after', 'what is wrong'];

function table(rules: readonly AlertRule[]): string {
  const rows = [HEAD, ...rules.map(rowOf)];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function rowOf(rule: AlertRule): string[] {
  const side = rule.fires === 'above' ? '>' : '<';
  const beyond = (severity: Severity) => {
    const threshold = rule.thresholds[severity];
    return threshold === undefined ? '-' : `${side} ${threshold}`;
  };
  const seconds = (count: number) => (count === 0 ? 'at once' : `${count} s`);
  const times = [seconds(rule.forSeconds), seconds(clearSeconds(rule))];
  return [rule.name, rule.unit, beyond('warning'), beyond('critical'), ...times, rule.summary];
}
