import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { expectedCatalogue } from '../src/migrator/drift.ts';
import {
  CATALOGUE_FILE,
  latestVersion,
  MIGRATIONS,
  type Migration,
  number,
  readMigrations,
  SCHEMA_FILE,
} from '../src/migrator/files.ts';
import { generate, NotGenerated } from '../src/migrator/generate/generate.ts';
import { loadLibraries } from '../src/migrator/generate/libraries.ts';
import { connected, openScratch } from '../src/migrator/generate/scratch.ts';
import { differencesOf, makeSides } from '../src/migrator/generate/sides.ts';
import { lintMigrations } from '../src/migrator/lint/lint.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { runCommand } from './support/command.ts';
import { createTestDatabase, testCluster } from './support/postgres.ts';

/** What a person does to the declared schema, and what has to come of it. */
interface Case {
  /** A migration that is there before, with what it declares: for kinds of objects that the schema has none of. */
  readonly before?: { readonly sql: string; readonly undo: string };
  readonly replace?: readonly (readonly [string, string])[];
  /** Declared besides. */
  readonly add?: string;
  /** Each migration that is written, in order. */
  readonly migrations: readonly Expected[];
}

interface Expected {
  readonly run?: 'concurrently';
  /** Statements, among others: the beginning of each. */
  readonly statements: readonly string[];
  readonly undo: readonly string[];
  readonly destructive?: true;
  readonly dataDependent?: true;
  readonly incompatible?: true;
  readonly undoDestructive?: true;
}

const LATEST = latestVersion();
const POLICY = `using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)`;
const NOTES = {
  sql: `create table notes (id bigint not null, title text not null, body text not null,
  constraint notes_pkey primary key (id), constraint notes_title_length check (char_length(title) < 100));
create index notes_by_title on notes (title);
create function note_title(i bigint) returns text language plpgsql as $$ begin
  return (select title from notes where id = i);
end $$;`,
  undo: 'drop function note_title; drop table notes;',
};

