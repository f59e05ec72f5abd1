import { tellLines } from '../../lines.ts';
import type { Report } from './audit.ts';
import { GROUPS, type Result } from './check.ts';

/** Where the audit takes place, in a few words. */
export interface Site {
  readonly service: string;
  readonly database: string;
}

/** Writes results as they come: one line each, under the name of its group, and below it what is wrong. */
export const tellResults = (print: (line: string) => void): ((result: Result) => void) => {
  const line = tellLines(print);
  return ({ group, name, ok, seen, faults }) => line(group, ok ? 'ok' : 'FAIL', `${name}: ${seen}`, faults);
};

const NO_TOKENS = 'forged tokens, since authentication is off';

/** What was not asked for, or is not there to be proved: the verdict says nothing about it. */
const leftOut = ({ authenticated, results }: Report): readonly string[] => [
  ...(authenticated ? [] : [NO_TOKENS]),
  ...GROUPS.filter((name) => !results.some(({ group }) => group === name)),
];

const conclusion = ({ ok, authenticated, results }: Report): string => {
  const count = results.length;
  const failed = results.filter((result) => !result.ok).length;
  if (!ok) return `NOT ISOLATED: ${failed} of ${count} checks do not hold`;
  if (authenticated) return `ISOLATED: ${count === 1 ? 'the one check holds' : `all ${count} checks hold`}`;
  return `OPEN, since authentication is off: whoever reaches the service may act as the system; checks that hold: ${count}`;
};

export const verdictOf = (report: Report, seconds: number): string => {
  const without = leftOut(report);
  const { left } = report;
  return [
    '',
    `${conclusion(report)}, after ${seconds} s.`,
    ...(without.length > 0 ? [`Left out: ${without.join(', ')}.`] : []),
    ...(left.length > 0 ? left : ['The scratch projects and users are removed.']),
  ].join('\n');
};

/** The whole audit as one JSON document. */
export const documentOf = (site: Site, report: Report, seconds: number): string => {
  const { ok, authenticated, results, left } = report;
  return JSON.stringify({ ok, authenticated, ...site, seconds, checks: results, leftOut: leftOut(report), left });
};
