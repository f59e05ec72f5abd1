import { number } from '../files.ts';
import type { ChangeClass, Finding } from '../lint/finding.ts';
import type { Draft } from './build.ts';
import { MODES } from './run.ts';

const WIDTH = 120;

/** What others wait for while a lock of that mode is held. */
const KEPT_OUT: Readonly<Record<(typeof MODES)[number], string>> = {
  AccessExclusiveLock: 'reads and writes wait (access exclusive)',
  ExclusiveLock: 'writes and locking reads wait (exclusive)',
  ShareRowExclusiveLock: 'writes wait (share row exclusive)',
  ShareLock: 'writes wait (share)',
  ShareUpdateExclusiveLock: 'reads and writes go on, other changes of it wait (share update exclusive)',
};

/** What a migration's head is made from. */
interface Head {
  readonly title: string;
  readonly draft: Draft;
  /** Of the statements below. */
  readonly findings: readonly Finding[];
  readonly version: number;
}

/** The comment lines over a migration: what it does to whom, for whoever reviews it, and what the migrator has to know. */
export function doHeader({ title, draft, findings, version }: Head): string {
  return lines([
    title,
    'Generated: read it before it is committed, and put your reasons where it says why.',
    ...effects(draft),
    ...saferWays(findings),
    ...directives(draft, findings),
    ...(has(findings, 'backward-incompatible') ? [`oldest-release: ${number(version)}`] : []),
  ]);
}

/** The same over its undo. */
export const undoHeader = ({ title, draft, findings }: Head): string =>
  lines([title, ...directives(draft, findings)]);
