import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, suite, test } from 'node:test';
import { loadModule, parseSync } from 'libpg-query';
import type { Client } from 'pg';
import { type Catalogue, diffCatalogues, readCatalogue } from '../src/migrator/catalogue.ts';
import { MIGRATIONS, number, readMigrations, type Script } from '../src/migrator/files.ts';
import { down, up } from '../src/migrator/migrate.ts';
import { failed } from './support/migrations.ts';
import { connectAs, useTestDatabase } from './support/postgres.ts';

/** Rows for the tables that a migration makes, put in after it, so that a step that loses some is seen to. */
const ROWS: Readonly<Record<number, string>> = {
  1: `
    insert into users (id, email, name, caller, correlation_id) select pg_temp.id(n), n || '@example.org', 'Name ' || n, 'tests', pg_temp.id(n)
      from generate_series(1, 5) n;
    insert into users (id, caller, correlation_id, delete_time) values (pg_temp.id(6), 'tests', pg_temp.id(6), '2026-01-01');
    insert into projects (id, name, language, created_by) select pg_temp.id(n), 'Project ' || n, 'en', pg_temp.id(1) from generate_series(1, 3) n;
    insert into project_members (project_id, user_id, role) select pg_temp.id(n), pg_temp.id(n + m), (array['OWNER', 'EDITOR', 'VIEWER'])[m + 1]
      from generate_series(1, 3) n, generate_series(0, 2) m;
    insert into document_bodies select pg_temp.id(n), sha256('text'), 'text', 4 from generate_series(1, 3) n;
    insert into documents (project_id, document_type, head_version) select pg_temp.id(n), 'plan', 1 from generate_series(1, 3) n;
    insert into agent_executions (project_id, id, agent_type, correlation_id, caller, project_revision)
      select pg_temp.id(n), pg_temp.id(n), 'writer', pg_temp.id(n), 'tests', 2 from generate_series(1, 3) n;
    insert into execution_payloads select pg_temp.id(n), pg_temp.id(n), 'input', 'text/plain', '\\x0001' || sha256('') from generate_series(1, 3) n;
    insert into document_versions (project_id, document_type, version, content_sha256, size_bytes, caller, correlation_id,
        execution_id, create_time, project_revision)
      select pg_temp.id(n), 'plan', 1, sha256('text'), 4, 'tests', pg_temp.id(n), pg_temp.id(n), '2026-01-01', 1 from generate_series(1, 3) n;
    insert into exports (project_id, manifest, manifest_entries, caller, correlation_id, expire_time, project_revision, created_revision)
      select pg_temp.id(n), '[]', 0, 'tests', pg_temp.id(n), clock_timestamp() + interval '1 day', 1, 3 from generate_series(1, 3) n;
    insert into changes select pg_temp.id(n), 1, 'PROJECT_CREATED', pg_temp.id(n), null, null, pg_temp.id(1), 'tests', pg_temp.id(n), '2026-01-01', sha256('')
      from generate_series(1, 3) n;
    insert into requests (request_id, rpc, caller, actor_id, request_hash, reply) values (pg_temp.id(1), 'x', 'tests', pg_temp.id(1), 'x', 'x');
    insert into purges (project_id, revision, chain, caller, correlation_id) values (pg_temp.id(9), 1, 'x', 'tests', pg_temp.id(9));`,
  11: `insert into sealing_keys (key_id, secret) values (1, sha256('') || substr(sha256(''), 3))`,
  14: 'insert into retention (payloads, end_time) values (7, now());',
};

/** The same id for the same number, for the statements above. */
const IDS = `create function pg_temp.id(n bigint) returns uuid language sql
  return (lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid`;

/** Refuses a change of the migrator's history when the transaction that made it commits. */
const REFUSAL = `create function public.refuse() returns trigger language plpgsql as
  $$ begin raise exception 'no version row'; end $$;
create constraint trigger refuse after insert or delete on schemaversion deferrable initially deferred
  for each row execute function public.refuse();
alter table schemaversion disable trigger refuse`;

