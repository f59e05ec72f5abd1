import type { Directives } from '../directives.ts';
import type { ChangeClass } from './finding.ts';

/** The directive by which the head of a file answers for a class of changes. */
interface Answer {
  readonly key: string;
  /** What it says, in the migration of that number. */
  readonly value: (version: string) => string;
  /** What the line needs to be explained with. */
  readonly hint: string;
  readonly given: (directives: Directives) => boolean;
}

export const ANSWERS: Readonly<Record<ChangeClass, Answer>> = {
  destructive: {
    key: 'destructive',
    value: () => 'what is lost',
    hint: '',
    given: ({ destructive }) => destructive !== null,
  },
  'data-dependent': {
    key: 'data-dependent',
    value: () => 'why every row fits',
    hint: '',
    given: ({ dataDependent }) => dataDependent !== null,
  },
  'backward-incompatible': {
    key: 'oldest-release',
    value: (version) => version,
    hint: ', or the newest migration of the oldest release that can serve the schema after this',
    given: ({ oldestRelease }) => oldestRelease !== null,
  },
};

/** The line of a directive in its file, from 1; that of the file's beginning where there is none. */
export function headLine(sql: string, key: string, value = ''): number {
  const at = sql.split('\n').findIndex((line) => {
    const [, name, rest = ''] = /^\s*--\s*([a-z][a-z-]*):\s*(.*)$/.exec(line) ?? [];
    return name === key && rest.startsWith(value);
  });
  return at === -1 ? 1 : at + 1;
}
