import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import type { Client } from 'pg';
import { connectAs, useTestDatabase } from './support/postgres.ts';

const db = await useTestDatabase();
const owner = await connectAs(db.ownerUrl);

/** What each role may do with each table; `update(a,b)` is a right to these columns alone. Nobody has more than this. */
const TENANT = { jeex_readonly: 'select', jeex_backup: 'select' };
const INNER = { jeex_backup: 'select' };
const EXPECTED: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  users: {
    jeex_app: 'select(delete_time,id)',
    jeex_system: 'select insert update',
    jeex_readonly: 'select(delete_time,id)',
    jeex_backup: 'select',
  },
  projects: {
    ...TENANT,
    jeex_app:
      'select update(chain,content_bytes,current_step,delete_time,documents,exports,members,metadata,name,owners,' +
      'purge_time,quota_content_bytes,quota_documents,quota_executions,quota_versions,revision,row_version,status,' +
      'update_time,versions,visibility)',
    jeex_system: 'select insert update delete',
  },
  project_members: {
    ...TENANT,
    jeex_app: 'select insert update(role,update_time) delete',
    jeex_system: 'select insert delete',
  },
  document_bodies: { ...TENANT, jeex_app: 'select insert', jeex_system: 'select delete' },
  documents: { ...TENANT, jeex_app: 'select insert update(head_version)', jeex_system: 'select update delete' },
  document_versions: { ...TENANT, jeex_app: 'select insert', jeex_system: 'select delete' },
  agent_executions: {
    ...TENANT,
    jeex_app:
      'select insert update(cancel_reason,complete_time,cost_micros,error_message,input_tokens,lease_expire_time,' +
      'lease_token,model,output_tokens,row_version,start_time,status,update_time)',
    jeex_system: 'select update delete',
  },
  execution_payloads: { ...TENANT, jeex_app: 'select insert', jeex_system: 'select delete' },
  execution_counts: {
    ...TENANT,
    jeex_app: 'select insert update(executions)',
    jeex_system: 'select insert update delete',
  },
  exports: {
    ...TENANT,
    jeex_app:
      'select insert update(complete_time,download_count,error_message,file_path,file_sha256,file_size_bytes,' +
      'lease_expire_time,lease_token,row_version,status)',
    jeex_system: 'select update delete',
  },
  changes: { ...TENANT, jeex_app: 'select insert', jeex_system: 'select insert delete' },
  requests: { ...INNER, jeex_system: 'select insert update delete' },
  purges: { ...INNER, jeex_system: 'select insert' },
  erasures: { ...INNER, jeex_system: 'select insert' },
  retention: { ...INNER, jeex_system: 'select insert update', jeex_monitor: 'select' },
  sealing_keys: { ...INNER, jeex_app: 'select insert(key_id,secret)', jeex_system: 'select' },
  schemaversion: { ...INNER, jeex_app: 'select', jeex_monitor: 'select' },
  schemaprogress: INNER,
};
const ROLES = ['jeex_app', 'jeex_system', 'jeex_readonly', 'jeex_monitor', 'jeex_backup', 'jeex_pooler'];

/** The functions that the app may call and that run with more rights than its own. */
const DEFINERS = [
  'claim_execution',
  'claim_export',
  'create_project',
  'create_user',
  'delete_user',
  'find_reply',
  'forget_replies',
  'get_user',
  'index_heads',
  'keep_reply',
  'list_projects',
  'list_users',
  'lock_live_user',
  'purge_due',
  'purge_project',
  'record_login',
  'retain',
  'shares_project',
  'sweep',
  'update_user',
  'user_by_email',
  'users_by_id',
];

const privilegesOf = async (role: string): Promise<Record<string, string>> => {
  const { rows } = await owner.query(
    `select c.relname, p.name, has_table_privilege($1, c.oid, p.name) as whole,
       case when p.name in ('select', 'insert', 'update', 'references') then
         array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
               and not a.attisdropped and has_column_privilege($1, c.oid, a.attnum, p.name) order by 1)
       else '{}' end as columns
     from pg_class c,
       unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger', 'maintain'])
         with ordinality as p (name, place)
     where c.relnamespace = 'jeex'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') order by 1, p.place`,
    [role],
  );
  const found: Record<string, string[]> = {};
  for (const { relname, name, whole, columns } of rows) {
    found[relname] ??= [];
    if (whole) found[relname].push(name);
    else if (columns.length > 0) found[relname].push(`${name}(${columns.join(',')})`);
  }
  return Object.fromEntries(Object.entries(found).map(([table, rights]) => [table, rights.join(' ')]));
};

