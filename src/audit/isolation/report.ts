import type { Report } from './audit.ts';
import { GROUPS, type Group, type Result } from './check.ts';

/** Where the audit takes place, in a few words. */
export interface Site {
  readonly service: string;
  readonly database: string;
}

/** Writes results as they come: one line each, under the name of its group, and below it what is wrong. */
export const tellResults = (print: (line: string) => void): ((result: Result) => void) => {
  let last = '';
  return ({ group, name, ok, seen, faults }) => {
    if (group !== last) print(`\n${group}`);
    last = group;
    print(`  ${ok ? 'ok  ' : 'FAIL'}  ${name}: ${seen}`);
    for (const fault of faults) print(`          ${fault}`);
  };
};

/** What was not asked for, which the verdict then says nothing about. */
const leftOut = (results: readonly Result[]): readonly Group[] =>
  GROUPS.filter((name) => !results.some(({ group }) => group === name));

export const verdictOf = ({ ok, results, left }: Report, seconds: number): string => {
  const failed = results.filter((result) => !result.ok).length;
  const without = leftOut(results);
  return [
    '',
    ok
      ? `ISOLATED: all ${results.length} checks hold, after ${seconds} s.`
      : `NOT ISOLATED: ${failed} of ${results.length} checks do not hold, after ${seconds} s.`,
    ...(without.length > 0 ? [`Left out: ${without.join(', ')}.`] : []),
    ...(left.length > 0 ? left : ['The scratch projects and users are removed.']),
  ].join('\n');
};

/** The whole audit as one JSON document. */
export const documentOf = (site: Site, { ok, results, left }: Report, seconds: number): string =>
  JSON.stringify({ ok, ...site, seconds, checks: results, leftOut: leftOut(results), left });
