import { tellLines } from '../lines.ts';
import type { Fault, Result } from './check.ts';
import { CHECKS } from './doctor.ts';

const MARKS = { ok: 'ok', warning: 'warn', failed: 'FAIL', skipped: 'skip' } as const;
const WIDTH = Math.max(...CHECKS.map(({ name }) => name.length));

/** Each fault, and after those that are mended alike how. */
const linesOf = (faults: readonly Fault[]): readonly string[] =>
  faults.flatMap(({ says, mend }, index) => (faults[index + 1]?.mend === mend ? [says] : [says, `  mend: ${mend}`]));

/** Writes results as they come: one line each, under the name of its group, and below it each fault with its mending. */
export const tellResults = (print: (line: string) => void): ((result: Result) => void) => {
  const line = tellLines(print);
  return ({ group, name, status, seen, faults }) =>
    line(group, MARKS[status], `${name.padEnd(WIDTH)}  ${seen}`, linesOf(faults));
};

const countOf = (results: readonly Result[], status: Result['status']): number =>
  results.filter((result) => result.status === status).length;

export const isWell = (results: readonly Result[]): boolean => countOf(results, 'failed') === 0;

/** The last line. */
export const verdictOf = (results: readonly Result[]): string => {
  const counts = (['ok', 'warning', 'failed', 'skipped'] as const).map(
    (status) => `${countOf(results, status)} ${status}`,
  );
  return `\n${isWell(results) ? 'WELL' : 'NOT WELL'}: of ${results.length} checks ${counts.join(', ')}.`;
};

/** All of it as one JSON document. */
export const documentOf = (database: string | null, results: readonly Result[]): string =>
  JSON.stringify({ ok: isWell(results), database, checks: results });