const CASES: Readonly<Record<string, Case>> = {
  'a column': {
    replace: [
      [
        '  quota_executions bigint not null default 1000000,\n',
        "  quota_executions bigint not null default 1000000,\n  color text not null default 'red',\n",
      ],
    ],
    migrations: [
      {
        statements: [`alter table projects add column color text not null default 'red'::text;`],
        undo: ['alter table projects drop column color;'],
        undoDestructive: true,
      },
    ],
  },
  'a column that keeps what the comparison does not see': {
    add: 'alter table exports add column note bytea storage external; alter table exports alter note set statistics 0;',
    migrations: [
      {
        statements: [
          'alter table exports add column note bytea;',
          'alter table exports alter column note set statistics 0;',
          'alter table exports alter column note set storage external;',
        ],
        undo: ['alter table exports drop column note;'],
        undoDestructive: true,
      },
    ],
  },
  'a required column': {
    add: 'alter table exports add column reason text not null;',
    migrations: [
      {
        statements: ['alter table exports add column reason text not null;'],
        undo: ['alter table exports drop column reason;'],
        dataDependent: true,
        incompatible: true,
        undoDestructive: true,
      },
    ],
  },
  'a table': {
    add: `create table labels (project_id uuid not null references projects, name text not null,
  primary key (project_id, name), constraint labels_name_length check (char_length(name) <= 100));
create index labels_by_name on labels (name);
alter table labels enable row level security, force row level security;
create policy scope on labels to jeex_app ${POLICY};
create policy maintenance on labels to jeex_owner, jeex_backup using (true);
grant select, insert, delete on labels to jeex_app;
grant update (name) on labels to jeex_app;`,
    migrations: [
      {
        statements: [
          'create table labels (\n  project_id uuid not null,\n  name text not null,\n',
          'alter table labels enable row level security;',
          'alter table labels force row level security;',
          'alter table labels add constraint labels_project_id_fkey foreign key (project_id) references projects(id);',
          'create index labels_by_name on labels using btree (name);',
          'create policy maintenance on labels for all to jeex_backup, jeex_owner using (true);',
          'create policy scope on labels for all to jeex_app using',
          'grant delete, insert, select on table labels to jeex_app;',
          'grant update (name) on table labels to jeex_app;',
        ],
        undo: ['drop table labels;'],
        undoDestructive: true,
      },
    ],
  },
  'an index': {
    add: 'create index projects_by_name on projects (name) where delete_time is null;',
    migrations: [
      {
        run: 'concurrently',
        statements: [
          'create index concurrently projects_by_name on projects using btree (name) where (delete_time is null);',
        ],
        undo: ['drop index concurrently projects_by_name;'],
      },
    ],
  },
  'a unique constraint, and a foreign key that needs it': {
    add: `alter table projects add constraint projects_name_key unique (name, id);
alter table exports add column project_name text;
alter table exports add constraint exports_named foreign key (project_name, project_id) references projects (name, id);`,
    migrations: [
      {
        statements: ['alter table exports add column project_name text;'],
        undo: ['alter table exports drop column project_name;'],
        undoDestructive: true,
      },
      {
        run: 'concurrently',
        statements: ['create unique index concurrently projects_name_key on projects (name, id);'],
        undo: ['drop index concurrently projects_name_key;'],
        dataDependent: true,
        incompatible: true,
      },
      {
        statements: [
          'alter table projects add constraint projects_name_key unique using index projects_name_key;',
          'alter table exports add constraint exports_named foreign key (project_name, project_id) references projects(name,',
        ],
        undo: ['alter table projects drop constraint projects_name_key;', 'create unique index projects_name_key on'],
        incompatible: true,
      },
      {
        statements: ['alter table exports validate constraint exports_named;'],
        undo: ['alter table exports drop constraint exports_named;'],
        dataDependent: true,
      },
    ],
  },
  'a policy': {
    replace: [["status in ('PENDING', 'PROCESSING'))", "status = 'PENDING')"]],
    migrations: [
      {
        statements: [`alter policy crossing on exports to jeex_system using ((status = 'PENDING'::text));`],
        undo: [`alter policy crossing on exports to jeex_system using ((status = any (array['PENDING'::text,`],
      },
    ],
  },
  'the body of a function': {
    replace: [["a project''s language never changes", "a project''s language  never\n  -- ever changes"]],
    migrations: [
      {
        // Byte for byte as it is declared.
        statements: [
          `create or replace function refuse_language_change() returns trigger language plpgsql as $$
begin
  raise check_violation using message = 'a project''s language  never\n  -- ever changes',`,
        ],
        undo: [
          'create or replace function refuse_language_change()\n returns trigger\n language plpgsql\nas $function$',
        ],
      },
    ],
  },
  'a definer function': {
    replace: [["hashtextextended('purge|' || due, 0)", "hashtextextended('purges|' || due, 0)"]],
    add: `set local role jeex_system; grant execute on function purge_due to jeex_readonly; reset role;`,
    migrations: [
      {
        statements: [
          'grant create on schema jeex to jeex_system;',
          'set local role jeex_system;',
          'create or replace function purge_due() returns integer\nlanguage plpgsql security definer set search_path',
          'grant execute on function purge_due() to jeex_readonly;',
          'reset role;',
          'revoke create on schema jeex from jeex_system;',
        ],
        undo: ['set local role jeex_system;', 'revoke all on function purge_due() from jeex_readonly;', 'reset role;'],
      },
    ],
  },
  'the signature of a function': {
    before: NOTES,
    replace: [
      ['function note_title(i bigint)', "function note_title(i bigint, otherwise text default '')"],
      ['return (select title', 'return coalesce(otherwise, (select title'],
      ['where id = i);', 'where id = i));'],
    ],
    migrations: [
      {
        statements: [
          'drop function note_title(bigint);',
          "create function note_title(i bigint, otherwise text default '') returns text language plpgsql as $$ begin\n",
        ],
        undo: ['drop function note_title(bigint, text);', 'create or replace function note_title(i bigint)'],
        incompatible: true,
      },
    ],
  },
  'a check': {
    add: 'alter table exports add constraint exports_downloads_bounded check (download_count < 1000000);',
    migrations: [
      {
        statements: [
          'alter table exports add constraint exports_downloads_bounded check ((download_count < 1000000)) not valid;',
        ],
        undo: ['alter table exports drop constraint exports_downloads_bounded;'],
        incompatible: true,
      },
      {
        statements: ['alter table exports validate constraint exports_downloads_bounded;'],
        undo: ['alter table exports drop constraint exports_downloads_bounded;', 'alter table exports add constraint'],
        dataDependent: true,
      },
    ],
  },
  'a column that has to have a value': {
    add: 'alter table exports alter created_by set not null;',
    migrations: [
      {
        statements: ['alter table exports add constraint exports_created_by_not_null not null created_by not valid;'],
        undo: ['alter table exports alter column created_by drop not null;'],
        incompatible: true,
      },
      {
        statements: ['alter table exports validate constraint exports_created_by_not_null;'],
        undo: ['alter table exports add constraint exports_created_by_not_null not null created_by not valid;'],
        dataDependent: true,
      },
    ],
  },
  'a value of an enum, and its first use': {
    before: {
      sql: `create type mood as enum ('glad', 'sad');
create table days (day date primary key, mood mood not null default 'glad');`,
      undo: 'drop table days; drop type mood;',
    },
    replace: [
      ["('glad', 'sad')", "('glad', 'calm', 'sad')"],
      ["default 'glad'", "default 'calm'"],
    ],
    migrations: [
      {
        statements: [`alter type mood add value 'calm' before 'sad';`],
        undo: [`create type mood as enum ('glad', 'sad');`, 'alter table days alter column mood type mood using'],
        undoDestructive: true,
      },
      {
        statements: [`alter table days alter column mood set default 'calm'::mood;`],
        undo: [`alter table days alter column mood set default 'glad'::mood;`],
      },
    ],
  },
  'a column under another name': {
    before: NOTES,
    replace: [
      [' title text not null,', '\n  -- renamed-from: title\n  heading text not null,'],
      ['char_length(title)', 'char_length(heading)'],
      ['on notes (title)', 'on notes (heading)'],
      ['select title from', 'select heading from'],
    ],
    migrations: [
      {
        statements: [
          'alter table notes rename column title to heading;',
          'create or replace function note_title(i bigint)',
          'alter table notes rename constraint notes_title_not_null to notes_heading_not_null;',
        ],
        undo: ['create or replace function note_title(i bigint)', 'alter table notes rename column heading to title;'],
        incompatible: true,
      },
    ],
  },
  'a table under another name, with a column': {
    before: NOTES,
    replace: [
      ['create table notes (', '-- renamed-from: notes\ncreate table memos ('],
      [' body text', '\n  -- renamed-from: body\n  content text'],
      ['notes_pkey', 'memos_pkey'],
      ['index notes_by_title on notes', 'index memos_by_title on memos'],
      ['from notes where', 'from memos where'],
    ],
    migrations: [
      {
        statements: [
          'alter table notes rename to memos;',
          'alter table memos rename column body to content;',
          'alter index notes_by_title rename to memos_by_title;',
          'alter table memos rename constraint notes_pkey to memos_pkey;',
        ],
        undo: ['alter table memos rename column content to body;', 'alter table memos rename to notes;'],
        incompatible: true,
      },
    ],
  },
  'a right': {
    add: 'grant select (create_time) on users to jeex_readonly; grant delete on exports to jeex_app;',
    migrations: [
      {
        statements: [
          'grant select (create_time) on table users to jeex_readonly;',
          'grant delete on table exports to jeex_app;',
        ],
        undo: [
          'revoke all (create_time) on table users from jeex_readonly;',
          'revoke delete on table exports from jeex_app;',
        ],
      },
    ],
  },
  'a column taken away': {
    replace: [
      ["  file_sha256 text not null default '',\n", ''],
      ["  constraint exports_file_sha256_hex check (file_sha256 = '' or file_sha256 ~ '^[0-9a-f]{64}$'),\n", ''],
      ['file_sha256, ', ''],
    ],
    migrations: [
      {
        statements: ['alter table exports drop column file_sha256;'],
        undo: [`alter table exports add column file_sha256 text not null default ''::text;`],
        destructive: true,
        incompatible: true,
      },
    ],
  },
};

