/** Whether a rule of squawk is asked for, or why not. */
export type Decision = { readonly asked: true; readonly advice?: string } | { readonly left: string };

const asked = { asked: true } as const;

const APART = 'put it into a migration of its own with `-- run: concurrently`';
const LATER =
  'add it `not valid` here, and `validate constraint` in the next migration, which lets others read and write';
const OVER = 'build the index in a migration of its own with `-- run: concurrently`, and take it over `using index`';

/**
 * Every rule of squawk 2.66, decided one by one: what blocks others and what is better never begun with is asked; what a
 * class of changes asks already, with its own line in the head of the file, is not asked twice. One that is not here, since
 * it is newer, is asked.
 */
export const SQUAWK_RULES: Readonly<Record<string, Decision>> = {
  'adding-field-with-default': asked,
  'adding-foreign-key-constraint': { asked: true, advice: LATER },
  'adding-not-nullable-field': { asked: true, advice: LATER },
  'adding-required-field': { left: 'data-dependent and backward-incompatible ask it' },
  'adding-serial-primary-key-field': { asked: true, advice: OVER },
  'ban-alter-domain-with-add-constraint': asked,
  'ban-char-field': asked,
  'ban-concurrent-index-creation-in-transaction': {
    left: 'the rule outside-transaction says it, with the way to do it',
  },
  'ban-create-domain-with-constraint': asked,
  'ban-drop-column': { left: 'destructive and backward-incompatible ask it' },
  'ban-drop-database': { left: 'the rule privileged says it' },
  'ban-drop-not-null': asked,
  'ban-drop-table': { left: 'destructive and backward-incompatible ask it' },
  'ban-duplicate-column-assignments': asked,
  'ban-truncate-cascade': { left: 'destructive asks it' },
  'ban-uncommitted-transaction': { left: 'the rule transaction-control says it' },
  'changing-column-type': asked,
  'constraint-missing-not-valid': {
    asked: true,
    advice: `${LATER}; an exclusion constraint cannot be: add it when nobody writes, or to a new table`,
  },
  'disallowed-unique-constraint': { asked: true, advice: OVER },
  'identifier-too-long': asked,
  'prefer-bigint-over-int': asked,
  'prefer-bigint-over-smallint': asked,
  'prefer-identity': asked,
  'prefer-repack': { left: 'it asks for a command of PostgreSQL 19; the rule maintenance refuses VACUUM and CLUSTER' },
  'prefer-robust-stmts': {
    left:
      'a transaction leaves nothing half done, and the other two kinds go on where they were; `if not exists` would take ' +
      'an object of another shape for the right one',
  },
  'prefer-text-field': asked,
  'prefer-timestamp-tz': asked,
  'renaming-column': { left: 'backward-incompatible asks it' },
  'renaming-table': { left: 'backward-incompatible asks it' },
  'require-concurrent-index-creation': { asked: true, advice: APART },
  'require-concurrent-index-deletion': { asked: true, advice: APART },
  'require-concurrent-partition-detach': asked,
  'require-concurrent-reindex': asked,
  'require-enum-value-ordering': asked,
  'require-lock-timeout': { left: 'the migrator sets it for every statement' },
  'require-statement-timeout': { left: 'the migrator decides how long a statement may take' },
  'require-table-schema': { left: 'the migrator sets the search path to jeex alone' },
  'syntax-error': asked,
  'transaction-nesting': { left: 'the rule transaction-control says it' },
  'unused-ignore': { left: "squawk's own comments are refused: exceptions are `-- lint-ignore: rule: reason`" },
};

/** Where several rules speak of one statement, those that know better what to do: the first is left out then. */
export const BETTER_SAID: Readonly<Record<string, readonly string[]>> = {
  'constraint-missing-not-valid': [
    'adding-foreign-key-constraint',
    'adding-serial-primary-key-field',
    'disallowed-unique-constraint',
  ],
};
