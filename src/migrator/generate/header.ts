import { number } from '../files.ts';
import type { ChangeClass, Finding } from '../lint/finding.ts';
import type { Draft } from './build.ts';
import type { Effects, Mode } from './run.ts';

const WIDTH = 120;

/** What others wait for while a lock of that mode is held. */
const WAITING: Readonly<Record<Mode, string>> = {
  AccessExclusiveLock: 'reads and writes of it wait (access exclusive)',
  ExclusiveLock: 'writes of it wait (exclusive)',
  ShareRowExclusiveLock: 'writes of it wait (share row exclusive)',
  ShareLock: 'writes of it wait (share)',
  ShareUpdateExclusiveLock: 'reads and writes of it go on (share update exclusive)',
};

/** Findings that a person has declared, and that have no other way: why each is meant. */
const DECLARED: Readonly<Record<string, string>> = {
  'ban-drop-not-null': 'declared so: every release that runs has to bear a null there',
  'changing-column-type': 'declared so: the lines above tell what it locks and rewrites',
};

const WHY_ROWS_FIT = 'nobody has looked at the rows yet: where one does not fit, it fails and changes nothing';

interface Head {
  readonly version: number;
  readonly name: string;
  readonly draft: Draft;
  /** What its statements are found to be. */
  readonly findings: readonly Finding[];
  /** What a rule says that has to be excepted. */
  readonly rules: readonly string[];
}

/** The comments above a migration: what it does and to whom, for its review; then what the migrator has to know. */
export function doHeader({ version, name, draft, findings, rules }: Head): string {
  return comment([
    `${number(version)} ${name}, generated from schema.sql: read it, and put your own reasons where it gives some.`,
    ...draft.summary,
    ...draft.doubts,
    ...describeEffects(draft.effects),
    ...describeRun(draft),
    ...advice(findings),
    ...runLine(draft),
    ...lossLine(findings),
    ...rowsLine(findings),
    ...(has(findings, 'backward-incompatible') ? [`oldest-release: ${number(version)}`] : []),
    ...rules.flatMap((rule) => (DECLARED[rule] === undefined ? [] : [`lint-ignore: ${rule}: ${DECLARED[rule]}`])),
  ]);
}

/** The comments above its undo. */
export const undoHeader = ({ version, name, draft, findings }: Omit<Head, 'rules'>): string =>
  comment([
    `Takes back ${number(version)} ${name}.`,
    ...describeEffects(draft.undoEffects),
    ...describeRun(draft),
    ...runLine(draft),
    ...lossLine(findings),
  ]);

const describeEffects = ({ locked, rewritten }: Effects): string[] => [
  ...[...locked].map(([mode, tables]) => `Locks ${tables.join(', ')} until its end: ${WAITING[mode]}.`),
  ...(rewritten.length > 0 ? [`Rewrites every row of ${rewritten.join(', ')} under that lock.`] : []),
];

const describeRun = ({ run }: Draft): string[] =>
  run === 'concurrently'
    ? ['Reads and writes go on beside it; it waits for the transactions that were there before.']
    : [];

/** The safer ways, each once. */
const advice = (findings: readonly Finding[]): string[] =>
  [...Map.groupBy(findings, (finding) => finding.advice)].map(
    ([safer, those]) => `It ${[...new Set(those.map(({ what }) => what))].join(', ')}; safer: ${safer}.`,
  );

const runLine = ({ run }: Draft): string[] => (run === 'concurrently' ? ['run: concurrently'] : []);

const lossLine = (findings: readonly Finding[]): string[] => {
  const lost = whats(findings, 'destructive');
  return lost.length > 0 ? [`destructive: ${lost.join('; ')}`] : [];
};

const rowsLine = (findings: readonly Finding[]): string[] => {
  const depends = whats(findings, 'data-dependent');
  return depends.length > 0 ? [`data-dependent: ${depends.join('; ')}: ${WHY_ROWS_FIT}`] : [];
};

const has = (findings: readonly Finding[], one: ChangeClass): boolean =>
  findings.some((finding) => finding.class === one);

const whats = (findings: readonly Finding[], one: ChangeClass): string[] => [
  ...new Set(findings.filter((finding) => finding.class === one).map(({ what }) => what)),
];

/** A directive stays on its line, however long; other lines are broken where they have blanks. */
const comment = (lines: readonly string[]): string =>
  lines.flatMap((line) => (/^[a-z-]+: /.test(line) ? [`-- ${line}`] : wrap(line))).join('\n');

function wrap(line: string): string[] {
  const wrapped: string[] = [];
  let current = '--';
  // A line that begins with a word and a colon, whatever is before them, would be taken for a directive.
  for (const word of line.split(/ (?![^a-z]*[a-z_-]+:)/i)) {
    if (current.length + 1 + word.length > WIDTH) {
      wrapped.push(current);
      current = '--  ';
    }
    current += ` ${word}`;
  }
  return [...wrapped, current];
}