describe('a change of the declared schema becomes migrations that go both ways and pass the lint', {
  concurrency: 2,
}, () => {
  for (const [name, one] of Object.entries(CASES)) {
    test(name, async () => {
      const { directory, base } = prepare(one);
      const generated = await generate({ name: 'changed', server: testCluster(), directory });
      const { migrations, problems } = readMigrations(directory);
      const made = migrations.filter(({ version }) => version > base);
      assert.deepEqual(problems, []);
      assert.deepEqual(
        generated.files.map(({ file }) => file),
        made.flatMap(({ version }) => [`${number(version)}.do.changed.sql`, `${number(version)}.undo.changed.sql`]),
      );
      assert.equal(made.length, one.migrations.length, generated.files.map(({ text }) => text).join('\n'));
      for (const [index, expected] of one.migrations.entries()) check(made[index] as Migration, expected);
      assert.deepEqual(await lintMigrations(made, migrations), []);
      await roundTrip(directory, base);
    });
  }
});

describe('the declared schema', { concurrency: 2 }, () => {
  test('is what the migrations make, as pg-delta and as the catalogue see it', async () => {
    const libraries = await loadLibraries();
    await using scratch = await openScratch(testCluster());
    const sides = await makeSides(MIGRATIONS, scratch, libraries, () => {});
    assert.deepEqual(differencesOf(sides, libraries), []);
    assert.deepEqual(sides.unmodelled, []);
    const written = expectedCatalogue();
    assert.equal(written.version, LATEST);
    assert.deepEqual(diffCatalogues(sides.catalogues.goal, written.catalogue), []);
  });

  test('that is unchanged makes no migration, and brings a catalogue up to date that is not', async () => {
    const { directory } = prepare({ add: '-- renamed-from: name\n-- No line of a column.' });
    await assert.rejects(
      generate({ name: 'nothing', server: testCluster(), directory }),
      /belongs directly above the line/,
    );
    cpSync(join(MIGRATIONS, SCHEMA_FILE), join(directory, SCHEMA_FILE));
    const before = contents(directory);
    const generated = await generate({ name: 'nothing', server: testCluster(), directory });
    assert.deepEqual(generated, { files: [], catalogueChanged: false });
    assert.deepEqual(contents(directory), before);
    writeFileSync(join(directory, CATALOGUE_FILE), '{"version": 1, "objects": {}}');
    const again = await generate({ name: 'nothing', server: testCluster(), directory });
    assert.deepEqual(again, { files: [], catalogueChanged: true });
    assert.deepEqual(contents(directory), before);
  });

  test('with a mistake is answered with its line', async () => {
    const { directory } = prepare({
      add: '-- One line more.\ncreate table mistakes (\n  id bigint,\n  kind no_type);',
    });
    const lines = readFileSync(join(directory, SCHEMA_FILE), 'utf8').trimEnd().split('\n').length;
    const text = `schema.sql:${lines}: type "no_type" does not exist`;
    await assert.rejects(generate({ name: 'mistake', server: testCluster(), directory }), { message: text });
    writeFileSync(join(directory, SCHEMA_FILE), 'select 1;\n\nselekt 2;\n');
    const refused = { message: 'schema.sql:3: syntax error at or near "selekt"' };
    await assert.rejects(generate({ name: 'mistake', server: testCluster(), directory }), refused);
  });

  test('may keep the line of a rename that was made, and not one of what never was', async () => {
    const made: readonly [string, string] = ['  file_path text', '  -- renamed-from: path\n  file_path text'];
    const { directory } = prepare({ replace: [made] });
    assert.deepEqual((await generate({ name: 'stale', server: testCluster(), directory })).files, []);
    const never = prepare({
      replace: [['  file_path text', '  -- renamed-from: path\n  place text,\n  file_path text']],
    });
    const refused = { message: /^schema\.sql:\d+: no migration makes `path`/ };
    await assert.rejects(generate({ name: 'stale', server: testCluster(), directory: never.directory }), refused);
  });

  test('with what pg-delta does not know writes nothing, and says what is left over', async () => {
    const add = 'create statistics projects_kinds on status, visibility from projects;';
    await assertNotWritten(
      { add },
      /has to be written by hand.*statistics jeex\.projects_kinds is missing.*statistics object/s,
    );
  });

  test('that the lint has something against writes nothing, and hands out its drafts', async () => {
    const error = await assertNotWritten(
      { add: 'alter table exports add column note varchar(20);' },
      /the lint has something against it.*prefer-text-field/s,
    );
    assert.match(error.drafts[0]?.text ?? '', /alter table exports add column note character varying\(20\)/);
  });
});