/** What must stay as it is: every definition, and every row of every table, those of the migrator's history among them. */
interface State {
  readonly catalogue: Catalogue;
  /** By table, those with rows: how many, and the hash of their content. */
  readonly rows: Readonly<Record<string, string>>;
}

suite('a failure after any statement of any migration, and of any undo, and at its commit,', async () => {
  await loadModule();
  const { migrations } = readMigrations();
  const directory = mkdtempSync(join(tmpdir(), 'jeex-failures-'));
  after(() => rmSync(directory, { recursive: true }));
  cpSync(MIGRATIONS, directory, { recursive: true });

  const db = await useTestDatabase();
  await down(db.ownerUrl, 0);
  const admin = await connectAs(db.adminUrl);
  await admin.query(IDS);

  await admin.query(REFUSAL);

  /**
   * Breaks the script after each statement in turn, then its commit, and sees that nothing comes of it; then runs it whole. A
   * script that does not run in one transaction just runs: what is left of those when they fail, other tests tell.
   */
  const failEverywhere = async (script: Script, run: () => Promise<unknown>): Promise<void> => {
    if (script.directives.run !== 'transaction') return void (await run());
    const file = join(directory, basename(script.filename));
    const before = await readState(admin);
    const fails = async (where: string, why: RegExp) => {
      await assert.rejects(run(), failed(why), where);
      const now = await readState(admin);
      assert.deepEqual(diffCatalogues(before.catalogue, now.catalogue), [], where);
      assert.deepEqual(now.rows, before.rows, where);
    };
    for (const [index, broken] of brokenEverywhere(script.sql).entries()) {
      writeFileSync(file, broken);
      await fails(`after statement ${index + 1}`, /division by zero/);
    }
    writeFileSync(file, script.sql);
    await admin.query('alter table schemaversion enable trigger refuse');
    await fails('at the commit, with the version row', /no version row/);
    await admin.query('alter table schemaversion disable trigger refuse');
    await run();
  };

  for (const migration of migrations) {
    const { version, name } = migration;
    test(`leaves the database as it was before ${number(version)} ${name}`, async () => {
      await failEverywhere(migration, () => up(db.ownerUrl, { directory, to: version, haveBackup: true }));
      await admin.query(ROWS[version] ?? '');
    });
  }

  test('would have been seen in any table', async () => {
    const { rows } = await readState(admin);
    const { rows: tables } = await admin.query<{ name: string }>(TABLES);
    const empty = tables.filter(({ name }) => name !== 'schemaprogress' && rows[name] === undefined);
    assert.deepEqual(empty, [], 'ROWS has some for every table');
  });

  for (const { version, name, undo } of migrations.toReversed()) {
    test(`leaves the database as it was before ${number(version)} ${name} was undone`, async () => {
      assert(undo);
      await failEverywhere(undo, () => down(db.ownerUrl, version - 1, { directory, haveBackup: true }));
    });
  }
});

/** The script once for each of its statements, with a failure after it. */
function brokenEverywhere(script: string): string[] {
  const bytes = Buffer.from(script);
  return (parseSync(script).stmts ?? []).map(({ stmt_location = 0, stmt_len }) => {
    const end = stmt_len === undefined ? bytes.length : stmt_location + stmt_len;
    return `${bytes.subarray(0, end)}\n; select 1 / 0${bytes.subarray(end)}`;
  });
}

const TABLES = `select relname::text as name from pg_class where relnamespace = 'jeex'::regnamespace and relkind = 'r'`;

async function readState(admin: Client): Promise<State> {
  const catalogue = await readCatalogue(admin);
  const { rows: tables } = await admin.query<{ name: string }>(TABLES);
  const hashes = tables.map(
    ({ name }) => `select '${name}' as name, count(*) || ' ' || md5(string_agg(t::text, ' ' order by t::text)) as hash
      from ${name} t having count(*) > 0`,
  );
  const { rows } = await admin.query<{ name: string; hash: string }>(
    hashes.join(' union all ') || `select where false`,
  );
  return { catalogue, rows: Object.fromEntries(rows.map(({ name, hash }) => [name, hash])) };
}
