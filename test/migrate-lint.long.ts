import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { readMigrations } from '../src/migrator/files.ts';
import { lintMigrations } from '../src/migrator/lint/lint.ts';
import { isReleasedException, RELEASED } from '../src/migrator/lint/released.ts';
import { findBinary } from '../src/migrator/lint/squawk.ts';
import { SQUAWK_RULES } from '../src/migrator/lint/squawk-rules.ts';
import { runCommand } from './support/command.ts';

/** A migration, and the lines and rules that are to be said against it, in their order. */
interface Case {
  readonly does: string;
  readonly undoes?: string;
  readonly finds: readonly string[];
}

const INDEX = 'create index concurrently users_name on users (name);';
const BATCHED = '-- run: batches\n-- batch: users (id)\n';
const RANGE = 'where id between $1 and $2';

const CASES: Readonly<Record<string, Case>> = {
  // One that fails and one that passes, of each class.
  destructive: { does: '-- oldest-release: 001\nalter table users drop column name;', finds: ['do:2 destructive'] },
  'destructive, answered': {
    does: '-- destructive: names\n-- oldest-release: 001\nalter table users drop column name;',
    finds: [],
  },
  'data-dependent': { does: 'alter table users validate constraint c;', finds: ['do:1 data-dependent'] },
  'data-dependent, answered': {
    does: '-- data-dependent: all were mended\nalter table users validate constraint c;',
    finds: [],
  },
  'backward-incompatible': { does: 'drop function f;', finds: ['do:1 backward-incompatible'] },
  'backward-incompatible, answered': { does: '-- oldest-release: 001\ndrop function f;', finds: [] },

  'all three at once': {
    does: 'alter table users add column x text;\ndrop table users, projects;\ninsert into exports select 1;',
    finds: ['do:2 destructive', 'do:2 backward-incompatible', 'do:3 data-dependent'],
  },
  'what answers nothing': {
    does: '-- destructive: nothing\n-- data-dependent: nothing\n-- oldest-release: 001\ncreate table t (a text);',
    finds: ['do:1 stale', 'do:2 stale', 'do:3 stale'],
  },
  'what may answer for a call': { does: '-- destructive: what it does\nselect purge_due();', finds: [] },
  'what may answer for a call in a block': {
    does: '-- destructive: what it does\ndo $$ begin if purge_due() then null; end if; end $$;',
    finds: [],
  },
  'what may answer for a computed column': {
    does:
      '-- data-dependent: all are numbers\n-- lint-ignore: adding-field-with-default: users are few\n' +
      'alter table users add column x bigint generated always as (name::bigint) stored;',
    finds: [],
  },
  'what may answer for a new body': {
    does: '-- oldest-release: 001\ncreate or replace function f() returns int language sql return 1;',
    finds: [],
  },
  'the way back asks for destructive alone': {
    does: 'create table t (a text);',
    undoes: 'drop table t;\ndrop function f;\ninsert into users values (1);',
    finds: ['undo:1 destructive'],
  },
  'the way back, answered': {
    does: 'create table t (a text);',
    undoes: '-- destructive: t\ndrop table t;',
    finds: [],
  },
  'the way back has no older release': {
    does: 'select 1;',
    undoes: '-- oldest-release: 001\n-- data-dependent: x\n-- destructive: x\ndrop function f;',
    finds: ['undo:1 stale', 'undo:2 stale', 'undo:3 stale'],
  },
  'nothing to undo': { does: 'select 1;', undoes: '-- Nothing to undo.\n', finds: [] },

  // Exceptions.
  'an exception': {
    does: '-- lint-ignore: require-concurrent-index-creation: users are few\ncreate index i on users (name);',
    finds: [],
  },
  'an exception of a class': {
    does: "-- lint-ignore: destructive: it is computed again\nupdate users set name = upper(name) where id = 'x';",
    finds: [],
  },
  'the walls between projects': {
    does: 'grant select on projects to public;\nalter table projects disable row level security;',
    // The way back puts up what stood there before.
    undoes: 'alter table projects disable row level security;',
    finds: ['do:1 walls', 'do:2 walls'],
  },
  'the walls, answered': {
    does: '-- lint-ignore: walls: it holds nothing of a project\ngrant select on sealing_keys to public;',
    finds: [],
  },
  'the walls are answered by no class': {
    does: '-- destructive: x\n-- oldest-release: 001\ngrant select on projects to public;\ndrop table users;',
    finds: ['do:3 walls'],
  },
  'a call': { does: 'select purge_due();', undoes: 'select purge_due();', finds: ['do:1 calls', 'undo:1 calls'] },
  'a call, answered': {
    does: '-- data-dependent: purges none\nselect purge_due();',
    undoes: '-- destructive: x\nselect purge_due();',
    finds: [],
  },
  'a call, excepted': { does: '-- lint-ignore: calls: reads alone\nselect purge_due();', finds: [] },
  'a function of a migration before': {
    does: 'create function tidy_up() returns void language sql as $$ delete from users $$;',
    undoes: 'select tidy_up();',
    finds: ['undo:1 calls'],
  },
  'a function of a migration before that only reads': {
    does: 'create function look_up() returns bigint stable language sql as $$ select count(*) from users $$;',
    undoes: 'select look_up();',
    finds: [],
  },
  'what is not judged': {
    does: '\nlock table users;',
    undoes: 'create rule r as on delete to users do instead nothing;',
    finds: ['do:2 unknown', 'undo:1 unknown'],
  },
  'what is not judged, excepted': { does: '-- lint-ignore: unknown: it is small\nlock table users;', finds: [] },
  'a whole table in one transaction': {
    does: "update users set name = '' where name is null;",
    undoes: "-- destructive: names\nupdate users set name = '';",
    finds: ['do:1 whole-table'],
  },
  'a whole table in one transaction, excepted': {
    does: "-- lint-ignore: whole-table: there are few\nupdate users set name = '' where name is null;",
    finds: [],
  },
  'an exception of dynamic SQL': {
    does: "-- lint-ignore: dynamic-sql: one drop\ndo $$ begin execute 'x'; end $$;",
    finds: [],
  },
  'dynamic SQL': { does: "\ndo $$ begin execute 'x'; end $$;", finds: ['do:2 dynamic-sql'] },
  'an exception that excepts nothing': {
    does: '-- lint-ignore: prefer-text-field: x\n-- lint-ignore: destructive: x\nselect 1;',
    finds: ['do:1 stale', 'do:2 stale'],
  },
  'an exception of no rule': { does: '-- lint-ignore: no-such-rule: x\nselect 1;', finds: ['do:1 stale'] },
  'an exception of a rule that is not asked': {
    does: '-- destructive: t\n-- oldest-release: 001\n-- lint-ignore: ban-drop-table: x\ndrop table t;',
    finds: ['do:3 stale'],
  },
  "squawk's own exceptions": {
    does: '-- squawk-ignore prefer-text-field\nalter table users add column x varchar(3);',
    finds: ['do:1 comment'],
  },
  'a head that is wrong': { does: '-- Text.\n-- destructive:\nselect 1;', finds: ['do:2 head'] },

  // What squawk says.
  'an index that blocks writers': {
    does: 'create index i on users (name);\ndrop index j;',
    finds: ['do:1 require-concurrent-index-creation', 'do:2 require-concurrent-index-deletion'],
  },
  'a constraint that blocks writers': {
    does: '-- data-dependent: x\n-- oldest-release: 001\nalter table users add check (x > 0);\nalter table users add unique (x);',
    finds: ['do:3 constraint-missing-not-valid', 'do:4 disallowed-unique-constraint'],
  },
  'types that are better never begun with': {
    does: 'create table t (\n  a int,\n  b smallint,\n  c varchar(3),\n  d timestamp\n);',
    finds: [
      'do:2 prefer-bigint-over-int',
      'do:3 prefer-bigint-over-smallint',
      'do:4 prefer-text-field',
      'do:5 prefer-timestamp-tz',
    ],
  },
  'a default that rewrites the table': {
    does: 'alter table users add column x uuid default uuidv4();',
    finds: ['do:1 adding-field-with-default'],
  },
  'a table, a column, a right and a policy': {
    does:
      'create table t (id uuid primary key, a bigint not null check (a > 0), b timestamptz);\ncreate index t_a on t (a);\n' +
      "alter table users add column x text not null default '';\ngrant select on t to jeex_app;\n" +
      'create policy scope on t to jeex_app using (a > 0);',
    undoes: '-- destructive: t, and what users have in x\ndrop table t;\nalter table users drop column x;',
    finds: [],
  },

  // How it runs.
  'begin and commit': {
    does: 'begin;\nselect 1;\ncommit;',
    undoes: 'savepoint a;',
    finds: ['do:1 transaction-control', 'do:3 transaction-control', 'undo:1 transaction-control'],
  },
  'settings of the session': {
    does: "set search_path = x;\nset local search_path = x;\nset local lock_timeout = 0;\nset work_mem = '1MB';\nreset all;\ndiscard all;\nset transaction read only;",
    finds: [1, 2, 3, 4, 5, 6, 7].map((line) => `do:${line} session`),
  },
  'settings by a function': {
    does:
      "select set_config('search_path', 'x', true);\nselect set_config('Lock_Timeout', '0', true);\n" +
      "select set_config('work_mem', '1MB', false);\nselect set_config(name, '', true) from users;\n" +
      "do $$ begin perform set_config('search_path', 'x', true); end $$;\ndo $$ begin set local search_path = x; end $$;\n" +
      'set local row_security = off;',
    finds: [1, 2, 3, 4, 5, 6, 7].map((line) => `do:${line} session`),
  },
  'settings by a function, of the transaction': {
    does:
      "select set_config('jeex.project_id', '', true);\nselect pg_catalog.set_config('work_mem', '1MB', true);\n" +
      "create function f() returns text language sql return set_config('search_path', 'x', false);",
    finds: [],
  },
  'settings of the transaction': { does: "set local work_mem = '1MB';\nreset work_mem;", finds: [] },
  'a role that lasts': { does: 'set role jeex_system;', finds: ['do:1 session', 'do:1 session'] },
  'a role of the transaction that lasts': { does: 'select 1;\nset local role jeex_system;', finds: ['do:2 session'] },
  'a role that is given back': { does: 'set local role jeex_system;\nselect 1;\nreset role;', finds: [] },
  'what needs a superuser': {
    does: "create extension x;\ncreate role x;\nalter system set a = 1;\ngrant a to b;\nload 'x';\ncopy users from '/x';",
    finds: [1, 2, 3, 4, 5, 6].map((line) => `do:${line} privileged`),
  },
  maintenance: { does: 'vacuum users;\ncluster users using i;', finds: ['do:1 maintenance', 'do:2 maintenance'] },
  'a concurrent index in a transaction': {
    does: `${INDEX}\nreindex index concurrently i;`,
    undoes: 'drop index concurrently users_name;',
    finds: ['do:1 outside-transaction', 'do:2 outside-transaction', 'undo:1 outside-transaction'],
  },
  'a concurrent index': {
    does: `-- run: concurrently\n${INDEX}`,
    undoes: '-- run: concurrently\ndrop index concurrently users_name;',
    finds: [],
  },
  'a concurrent index, if it is not there': {
    does: '-- run: concurrently\ncreate index concurrently if not exists i on users (name);',
    undoes: '-- run: concurrently\ndrop index concurrently if exists i;',
    finds: ['do:2 run', 'undo:2 run'],
  },
  'a concurrent index without a name': {
    does: '-- run: concurrently\ncreate index concurrently on users (name);',
    undoes: '-- run: concurrently\ndrop index concurrently jeex.i;',
    finds: ['do:2 run', 'undo:2 run'],
  },
  'an index of another kind, and something else': {
    does: '-- run: concurrently\ncreate table t (a text);',
    undoes: `-- run: concurrently\n${INDEX}\nselect 1;`,
    finds: ['do:2 run', 'undo:3 run'],
  },
  'an index that is built not concurrently': {
    does: '-- run: concurrently\n-- lint-ignore: require-concurrent-index-creation: x\ncreate index i on users (name);',
    undoes: '-- run: concurrently\n',
    finds: ['do:3 run', 'undo:1 run'],
  },
  batches: { does: `${BATCHED}update users set name = '' ${RANGE} and name is null;`, finds: [] },
  'batches of two columns': {
    does:
      '-- run: batches\n-- batch: document_bodies (project_id, sha256)\n-- destructive: old sizes\n' +
      'update document_bodies set size_bytes = 1 where (project_id, sha256) between ($1::uuid, $2) and ($3, $4);',
    finds: [],
  },
  'batches that copy': {
    does: `${BATCHED}insert into names select name from users ${RANGE} on conflict do nothing;`,
    finds: [],
  },
  'batches of no range': {
    does: `${BATCHED}update users set name = '' where name is null;`,
    undoes: `${BATCHED}-- destructive: x\ndelete from users where id between $2 and $1;`,
    finds: ['do:3 run', 'undo:4 run'],
  },
  'batches of half a range': {
    does: `${BATCHED}update users set name = '' where id between $1 and $1 and name is null;`,
    finds: ['do:3 run'],
  },
  'batches of another table, and too many parameters': {
    does: `${BATCHED}update projects set name = '' ${RANGE} and name is null;`,
    undoes: `${BATCHED}-- destructive: x\ndelete from users ${RANGE} and name = $3;`,
    finds: ['do:3 run', 'undo:4 run'],
  },
  'batches of something else': {
    does: `${BATCHED}select 1;`,
    undoes: `${BATCHED}select 1;\nselect 2;`,
    finds: ['do:3 run', 'undo:4 run'],
  },
  'parameters that nobody gives': { does: 'select $1;', finds: ['do:1 run'] },

  'what PostgreSQL does not take': {
    does: "select 'é';\ncreate tabel x;",
    undoes: '-- destructive: x\n\ndrop tabel x;',
    finds: ['do:2 syntax', 'undo:3 syntax'],
  },
};

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'jeex-lint-'));
});
after(() => rm(directory, { recursive: true }));