async function assertNotWritten(edit: Omit<Case, 'migrations'>, message: RegExp): Promise<NotGenerated> {
  const { directory } = prepare(edit);
  const before = contents(directory);
  const error = await generate({ name: 'refused', server: testCluster(), directory }).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof NotGenerated, String(error));
  assert.match(error.message, message);
  assert.deepEqual(contents(directory), before);
  return error;
}

const contents = (directory: string): Record<string, string> =>
  Object.fromEntries(readdirSync(directory).map((file) => [file, readFileSync(join(directory, file), 'utf8')]));

describe('the command', () => {
  test('shows what it would write, and writes nothing', async () => {
    const { code, out, err } = await runCommand(['migrate', 'generate', 'nothing_new', '--dry-run', '--json'], {});
    assert.equal(code, 0, err);
    assert.deepEqual(JSON.parse(out), { dryRun: true, files: [], catalogueChanged: false });
  });

  test('refuses a name that no file can have', async () => {
    for (const name of ['Upper', 'a-b', '../up', 'x'.repeat(61)]) {
      const { code, err } = await runCommand(['migrate', 'generate', name], {});
      assert.equal(code, 2, `${name}: ${err}`);
      assert.match(err, /1 to 60/);
    }
  });
});

/** A directory as a person has it after editing the declared schema. @returns it, and the newest migration's number in it */
function prepare({ before, replace = [], add = '' }: Omit<Case, 'migrations'>): { directory: string; base: number } {
  const directory = mkdtempSync(join(tmpdir(), 'jeex-declared-'));
  after(() => rmSync(directory, { recursive: true }));
  cpSync(MIGRATIONS, directory, { recursive: true });
  const base = before ? LATEST + 1 : LATEST;
  if (before) {
    writeFileSync(join(directory, `${number(base)}.do.before.sql`), before.sql);
    writeFileSync(join(directory, `${number(base)}.undo.before.sql`), before.undo);
  }
  const declared = `${readFileSync(join(directory, SCHEMA_FILE), 'utf8')}\n${before?.sql ?? ''}\n`;
  const edited = replace.reduce((text, [was, is]) => {
    assert.ok(text.includes(was), `the declared schema has no «${was}»`);
    return text.replace(was, () => is);
  }, declared);
  writeFileSync(join(directory, SCHEMA_FILE), `${edited}${add}\n`);
  return { directory, base };
}

