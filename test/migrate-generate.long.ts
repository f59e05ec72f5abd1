import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { expectedCatalogue } from '../src/migrator/drift.ts';
import { type Migration, number, readMigrations } from '../src/migrator/files.ts';
import { generate } from '../src/migrator/generate/generate.ts';
import { connected } from '../src/migrator/generate/scratch.ts';
import { lintMigrations } from '../src/migrator/lint/lint.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { type Edit, NOTES, prepare } from './support/declared.ts';
import { createTestDatabase, testCluster } from './support/postgres.ts';

/** What a person does to the declared schema, and what has to come of it. */
interface Case extends Edit {
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

const POLICY = `using (project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)`;
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
