import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
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
import { connected } from '../src/migrator/generate/scratch.ts';
import { lintMigrations } from '../src/migrator/lint/lint.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { runCommand } from './support/command.ts';
import { createTestDatabase, testCluster } from './support/postgres.ts';

/** What a person does to the declared schema, and what has to come of it. */
interface Case {
  /** A migration that is there before, with what it declares: for kinds of objects that the schema has none of. */
  readonly before?: { readonly sql: string; readonly undo: string };
  readonly replace?: readonly (readonly [string, string])[];
  /** A name that is another wherever it stands. */
  readonly everywhere?: readonly [string, string];
  /** Declared besides. */
  readonly add?: string;
  /** What its author is told, and whoever reads the first migration. */
  readonly says?: string;
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
  'columns: with a default, with what the comparison does not see, and without a value for the rows that are there': {
    replace: [
      [
        '  quota_executions bigint not null default 1000000,\n',
        "  quota_executions bigint not null default 1000000,\n  color text not null default 'red',\n",
      ],
    ],
    add: `alter table exports add column note bytea storage external; alter table exports alter note set statistics 0;
alter table exports add column reason text not null;`,
    migrations: [
      {
        statements: [
          `alter table projects add column color text not null default 'red'::text;`,
          'alter table exports add column note bytea;',
          'alter table exports add column reason text not null;',
          'alter table exports alter column note set statistics 0;',
          'alter table exports alter column note set storage external;',
        ],
        undo: [
          '-- Locks exports, projects until its end: reads and writes of it wait (access exclusive).',
          'alter table projects drop column color;',
          'alter table exports drop column note;',
          'alter table exports drop column reason;',
        ],
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
  'a policy, the body of a function, a definer function, and rights': {
    replace: [
      ["status in ('PENDING', 'PROCESSING'))", "status = 'PENDING')"],
      ["a project''s language never changes", "a project''s language  never\n  -- ever changes"],
      ["hashtextextended('purge|' || due, 0)", "hashtextextended('purges|' || due, 0)"],
    ],
    add: `set local role jeex_system; grant execute on function purge_due to jeex_readonly; reset role;
grant select (create_time) on users to jeex_readonly; grant delete on exports to jeex_app;`,
    migrations: [
      {
        statements: [
          `alter policy crossing on exports to jeex_system using ((status = 'PENDING'::text));`,
          // Byte for byte as it is declared.
          `create or replace function refuse_language_change() returns trigger language plpgsql as $$
begin
  raise check_violation using message = 'a project''s language  never\n  -- ever changes',`,
          'grant create on schema jeex to jeex_system;',
          'set local role jeex_system;',
          'create or replace function purge_due() returns integer\nlanguage plpgsql security definer set search_path',
          'grant execute on function purge_due() to jeex_readonly;',
          'reset role;',
          'revoke create on schema jeex from jeex_system;',
          'grant select (create_time) on table users to jeex_readonly;',
          'grant delete on table exports to jeex_app;',
        ],
        undo: [
          `alter policy crossing on exports to jeex_system using ((status = any (array['PENDING'::text,`,
          'create or replace function refuse_language_change()\n returns trigger\n language plpgsql\nas $function$',
          'set local role jeex_system;',
          'revoke all on function purge_due() from jeex_readonly;',
          'reset role;',
          'revoke all (create_time) on table users from jeex_readonly;',
          'revoke delete on table exports from jeex_app;',
        ],
      },
    ],
  },
  'a default of a parameter, a new one, an overload, and a function that is a definer no more': {
    replace: [
      [
        'search_text(content text, most integer default 262144)',
        'search_text(content text, most integer default 131072)',
      ],
      [
        'compact_changes(project uuid, up_to bigint, most integer)',
        'compact_changes(project uuid, up_to bigint, most integer default 100)',
      ],
      [
        'create function lock_live_user(target uuid) returns boolean\nlanguage plpgsql security definer set search_path = jeex, pg_temp as',
        'create function lock_live_user(target uuid) returns boolean\nlanguage plpgsql as',
      ],
      ['alter function lock_live_user owner to jeex_system;\n', ''],
    ],
    add: `create function refuse_actor(actor uuid, why text) returns text language sql stable as $$ select why $$;
grant execute on function refuse_actor(uuid, text) to jeex_app;`,
    migrations: [
      {
        statements: [
          'create or replace function search_text(content text, most integer default 131072)',
          'set local role jeex_system;\n\ncreate or replace function compact_changes(',
          'create function refuse_actor(actor uuid, why text)',
          'drop function lock_live_user(uuid);',
        ],
        undo: [
          'create or replace function search_text(content text, most integer default 262144)',
          'drop function compact_changes(uuid, bigint, integer);',
          // Granted by its new owner: before, it would become a right of that one.
          'set local role jeex_system;\n\ngrant execute on function compact_changes(uuid, bigint, integer) to jeex_owner;',
          'drop function refuse_actor(uuid, text);',
          'revoke all on function lock_live_user(uuid) from jeex_owner;',
        ],
        incompatible: true,
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
        undo: ['drop function note_title(bigint, text);', 'create function note_title(i bigint)'],
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
  'a primary key and a unique index become others, and a rule gets a name of its own': {
    replace: [
      [
        '  primary key (project_id, user_id),\n  constraint project_members_role_known',
        '  primary key (user_id, project_id),\n  constraint project_members_role_known',
      ],
      ['(casefold(email)) where delete_time is null;', "(casefold(email)) where delete_time is null and email <> '';"],
    ],
    add: 'alter table exports add constraint exports_author_known not null created_by;',
    migrations: [
      {
        statements: ['alter table exports add constraint exports_author_known not null created_by not valid;'],
        undo: ['alter table exports alter column created_by drop not null;'],
        incompatible: true,
      },
      {
        run: 'concurrently',
        statements: [
          'create unique index concurrently project_members_pkey_new on project_members (user_id, project_id);',
        ],
        undo: ['drop index concurrently project_members_pkey_new;'],
        dataDependent: true,
        incompatible: true,
      },
      {
        run: 'concurrently',
        statements: [
          'create unique index concurrently users_email_key_new on users using btree (casefold(email)) where',
        ],
        undo: ['drop index concurrently users_email_key_new;'],
        dataDependent: true,
        incompatible: true,
      },
      {
        statements: ['alter table exports validate constraint exports_author_known;'],
        undo: ['alter table exports add constraint exports_author_known not null created_by not valid;'],
        dataDependent: true,
      },
      {
        statements: ['alter index users_email_key alter column 1 set statistics -1;'],
        undo: ['alter index users_email_key alter column 1 set statistics 0;'],
      },
      {
        run: 'concurrently',
        statements: ['drop index concurrently users_email_key;'],
        undo: ['create unique index concurrently users_email_key on users using btree (casefold(email)) where'],
        incompatible: true,
      },
      {
        statements: [
          'alter table project_members drop constraint project_members_pkey;\n\n' +
            'alter table project_members add constraint project_members_pkey primary key using index project_members_pkey_new;',
          'alter index users_email_key_new rename to users_email_key;',
          'alter index users_email_key alter column 1 set statistics 0;',
        ],
        undo: [
          '-- Locks project_members until its end: reads and writes of it wait (access exclusive).',
          'alter index users_email_key rename to users_email_key_new;',
          'alter table project_members add constraint project_members_pkey primary key (project_id, user_id);',
        ],
        dataDependent: true,
        incompatible: true,
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
  'a table that functions use under another name, and a view of it': {
    everywhere: ['purges', 'purgings'],
    replace: [['create table purgings (', '-- renamed-from: purges\ncreate table purgings (']],
    add: 'create view old_purgings with (security_invoker = true) as select project_id from purgings;',
    migrations: [
      {
        statements: [
          'alter table purges rename to purgings;',
          'create or replace function purge_rows(c call, project uuid) returns purgings',
          'create view old_purgings with (security_invoker=true) as  select project_id\n   from purgings;\n\n',
        ],
        undo: [
          'alter table purgings rename to purges;',
          'drop view old_purgings;',
          'create or replace function purge_rows(',
        ],
        incompatible: true,
      },
    ],
  },
  'a column taken away, and one that may be it': {
    replace: [
      ["  file_sha256 text not null default '',\n", ''],
      ["  constraint exports_file_sha256_hex check (file_sha256 = '' or file_sha256 ~ '^[0-9a-f]{64}$'),\n", ''],
      ['file_sha256, ', ''],
    ],
    add: "alter table exports add column hash text not null default '';",
    says: 'If exports.hash is file_sha256 under another name, it loses what that holds: write `-- renamed-from: file_sha256`',
    migrations: [
      {
        statements: ['alter table exports drop column file_sha256;'],
        undo: [`alter table exports add column file_sha256 text not null default ''::text;`],
        destructive: true,
        incompatible: true,
        undoDestructive: true,
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
      const told: string[] = [];
      const log = (line: string) => void told.push(line);
      const generated = await generate({ name: 'changed', server: testCluster(), directory, log });
      const { migrations, problems } = readMigrations(directory);
      const made = migrations.filter(({ version }) => version > base);
      assert.deepEqual(problems, []);
      assert.deepEqual(
        generated.files.map(({ file }) => file),
        made.flatMap(({ version }) => [`${number(version)}.do.changed.sql`, `${number(version)}.undo.changed.sql`]),
      );
      assert.equal(made.length, one.migrations.length, generated.files.map(({ text }) => text).join('\n'));
      for (const [index, expected] of one.migrations.entries()) check(made[index] as Migration, expected);
      if (one.says !== undefined) {
        assert.ok(told.join('\n').includes(one.says), told.join('\n'));
        assert.ok(made[0]?.sql.replaceAll('\n--  ', '').includes(one.says), made[0]?.sql);
      }
      assert.deepEqual(await lintMigrations(made, migrations), []);
      await roundTrip(directory, base);
    });
  }
});

describe('the declared schema', { concurrency: 2 }, () => {
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
    const exchanged = prepare({
      replace: [
        [
          '  input_tokens bigint not null default 0,\n  output_tokens bigint not null default 0,',
          '  -- renamed-from: output_tokens\n  input_tokens bigint not null default 0,\n' +
            '  -- renamed-from: input_tokens\n  output_tokens bigint not null default 0,',
        ],
      ],
    });
    const both = {
      message: /both `output_tokens` and its new name: take the line out if the rename was made; names that/,
    };
    await assert.rejects(generate({ name: 'stale', server: testCluster(), directory: exchanged.directory }), both);
  });

  test('with a column where no migration can put it is answered with its line', async () => {
    const middle: readonly [string, string] = ['  rpc text,\n', '  trace text,\n  rpc text,\n'];
    const row: readonly [string, string] = [
      "'sweep', null, null, null)::call",
      "null, 'sweep', null, null, null)::call",
    ];
    const type = prepare({ replace: [middle, row] });
    const line = readFileSync(join(type.directory, SCHEMA_FILE), 'utf8').split('\n').indexOf('  trace text,') + 1;
    const message = new RegExp(`^schema\\.sql:${line}: call\\.trace stands before .*: move it to the end$`);
    await assert.rejects(generate({ name: 'order', server: testCluster(), directory: type.directory }), { message });
    const table = prepare({
      before: NOTES,
      replace: [
        [' title text', ' heading text'],
        ['char_length(title)', 'char_length(heading)'],
        ['on notes (title)', 'on notes (heading)'],
      ],
    });
    const hinted = {
      message: /notes\.heading stands before .* if it is title under another name, write above it/,
    };
    await assert.rejects(generate({ name: 'order', server: testCluster(), directory: table.directory }), hinted);
  });

  test('that would lose what rows hold, or leave a gap in what holds them, writes nothing', async () => {
    const lossy: Omit<Case, 'migrations'> = {
      replace: [
        ['  agent_type text not null,\n  correlation_id', '  agent_type text collate "C" not null,\n  correlation_id'],
        [
          '  row_version bigint not null default 1,\n  project_revision',
          '  row_version text not null default 1,\n  project_revision',
        ],
        ['  current_step integer', '  current_step bigint'],
        [
          '  id uuid primary key default uuidv7(),\n  email text,',
          '  id uuid default uuidv7(),\n  primary key (id) include (name),\n  email text,',
        ],
      ],
    };
    const { message } = await assertNotWritten(lossy, /by hand/);
    for (const one of [
      /column agent_type of agent_executions would be dropped and made anew without what it holds/,
      /column row_version of agent_executions would be cast from bigint to text/,
      /constraint users_pkey of users changes and something else needs it, such as a foreign key/,
    ])
      assert.match(message, one);
    assert.doesNotMatch(message, /current_step/);
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

  test('hands out as JSON why it writes nothing, and how far it came', async () => {
    const { directory } = prepare({ add: 'alter table exports add column note varchar(20);' });
    const tree = mkdtempSync(join(tmpdir(), 'jeex-tree-'));
    after(() => rmSync(tree, { recursive: true }));
    const root = join(MIGRATIONS, '..');
    for (const part of ['src', 'proto', 'package.json'])
      cpSync(join(root, part), join(tree, part), { recursive: true });
    cpSync(directory, join(tree, 'migrations'), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
    const entry = join(tree, 'src', 'jeex-persistence.js');
    const { code, out } = await runCommand(['migrate', 'generate', 'refused', '--json'], {}, '', entry);
    const { error, drafts } = JSON.parse(out);
    assert.equal(code, 1);
    assert.match(error, /the lint has something against it/);
    assert.match(drafts[0].text, /add column note character varying\(20\)/);
  });
});

/** A directory as a person has it after editing the declared schema. @returns it, and the newest migration's number in it */
function prepare({ before, everywhere, replace = [], add = '' }: Omit<Case, 'migrations'>): {
  directory: string;
  base: number;
} {
  const directory = mkdtempSync(join(tmpdir(), 'jeex-declared-'));
  after(() => rmSync(directory, { recursive: true }));
  cpSync(MIGRATIONS, directory, { recursive: true });
  const base = before ? LATEST + 1 : LATEST;
  if (before) {
    writeFileSync(join(directory, `${number(base)}.do.before.sql`), before.sql);
    writeFileSync(join(directory, `${number(base)}.undo.before.sql`), before.undo);
  }
  const declared = `${readFileSync(join(directory, SCHEMA_FILE), 'utf8')}\n${before?.sql ?? ''}\n`;
  const [old, now] = everywhere ?? ['', ''];
  const start = everywhere ? declared.replaceAll(new RegExp(`\\b${old}\\b`, 'g'), now) : declared;
  const edited = replace.reduce((text, [was, is]) => {
    assert.ok(text.includes(was), `the declared schema has no «${was}»`);
    return text.replace(was, () => is);
  }, start);
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
