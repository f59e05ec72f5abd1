import { cpus } from 'node:os';
import type { Measured } from './measure.ts';
import { type Figure, isMet, type Result } from './scenario.ts';
import { spreadOf } from './statistics.ts';

/** Everything a run has found. */
export interface Report {
  /** What made the load. */
  readonly driver: string;
  /** When it ended, as in ISO 8601. */
  readonly time: string;
  /** Of the processors' time, the share that the host gave to somebody else meanwhile. */
  readonly stolen: number;
  readonly results: readonly (Result & { readonly scenario: string })[];
}

/** Whether every scenario has ended well, and every figure is what it has to be. */
export const isGood = ({ results }: Report): boolean =>
  results.every(({ figures, failure }) => failure === undefined && figures.every((figure) => isMet(figure) !== false));

/** The tables of a run: the figures, and what each scenario has measured, as medians of its rounds. */
export const toMarkdown = ({ driver, time, stolen, results }: Report): string =>
  [
    `${time}, ${cpus().length} processors (${cpus()[0]?.model.trim()}), of whose time the host took ${(100 * stolen).toFixed(1)} % away, load by ${driver}`,
    tableOf(
      ['scenario', 'figure', 'value', 'spread', 'bound', ''],
      results.flatMap(({ scenario, figures, failure }) => [
        ...figures.map((figure) => [scenario, ...cellsOf(figure)]),
        ...(failure === undefined ? [] : [[scenario, failure, '', '', '', 'FAILED']]),
      ]),
    ),
    ...results
      .filter(({ measured }) => measured.length > 0)
      .map(({ scenario, measured }) => `${scenario}:\n\n${tableOf(COLUMNS, grouped(measured).map(medianOf))}`),
    '',
  ].join('\n\n');

const tableOf = (columns: readonly string[], rows: readonly (readonly string[])[]): string =>
  [columns, columns.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

const VERDICTS = new Map<boolean | null, string>([
  [true, 'ok'],
  [false, 'NOT MET'],
  [null, ''],
]);

const cellsOf = (figure: Figure): string[] => {
  const { name, value, unit, spread, bound } = figure;
  const limit = bound === null ? '' : 'least' in bound ? `at least ${bound.least}` : `at most ${bound.most}`;
  return [
    name,
    `${short(value)} ${unit}`,
    spread === null ? '' : `${short(spread.least)} to ${short(spread.most)}`,
    limit,
    VERDICTS.get(isMet(figure)) ?? '',
  ];
};

const short = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2));

const COLUMNS = [
  'work',
  'server',
  'callers',
  'offered/s',
  'calls/s',
  'p50 ms',
  'p95 ms',
  'p99 ms',
  'CPU µs/call',
  'service',
  'PgBouncer',
  'PostgreSQL',
  'WAL bytes/call',
  'failed',
];

/** The runs of one server, work and size. */
const grouped = (measured: readonly Measured[]): Measured[][] => [
  ...Map.groupBy(measured, ({ target, work, callers, offered }) => `${work}|${callers}|${offered}|${target}`).values(),
];

const medianOf = (runs: readonly Measured[]): string[] => {
  const of = (read: (run: Measured) => number) => spreadOf(runs.map(read)).median;
  const [first] = runs as [Measured];
  const failed = runs.flatMap((run) => Object.entries(run.failed)).map(([reason, count]) => `${reason} ${count}`);
  return [
    first.work,
    first.target,
    String(first.callers),
    first.offered === null ? '' : first.offered.toFixed(0),
    of(({ callsPerSecond }) => callsPerSecond).toFixed(0),
    ...(['p50', 'p95', 'p99'] as const).map((which) => of(({ latency }) => latency[which]).toFixed(2)),
    of(({ cpu }) => cpu.all).toFixed(0),
    of(({ cpu }) => cpu.service).toFixed(0),
    first.cpu.pgbouncer === null ? '' : of(({ cpu }) => cpu.pgbouncer ?? 0).toFixed(0),
    of(({ cpu }) => cpu.postgres).toFixed(0),
    of(({ walBytes }) => walBytes).toFixed(0),
    failed.join(', '),
  ];
};