/** Migrations with numbers beyond those of any release. */
async function write(into: string, cases: readonly Omit<Case, 'finds'>[]): Promise<void> {
  const files = cases.flatMap(({ does, undoes = '' }, index) => {
    const name = (action: string): string => join(into, `${101 + index}.${action}.it.sql`);
    return [writeFile(name('do'), does), writeFile(name('undo'), undoes)];
  });
  await Promise.all(files);
}

test('says what each migration has to answer for, and nothing else', async () => {
  const names = Object.keys(CASES);
  await write(directory, Object.values(CASES));
  const { migrations } = readMigrations(directory);
  const findings = await lintMigrations(migrations);
  for (const [index, name] of names.entries()) {
    const found = findings.flatMap(({ filename, line, rule }) => {
      const [number, action] = basename(filename).split('.');
      return number === String(101 + index) ? [`${action}:${line} ${rule}`] : [];
    });
    assert.deepEqual(found, CASES[name]?.finds, name);
  }
});

test('names the line that answers and the safer way', async () => {
  const sets = await mkdtemp(join(directory, 'advice-'));
  await write(sets, [{ does: 'alter table users validate constraint c;\ndrop table users;', undoes: 'drop table t;' }]);
  const [migration] = readMigrations(sets).migrations;
  assert.ok(migration);
  const [rows, lost, served, undone] = await lintMigrations([migration]);
  assert.match(
    rows?.advice ?? '',
    /^mend the rows .*; otherwise add to the head: `-- data-dependent: why every row fits`$/,
  );
  assert.match(
    lost?.advice ?? '',
    /^expand and contract: .*; otherwise add to the head: `-- destructive: what is lost`$/,
  );
  assert.match(
    served?.advice ?? '',
    /add to the head: `-- oldest-release: 101`, or the newest migration of the oldest/,
  );
  assert.match(undone?.advice ?? '', /^add to the head: `-- destructive: what is lost`$/);
});

