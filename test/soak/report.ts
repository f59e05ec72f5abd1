import { pageOf, type Verdict } from '../../src/certify/report.ts';
import type { Inflicted, Outcome } from './inflict.ts';
import type { Memory } from './memory.ts';
import type { Options } from './options.ts';
import { countOf, type Rest } from './rest.ts';

/** What came out of a soak. */
export interface Report {
  readonly options: Options;
  /** When, in ISO form, and how long it took in minutes. */
  readonly began: string;
  readonly minutes: number;
  readonly through: string;
  readonly disks: string;
  readonly outcome: Outcome;
  readonly verdict: Verdict;
  readonly rest: { readonly before: Rest; readonly after: Rest; readonly leaks: readonly string[] };
  readonly memory: readonly Memory[];
  /** The last errors that each replica has logged. */
  readonly errors: Readonly<Record<string, readonly string[]>>;
}

/** What memory may grow in an hour, in percent. */
const MOST_PERCENT = 2;

/** What a run has shown to be broken, a line each; none: it has passed. */
export const faultsOf = ({ outcome, verdict, rest, memory }: Report): readonly string[] => [
  ...outcome.broken,
  ...verdict.promises.filter(({ faults }) => faults > 0).map(({ what, faults }) => `${what}: ${faults}`),
  // Whatever breaks, the service knows what to call it.
  ...Object.entries(verdict.failures)
    .filter(([reason]) => reason === 'INTERNAL')
    .map(([reason, count]) => `${count} calls failed with ${reason}`),
  ...rest.leaks,
  ...memory.flatMap(growthOf),
];

const growthOf = ({ name, pid, residentPercentPerHour: resident, heapPercentPerHour: heap }: Memory): string[] =>
  Object.entries({ 'resident memory': resident, heap })
    .filter(([, slope]) => slope !== null && slope >= MOST_PERCENT)
    .map(([what, slope]) => `${what} of ${name} (process ${pid}) grows by ${slope?.toFixed(1)} % per hour`);

const row = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');

const place = (sorted: readonly number[], share: number): number =>
  Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);

const spread = (values: readonly number[]): string => {
  const sorted = values.toSorted((a, b) => a - b);
  return `${place(sorted, 0.5)} / ${place(sorted, 0.99)} / ${place(sorted, 1)}`;
};

const faultRows = ({ name, what, times, figures, missing }: Inflicted): readonly string[][] => {
  if (missing !== null) return [[name, what, `left out: ${missing}`, '']];
  const told = Object.entries(figures).map(([figure, values]) => `${figure}: ${spread(values)}`);
  return [[name, what, String(times), told.join('; ')]];
};

const percent = (slope: number | null): string => (slope === null ? 'too short to tell' : `${slope.toFixed(2)} %`);

const memoryRow = ({ name, pid, minutes, residentMiB, heapMiB, ...slopes }: Memory): (string | number)[] => [
  `${name} (${pid})`,
  minutes.toFixed(1),
  `${residentMiB.first} → ${residentMiB.last} (most ${residentMiB.most})`,
  percent(slopes.residentPercentPerHour),
  heapMiB === null ? '' : `${heapMiB.first} → ${heapMiB.last}`,
  percent(slopes.heapPercentPerHour),
];

const restRow = (when: string, { replicas, locks, openTransactions }: Rest): (string | number)[] => [
  when,
  replicas.map(({ descriptors }) => countOf(descriptors)).join(', '),
  replicas.map(({ acquired }) => acquired).join(', '),
  replicas.map(({ waiting }) => waiting).join(', '),
  locks,
  openTransactions,
];

/** The processes worth a line: the longest-lived of each replica, when many were killed. */
const lasting = (memory: readonly Memory[]): readonly Memory[] =>
  [...Map.groupBy(memory, ({ name }) => name).values()].flatMap((own) =>
    own.toSorted((a, b) => b.minutes - a.minutes).slice(0, 1),
  );

/** The report on one page, in Markdown. */
export const toMarkdown = (report: Report): string => {
  const { options, began, minutes, through, disks, outcome, verdict, rest, memory } = report;
  const broken = faultsOf(report);
  return `# Soak of ${began}, ${minutes.toFixed(1)} minutes, seed ${options.seed}

${broken.length === 0 ? 'PASSED' : `FAILED (run it again with --seed ${options.seed})\n\n${broken.map((line) => `- ${line}`).join('\n')}`}

Two replicas, ${through}; the data ${disks}. ${options.callers} callers, ${options.watchers} watchers, ${options.projects} projects.

${table(['fault', 'what one time of it is', 'times', 'figures (p50 / p99 / most)'], outcome.faults.flatMap(faultRows))}

${table(['at rest', 'descriptors', 'connections in use', 'calls waiting', 'locks', 'open transactions'], [restRow('before', rest.before), restRow('after', rest.after)])}

${table(['memory', 'minutes', 'resident, MiB', 'per hour', 'heap after collection, MiB', 'per hour'], lasting(memory).map(memoryRow))}

\`\`\`
${pageOf(verdict)}
\`\`\`
`;
};
