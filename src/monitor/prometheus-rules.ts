import { type AlertRule, clearSeconds, SEVERITIES } from './alerts.ts';
import type { Severity } from './report.ts';

/** How Prometheus writes a value of a unit. */
const VALUES: Readonly<Record<AlertRule['unit'], string>> = {
  ratio: '{{ $value | humanizePercentage }}',
  seconds: '{{ $value | humanizeDuration }}',
  bytes: '{{ $value | humanize1024 }}B',
  count: '{{ $value }}',
};

/** One entry of a rule file; texts as they are, not yet quoted. */
interface Entry {
  readonly alert: string;
  readonly expr: string;
  readonly forSeconds: number;
  readonly keepSeconds: number;
  readonly severity: Severity;
  readonly summary: string;
  readonly description: string;
}

/** What only Prometheus can see: a service that is gone says nothing of itself. */
const GONE: Entry = {
  alert: 'jeex_service_gone',
  expr: 'absent(jeex_ready)',
  forSeconds: 60,
  keepSeconds: 0,
  severity: 'critical',
  summary: 'No replica of the service is seen',
  description:
    'Prometheus reads the metrics of no replica: none runs, or none lets it in. See its targets page for what it meets.',
};

/**
 * The rules as a rule file of Prometheus, an entry for each severity. It has no margins: an alert stays for as long as a good
 * value has to last.
 */
export const prometheusRules = (rules: readonly AlertRule[]): string =>
  [
    '# Made by `jeex-persistence alerts --prometheus`, with the thresholds of its environment.',
    'groups:',
    '  - name: jeex-persistence',
    '    rules:',
    ...[...rules.flatMap(entriesOf), GONE].flatMap(linesOf),
    '',
  ].join('\n');

const entriesOf = (rule: AlertRule): Entry[] =>
  SEVERITIES.flatMap((severity) => {
    const threshold = rule.thresholds[severity];
    if (threshold === undefined) return [];
    return {
      alert: `jeex_${rule.name}`,
      expr: `${rule.promql} ${rule.fires === 'above' ? '>' : '<'} ${threshold}`,
      forSeconds: rule.forSeconds,
      keepSeconds: clearSeconds(rule),
      severity,
      summary: `${rule.summary}: ${VALUES[rule.unit]}`,
      description: rule.description,
    };
  });

const linesOf = ({ alert, expr, forSeconds, keepSeconds, severity, summary, description }: Entry): string[] => [
  `      - alert: ${alert}`,
  `        expr: ${quoted(expr)}`,
  `        for: ${forSeconds}s`,
  `        keep_firing_for: ${keepSeconds}s`,
  '        labels:',
  `          severity: ${severity}`,
  '        annotations:',
  `          summary: ${quoted(summary)}`,
  `          description: ${quoted(description)}`,
];

/** In the quotes of YAML that know no escape but their own. */
const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;
