/** How a migration runs: whole in one transaction; one concurrent index statement outside any; one statement per key range. */
const RUN_KINDS = ['transaction', 'concurrently', 'batches'] as const;
export type RunKind = (typeof RUN_KINDS)[number];

/** The rows that a batched migration walks, in the order of their key. */
export interface BatchKey {
  readonly table: string;
  readonly columns: readonly string[];
}

interface LintIgnore {
  readonly rule: string;
  readonly reason: string;
}

/** What the head of a migration file says of it. */
export interface Directives {
  readonly run: RunKind;
  /** Of a migration in batches; null for all others. */
  readonly batch: BatchKey | null;
  /** What is lost; null: nothing. */
  readonly destructive: string | null;
  /** Why it fits every row there can be; null: it does not depend on the rows. */
  readonly dataDependent: string | null;
  /** The newest migration that the oldest release able to serve the schema knows; null: as before. */
  readonly oldestRelease: number | null;
  readonly lintIgnores: readonly LintIgnore[];
}

export interface ParsedDirectives {
  readonly directives: Directives;
  /** What is wrong with the lines themselves. */
  readonly problems: readonly string[];
}

const NAME = '[a-z_][a-z0-9_]*';
const BATCH = new RegExp(`^(${NAME})\\s*\\(\\s*(${NAME}(?:\\s*,\\s*${NAME})*)\\s*\\)$`);

type Draft = { -readonly [K in keyof Directives]: Directives[K] };

/** Takes a directive's value into the draft; what it answers is wrong with the value. */
const READERS: Readonly<Record<string, (value: string, draft: Draft) => string | undefined>> = {
  run: (value, draft) => {
    if (!(RUN_KINDS as readonly string[]).includes(value)) return `expected ${RUN_KINDS.join(', ')}`;
    draft.run = value as RunKind;
  },
  batch: (value, draft) => {
    const [, table, columns] = BATCH.exec(value) ?? [];
    if (table === undefined || columns === undefined) return 'expected a table and its key, such as `users (id)`';
    draft.batch = { table, columns: columns.split(',').map((column) => column.trim()) };
  },
  destructive: (value, draft) => {
    if (value === '') return 'expected what is lost';
    draft.destructive = value;
  },
  'data-dependent': (value, draft) => {
    if (value === '') return 'expected why every row fits';
    draft.dataDependent = value;
  },
  'oldest-release': (value, draft) => {
    if (!/^\d{3,9}$/.test(value)) return 'expected the number of a migration, such as 014';
    draft.oldestRelease = Number(value);
  },
  'lint-ignore': (value, draft) => {
    const [, rule, reason] = /^([a-z][a-z-]*):\s+(.+)$/.exec(value) ?? [];
    if (rule === undefined || reason === undefined) return 'expected a rule and the reason, such as `a-rule: it is …`';
    draft.lintIgnores = [...draft.lintIgnores, { rule, reason }];
  },
};

/** Those that may stand in a file more than once. */
const REPEATABLE = new Set(['lint-ignore']);

const DIRECTIVE = /^--\s*([a-z][a-z-]*):(?:\s+(.*?))?\s*$/;
/** What a person may have meant for one, whatever stands before it and however its words are put together. */
const ALMOST = /^[^a-z]*([a-z][a-z\s_-]*?)\s*:/i;

/**
 * Reads the directives of a migration: the lines `-- key: value` among the comments before its first statement. Whatever
 * looks like one and is none is a problem, since a misspelt `destructive` must not pass for a remark.
 */
export function parseDirectives(script: string): ParsedDirectives {
  const draft: Draft = {
    run: 'transaction',
    batch: null,
    destructive: null,
    dataDependent: null,
    oldestRelease: null,
    lintIgnores: [],
  };
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const { text, block } of headComments(script)) {
    const [, key, value = ''] = (block ? null : DIRECTIVE.exec(text)) ?? [];
    const wrong = key === undefined ? misspelling(text) : readInto(draft, { key, value }, seen);
    if (wrong !== undefined) problems.push(wrong);
    if (key !== undefined) seen.add(key);
  }
  if ((draft.run === 'batches') !== (draft.batch !== null) && problems.length === 0) {
    problems.push('`run: batches` and `batch: table (key)` go together');
  }
  return { directives: draft, problems };
}

/** What is wrong with a line that has the form of a directive. */
function readInto(
  draft: Draft,
  { key, value }: { readonly key: string; readonly value: string },
  seen: ReadonlySet<string>,
): string | undefined {
  const read = Object.hasOwn(READERS, key) ? READERS[key] : undefined;
  if (read === undefined) return misspelling(`${key}:`) ?? `\`${key}:\` is none of ${Object.keys(READERS).join(', ')}`;
  if (seen.has(key) && !REPEATABLE.has(key)) return `\`${key}:\` stands there twice`;
  const wrong = read(value, draft);
  return wrong && `\`${key}:\` ${wrong}`;
}

/** Says how a line is to be written that has a directive's key and is none. */
function misspelling(text: string): string | undefined {
  const [, written = ''] = ALMOST.exec(text) ?? [];
  const key = Object.keys(READERS).find((known) => letters(known) === letters(written));
  return key && `\`${text}\` is written \`-- ${key}: …\`, on a line of its own`;
}

const letters = (key: string): string => key.toLowerCase().replace(/[^a-z]/g, '');

/** The comment lines before the first statement; those of block comments, which hold no directives, left out. */
export const headerLines = (script: string): string[] =>
  headComments(script).flatMap(({ text, block }) => (block ? [] : [text]));

/** A line of a comment, without the blanks around it. */
interface CommentLine {
  readonly text: string;
  /** Of a comment between slashes and asterisks. */
  readonly block: boolean;
}

/** The comments before the first statement, line by line, blank lines left out. */
function headComments(script: string): CommentLine[] {
  const lines: CommentLine[] = [];
  let rest = script.trimStart();
  for (;;) {
    const block = rest.startsWith('/*');
    if (!block && !rest.startsWith('--')) return lines;
    const end = block ? endOfBlock(rest) : endOfLine(rest);
    const texts = rest.slice(0, end).split('\n');
    lines.push(...texts.map((text) => ({ text: text.trim(), block })).filter(({ text }) => text !== ''));
    rest = rest.slice(end).trimStart();
  }
}

const endOfLine = (text: string): number => (text.includes('\n') ? text.indexOf('\n') : text.length);

/** Block comments nest in PostgreSQL. */
function endOfBlock(text: string): number {
  let depth = 0;
  for (const { 0: mark, index } of text.matchAll(/\/\*|\*\//g)) {
    depth += mark === '/*' ? 1 : -1;
    if (depth === 0) return index + mark.length;
  }
  return text.length;
}