describe('what each role may do', () => {
  for (const role of ROLES) {
    it(`is what ${role} needs, with every table`, async () => {
      const wanted = Object.entries(EXPECTED).map(([table, rights]) => [table, rights[role] ?? '']);
      assert.deepEqual(await privilegesOf(role), Object.fromEntries(wanted));
    });
  }

  it('with functions: none for people and machines around the service, and known ones beyond the app’s own rights', async () => {
    const { rows } = await owner.query(
      `select p.proname, p.prosecdef as definer, r.name as role from pg_proc p, unnest($1::text[]) as r (name)
       where p.pronamespace = 'jeex'::regnamespace and has_function_privilege(r.name, p.oid, 'execute') order by 1`,
      [ROLES.filter((role) => role !== 'jeex_system')],
    );
    assert.deepEqual([...new Set(rows.map(({ role }) => role))], ['jeex_app']);
    const definers = rows.filter(({ definer }) => definer).map(({ proname }) => proname);
    assert.deepEqual([...new Set(definers)], DEFINERS);
    const open = await owner.query(
      `select p.proname from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
       where p.pronamespace = 'jeex'::regnamespace and a.grantee = 0`,
    );
    assert.deepEqual(open.rows, [], 'everyone may call these');
  });

  it('through definer functions: all belong to jeex_system and fix their search path', async () => {
    const { rows } = await owner.query(
      `select p.proname, p.proowner::regrole::text as owner, coalesce(array_to_string(p.proconfig, ';'), '') as config
       from pg_proc p where p.pronamespace = 'jeex'::regnamespace and p.prosecdef`,
    );
    assert.ok(rows.length >= DEFINERS.length);
    for (const { proname, owner: by, config } of rows) {
      assert.equal(by, 'jeex_system', proname);
      assert.match(config, /(^|;)search_path=jeex, pg_temp(;|$)/, proname);
    }
  });

  it('with the database: connect, and make neither schemas nor temporary tables', async () => {
    const logins = ROLES.filter((role) => role !== 'jeex_system');
    const { rows } = await owner.query(
      `select r.name, has_database_privilege(r.name, current_database(), 'connect') as connects,
         has_database_privilege(r.name, current_database(), 'create, temporary') as makes,
         (select coalesce(bool_or(has_schema_privilege(r.name, n.oid, 'create')), false) from pg_namespace n) as fills
       from unnest($1::text[]) as r (name)`,
      [logins],
    );
    assert.deepEqual(
      rows,
      logins.map((name) => ({ name, connects: true, makes: false, fills: false })),
    );
  });

  it('with itself: nobody is a superuser, passes row-level security, or becomes the owner', async () => {
    const { rows } = await owner.query(
      `select rolname from pg_roles where rolname = any ($1) and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb
         or rolreplication or pg_has_role(oid, 'jeex_owner', 'member')
         or (rolname <> 'jeex_system' and pg_has_role(oid, 'jeex_system', 'member')))`,
      [ROLES],
    );
    assert.deepEqual(rows, []);
  });
});