test('the oldest release never becomes an older one, or one that is not there yet', async () => {
  const sets = await mkdtemp(join(directory, 'oldest-'));
  const dropping = (release: string) => ({ does: `-- oldest-release: ${release}\ndrop function f;` });
  await write(sets, [dropping('101'), dropping('102'), dropping('101'), dropping('102'), dropping('999')]);
  const { migrations } = readMigrations(sets);
  const found = await lintMigrations(migrations.slice(1), migrations);
  assert.deepEqual(
    found.map(({ filename, rule, what }) => [basename(filename), rule, what]),
    [
      ['103.do.it.sql', 'oldest-release', '`oldest-release: 101` goes back'],
      ['105.do.it.sql', 'oldest-release', '`oldest-release: 999` is beyond this migration'],
    ],
  );
});

test('the migrations of this release have nothing to answer for, and need each exception of theirs', async () => {
  const { migrations } = readMigrations();
  // Under numbers that no exception is for, so that all is said.
  const unreleased = migrations.map((migration) => ({ ...migration, version: migration.version + 1000 }));
  const said = (await lintMigrations(unreleased)).map(({ filename, line, rule }) => {
    const [number, action] = basename(filename).split('.');
    return { version: action === 'do' ? Number(number) : 0, rule, at: `${basename(filename)}:${line} ${rule}` };
  });
  const unanswered = said.filter(({ version, rule }) => !isReleasedException(version, rule));
  assert.deepEqual(
    unanswered.map(({ at }) => at),
    [],
  );
  for (const { from, to, rules } of RELEASED) {
    const broken = said.filter(({ version }) => from <= version && version <= to).map(({ rule }) => rule);
    assert.deepEqual([...new Set(broken)].sort(), rules);
  }
});

