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
  for (const line of headerLines(script)) {
    const [, key, value = ''] = /^--\s*([a-z][a-z-]*):(?:\s+(.*?))?\s*$/.exec(line) ?? [];
    if (key === undefined) continue;
    const read = Object.hasOwn(READERS, key) ? READERS[key] : undefined;
    const wrong = read?.(value, draft);
    if (read === undefined) problems.push(`\`${key}:\` is none of ${Object.keys(READERS).join(', ')}`);
    else if (seen.has(key) && !REPEATABLE.has(key)) problems.push(`\`${key}:\` stands there twice`);
    else if (wrong !== undefined) problems.push(`\`${key}:\` ${wrong}`);
    seen.add(key);
  }
  if ((draft.run === 'batches') !== (draft.batch !== null) && problems.length === 0) {
    problems.push('`run: batches` and `batch: table (key)` go together');
  }
  return { directives: draft, problems };
}

/** The comment lines before the first statement, blank ones left out. */
export function headerLines(script: string): string[] {
  const lines = script.split('\n').map((line) => line.trim());
  const end = lines.findIndex((line) => line !== '' && !line.startsWith('--'));
  return (end === -1 ? lines : lines.slice(0, end)).filter((line) => line !== '');
}