describe('what each role sees', async () => {
  const [mine, theirs] = ['01a00000-0000-7000-8000-00000000000a', '01a00000-0000-7000-8000-00000000000b'] as const;
  let tenantTables: string[] = [];

  before(async () => {
    for (const project of [mine, theirs]) {
      await owner.query(`insert into projects (id, name, language, revision) values ($1, 'P', 'en', 5)`, [project]);
      await owner.query(
        `insert into changes (project_id, revision, kind, caller, correlation_id, create_time, chain)
         select $1, r, 'PROJECT_UPDATED', 'test', gen_random_uuid(), now(), sha256('x') from generate_series(1, 5) as r`,
        [project],
      );
    }
    const { rows } = await owner.query(
      `select relname from pg_class where relnamespace = 'jeex'::regnamespace and relrowsecurity`,
    );
    tenantTables = rows.map(({ relname }) => relname);
    assert.ok(tenantTables.length >= 10);
  });

  const count = async (client: Client, table: string): Promise<number> =>
    (await client.query(`select count(*)::int as n from jeex.${table}`)).rows[0].n;

  it('readonly: nothing before it names a project, then that project alone, and it writes nothing', async () => {
    const client = await connectAs(db.urlAs('readonly'));
    for (const table of tenantTables) assert.equal(await count(client, table), 0, table);
    await client.query(`set jeex.project_id = '${mine}'`);
    assert.deepEqual((await client.query('select id from projects')).rows, [{ id: mine }]);
    assert.equal(await count(client, 'changes'), 5);
    await assert.rejects(client.query("update projects set name = 'Q'"), { code: /25006|42501/ });
    await client.query('set default_transaction_read_only = off');
    await assert.rejects(client.query("update projects set name = 'Q'"), { code: '42501' });
    await assert.rejects(client.query('select email from users'), { code: '42501' });
    assert.equal((await client.query('select id, delete_time from users')).rowCount, 0);
  });

  it('backup: every row of every table, as a dump with row security takes it', async () => {
    const client = await connectAs(db.urlAs('backup'));
    await client.query('set row_security = on');
    for (const table of Object.keys(EXPECTED)) {
      const { rowCount } = await client.query(`copy jeex.${table} to stdout`);
      assert.equal(rowCount, await count(owner, table), table);
    }
    assert.equal((await client.query('copy jeex.changes to stdout')).rowCount, 10);
    const { rows } = await owner.query(
      `select c.relname from pg_class c where c.relnamespace = 'jeex'::regnamespace and c.relrowsecurity and not exists (
         select from pg_policy p where p.polrelid = c.oid and 'jeex_backup'::regrole = any (p.polroles)
           and pg_get_expr(p.polqual, p.polrelid) = 'true')`,
    );
    assert.deepEqual(rows, [], 'a dump would silently lack rows of these');
  });

  it('monitor: the server and the schema’s version, and no row of anybody', async () => {
    const client = await connectAs(db.urlAs('monitor'));
    assert.ok((await count(client, 'schemaversion')) > 0);
    const { rows } = await client.query(`select current_setting('data_directory') as readable`);
    assert.ok(rows[0].readable);
    for (const table of [...tenantTables, 'users', 'requests']) {
      await assert.rejects(count(client, table), { code: '42501' }, table);
    }
    const stats = (await client.query(`select to_regclass('stats.pg_stat_statements') is not null as there`)).rows[0];
    if (stats.there) assert.ok((await client.query('select queryid from stats.pg_stat_statements limit 1')).rowCount);
    const app = await connectAs(db.appUrl);
    if (stats.there) await assert.rejects(app.query('select from stats.pg_stat_statements'), { code: '42501' });
  });

  it('pooler: the verifier of jeex_app, and nothing else', async () => {
    const client = await connectAs(db.urlAs('pooler'));
    const admin = await connectAs(db.adminUrl);
    const ask = async (login: string) => (await client.query('select * from pooler.get_auth($1)', [login])).rows;
    const stored = `select rolname::text, rolpassword from pg_authid where rolname = 'jeex_app'`;
    const found = await ask('jeex_app');
    assert.match(found[0].rolpassword, /^SCRAM-SHA-256\$/);
    assert.deepEqual(found, (await admin.query(stored)).rows);
    for (const login of ['jeex_owner', 'jeex_backup', 'postgres', "jeex_app' or true --", '']) {
      assert.deepEqual(await ask(login), [], login);
    }
    await assert.rejects(client.query('select from pg_authid'), { code: '42501' });
    await assert.rejects(count(client, 'projects'), { code: '42501' });
    const { rows } = await admin.query(
      `select rolname::text from pg_roles where not rolsuper and rolname like 'jeex%'
         and has_function_privilege(oid, 'pooler.get_auth(text)', 'execute')`,
    );
    assert.deepEqual(rows, [{ rolname: 'jeex_pooler' }], 'may ask');
  });

  it('app: changes it can add and never alter, remove or compact; the owner compacts them in batches', async () => {
    const app = await connectAs(db.appUrl);
    await app.query(`set jeex.project_id = '${mine}'`);
    assert.equal(await count(app, 'changes'), 5);
    for (const attempt of [
      `update changes set caller = 'nobody'`,
      'delete from changes',
      'truncate changes',
      `select compact_changes('${mine}', 5, 2)`,
      'update projects set earliest_revision = 5',
      'delete from projects',
    ]) {
      await assert.rejects(app.query(attempt), { code: '42501' }, attempt);
    }
    const gone = [];
    for (let i = 0; i < 4; i++) {
      gone.push((await owner.query('select compact_changes($1, 5, 2) as n', [mine])).rows[0].n);
    }
    assert.deepEqual(gone, [2, 2, 1, 0]);
    assert.equal((await owner.query('select from changes where project_id = $1', [theirs])).rowCount, 5);
  });
});