test('every rule that is decided on is one of squawk', async () => {
  const file = join(directory, 'empty.sql');
  await writeFile(file, 'select 1;');
  // These two cannot be named there; it refuses any other that it does not know.
  const rules = Object.keys(SQUAWK_RULES).filter((rule) => rule !== 'syntax-error' && rule !== 'unused-ignore');
  execFileSync(findBinary(), [`--exclude=${rules.join(',')}`, file], { stdio: ['ignore', 'ignore', 'pipe'] });
});

/** As in an image for production, which is installed without development dependencies. */
const WITHOUT_PARSER = `--import=data:text/javascript,${encodeURIComponent(`
  import { registerHooks } from 'node:module';
  registerHooks({ resolve: (name, context, next) => next(name === 'libpg-query' ? 'no-such-package' : name, context) });
`)}`;

test('the command ends with 0 for clean, 3 for findings, 2 for what it cannot lint', { timeout: 60_000 }, async () => {
  const sets = await mkdtemp(join(directory, 'command-'));
  await write(sets, [{ does: 'select 1;' }, { does: 'drop function f;' }]);
  const run = (...args: string[]) => runCommand(['migrate', 'lint', ...args], {});
  const [clean, found, wrong, production] = await Promise.all([
    run('--json'),
    run(join(sets, '101.do.it.sql'), join(sets, '102.undo.it.sql')),
    run(join(sets, '103.do.it.sql')),
    runCommand(['migrate', 'lint'], { NODE_OPTIONS: WITHOUT_PARSER }),
  ]);
  assert.deepEqual([clean.code, clean.err], [0, '']);
  const { migrations } = readMigrations();
  assert.deepEqual(JSON.parse(clean.out), { ok: true, migrations: migrations.length, problems: [], findings: [] });
  assert.equal(found.code, 3);
  assert.match(
    found.out,
    /102\.do\.it\.sql:1 {2}backward-incompatible\n {4}drops the function f\n {4}expand and contract/,
  );
  assert.match(found.out, /\n2 migrations: 1 to be answered\n$/);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /103\.do\.it\.sql is no migration/);
  assert.equal(production.code, 2);
  assert.match(
    production.err,
    /`migrate lint` and `migrate generate` need libpg-query and squawk-cli, which are development dependencies/,
  );
});