function check({ version, sql, directives, undo }: Migration, expected: Expected): void {
  assert.equal(directives.run, expected.run ?? 'transaction');
  assert.equal(undo?.directives.run, expected.run ?? 'transaction');
  for (const statement of expected.statements)
    assert.ok(`\n${sql}`.includes(`\n${statement}`), `«${statement}» in\n${sql}`);
  for (const statement of expected.undo)
    assert.ok(undo?.sql.includes(`\n${statement}`), `«${statement}» in\n${undo?.sql}`);
  assert.deepEqual(
    {
      destructive: directives.destructive !== null,
      dataDependent: directives.dataDependent !== null,
      oldestRelease: directives.oldestRelease,
      undoDestructive: undo.directives.destructive !== null,
    },
    {
      destructive: expected.destructive ?? false,
      dataDependent: expected.dataDependent ?? false,
      oldestRelease: expected.incompatible ? version : null,
      undoDestructive: expected.undoDestructive ?? false,
    },
    `${sql}\n${undo.sql}`,
  );
}

/** What was written leads to the catalogue that was written with it, and back. */
async function roundTrip(directory: string, base: number): Promise<void> {
  const database = await createTestDatabase();
  try {
    const options = { directory, embedded: true };
    const read = () => connected(database.ownerUrl, readCatalogue);
    await up(database.ownerUrl, { ...options, to: base });
    const before = await read();
    const { version } = await up(database.ownerUrl, options);
    const written = expectedCatalogue(directory);
    assert.equal(written.version, version);
    assert.deepEqual(diffCatalogues(written.catalogue, await read()), []);
    await down(database.ownerUrl, base, options);
    assert.deepEqual(diffCatalogues(before, await read()), []);
    await up(database.ownerUrl, options);
    assert.deepEqual(diffCatalogues(written.catalogue, await read()), []);
  } finally {
    await database.drop();
  }
}
