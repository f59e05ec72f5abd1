import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, describe, it, type TestContext } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { type AuditOptions, auditIsolation, type Report } from '../src/audit/isolation/audit.ts';
import { GROUPS, type Group } from '../src/audit/isolation/check.ts';
import { tenantTables } from '../src/audit/isolation/database.ts';
import { verdictOf } from '../src/audit/isolation/report.ts';
import { withLogin } from '../src/db/roles.ts';
import { registry } from '../src/db/statement.ts';
import { runCommand } from './support/command.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { useService } from './support/service.ts';

const service = await useService();
const { db } = service;
const owner = await useOwner(db);
const admin = await connectAs(db.adminUrl);
const tables = (await tenantTables(await connectAs(db.appUrl))).map(({ name }) => name);

const audit = (groups: readonly Group[], options: Partial<AuditOptions> = {}): Promise<Report> =>
  auditIsolation({
    address: service.grpc,
    credentials: credentials.createInsecure(),
    databaseUrl: db.appUrl,
    signer: null,
    exclusive: true,
    groups,
    load: 100,
    signal: new AbortController().signal,
    tell: () => {},
    progress: () => {},
    ...options,
  });

/** What is wrong, a line each, with the name of the check before it. */
const faultsOf = ({ results }: Report): readonly string[] =>
  results.flatMap(({ name, faults }) => faults.map((fault) => `${name}: ${fault}`));

/** Audits with something broken, by the schema's owner or somebody else, and mends it again. */
const whileBroken = async (
  groups: readonly Group[],
  broken: string,
  mended: string,
  by = owner,
): Promise<readonly string[]> => {
  await by.query(broken);
  try {
    const report = await audit(groups);
    assert.equal(report.ok, false);
    return faultsOf(report);
  } finally {
    await by.query(mended);
  }
};

/** What the audit says of a service that connects as a role of the test's own, which is gone after it. */
const faultsAs = async (t: TestContext, attributes: string, more = ''): Promise<readonly string[]> => {
  const role = `jeex_test_${randomBytes(6).toString('hex')}`;
  await admin.query(`create role ${role} login ${attributes} password 'secret' in role jeex_app`);
  t.after(() => admin.query(`drop role ${role}`));
  if (more !== '') await admin.query(`grant ${more} to ${role} with inherit false, set true`);
  const report = await audit(['catalog'], { databaseUrl: withLogin(db.adminUrl, db.name, role, 'secret') });
  return faultsOf(report).map((fault) => fault.replaceAll(role, 'ROLE'));
};

const FORCED = 'row-level security is on and forced on every tenant table';
const POLICIES = 'the policies are the expected ones, the scope a bare comparison';
const POWERLESS = "the service's role cannot bypass it, nor become a role that can";
const DEFINERS = 'what crosses projects is known, owned by jeex_system, with a fixed search_path';
const KEYED = 'every key of a tenant table holds the project';
const NOTHING_ELSE = 'nothing else shows the rows';
const SCOPE = `(project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)`;
/** Evaluated once for a statement: a batch of them would see its first caller's rows. */
const WRAPPED = SCOPE.replace('= ', '= (select ').replace('::uuid', '::uuid)');

describe('the audit', () => {
  it('passes on a healthy database, and leaves nothing', async () => {
    const report = await audit(['catalog', 'plans', 'membership', 'tables', 'foreign', 'roles', 'load']);
    assert.deepEqual([faultsOf(report), report.left, report.ok], [[], [], true]);
    assert.match(
      verdictOf(report, 1),
      /^\nOPEN, since authentication is off: .*\nLeft out: forged tokens, since authentication is off, timings, forged\./,
    );
    const { rows } = await owner.query(`select (select count(*) from projects)::int as projects,
      (select count(*) from users where delete_time is null)::int as users`);
    assert.deepEqual(rows, [{ projects: 0, users: 0 }]);
  });

  it('stops where it is interrupted, and leaves nothing either', async () => {
    const stop = new AbortController();
    const tell = () => stop.abort(new Error('interrupted'));
    await assert.rejects(audit(['membership', 'tables'], { signal: stop.signal, tell }), { message: 'interrupted' });
    assert.equal((await owner.query('select from projects')).rowCount, 0);
  });
});

describe('the audit fails when', () => {
  for (const table of tables) {
    it(`row-level security is not forced on ${table}`, async () => {
      const alter = `alter table ${table}`;
      const faults = await whileBroken(
        ['catalog'],
        `${alter} no force row level security`,
        `${alter} force row level security`,
      );
      assert.deepEqual(faults, [`${FORCED}: ${table}: row-level security is not forced`]);
    });
  }

  it('row-level security is off on a table', async () => {
    const faults = await whileBroken(
      ['catalog'],
      'alter table documents disable row level security',
      'alter table documents enable row level security',
    );
    assert.deepEqual(faults, [`${FORCED}: documents: row-level security is off`]);
  });

  it('a policy is dropped', async () => {
    const [{ roles } = { roles: '' }] = (
      await owner.query(
        `select string_agg(r::text, ', ') as roles from pg_policies, unnest(roles) r where tablename = 'exports' and policyname = 'scope'`,
      )
    ).rows;
    const faults = await whileBroken(
      ['catalog'],
      'drop policy scope on exports',
      `create policy scope on exports to ${roles} using ${SCOPE} with check ${SCOPE}`,
    );
    assert.deepEqual(faults, [`${POLICIES}: exports: the policy scope is missing`]);
  });

  it('a policy is wrapped in a sub-select', async () => {
    const faults = await whileBroken(
      ['catalog'],
      `alter policy scope on document_versions using ${WRAPPED}`,
      `alter policy scope on document_versions using ${SCOPE}`,
    );
    assert.equal(faults.length, 1);
    assert.match(faults[0] ?? '', /the scope a bare comparison: document_versions: the policy scope shows .*SELECT/);
  });

  it('a table shows rows without a scope, or one that the statement before it has set', async () => {
    const faults = await whileBroken(
      ['tables'],
      `alter table documents disable row level security;
       alter policy scope on document_versions using ${WRAPPED}`,
      `alter table documents enable row level security;
       alter policy scope on document_versions using ${SCOPE}`,
    );
    for (const sign of [/: documents shows rows$/, /: document_versions: a batch/]) {
      assert.ok(
        faults.some((fault) => sign.test(fault)),
        faults.join('\n'),
      );
    }
  });

  it('the app has a policy more', async () => {
    const faults = await whileBroken(
      ['catalog'],
      'create policy handy on changes for select to jeex_app using (true)',
      'drop policy handy on changes',
    );
    assert.deepEqual(faults, [`${POLICIES}: changes: the policy handy is not one this release knows`]);
  });

  it("the service's role can bypass row-level security", async (t) => {
    assert.deepEqual(await faultsAs(t, 'bypassrls'), [`${POWERLESS}: ROLE can bypass row-level security`]);
  });

  it("the service's role can become one that sees everything", async (t) => {
    const faults = await faultsAs(t, '', 'jeex_backup');
    assert.ok(faults.includes(`${POWERLESS}: jeex_backup is a role it is a member of`), faults.join('\n'));
  });

  describe('the membership check', () => {
    const replaced = async (part: string | RegExp, by: string, name = 'enter_project') => {
      const { rows } = await owner.query('select pg_get_functiondef($1::regproc) as text', [name]);
      const { text } = rows[0] as { text: string };
      const changed = text.replace(part, by);
      assert.notEqual(changed, text);
      return [changed, text] as const;
    };

    it('is removed from enter_project', async () => {
      const hidden = `when seen.role is null and seen.visibility <> 'PUBLIC_READ' then 'PROJECT_NOT_FOUND'`;
      const faults = await whileBroken(['membership', 'foreign'], ...(await replaced(hidden, '')));
      for (const sign of [
        /enter_project lets in .*: stranger of the project, reader needed: OK, not PROJECT_NOT_FOUND/,
        /cannot be told .*: ProjectService.GetProject answers rows of the foreign project/,
        /cannot be told .*: ProjectService.GetProject answers OK, not PROJECT_NOT_FOUND/,
      ]) {
        assert.ok(
          faults.some((fault) => sign.test(fault)),
          `${sign}\n${faults.join('\n')}`,
        );
      }
    });

    it('takes a viewer for an editor', async () => {
      const editors = `need = 'editor' and seen.role in ('EDITOR', 'OWNER')`;
      const all = await replaced(editors, `need = 'editor' and seen.role is not null`);
      const faults = await whileBroken(['membership', 'roles'], ...all);
      assert.ok(faults.some((fault) => fault.endsWith('viewer of the project, editor needed: OK, not ROLE_REQUIRED')));
      assert.ok(faults.some((fault) => /AppendVersion answers viewer: OK, not ROLE_REQUIRED/.test(fault)));
    });

    it('locks the project before it asks who comes', async () => {
      const members = /\(actor is null or exists \([^)]*\)\)/;
      const faults = await whileBroken(['membership'], ...(await replaced(members, 'true')));
      assert.ok(faults.some((fault) => fault.endsWith('stranger of the project locks the project')));
    });

    it('locks the user to become a member before it asks who comes', async () => {
      const first = await replaced(/^begin$/m, 'begin perform lock_live_user(target);', 'set_member');
      const faults = await whileBroken(['membership'], ...first);
      assert.ok(faults.some((fault) => fault.endsWith('stranger of the project locks a user by SetMember')));
    });

    it('leaves the scope to who was refused', async () => {
      const left = await replaced(`perform set_config('jeex.project_id', '', true)`, 'null');
      const faults = await whileBroken(['membership'], ...left);
      assert.ok(faults.some((fault) => /the scope is [0-9a-f-]{36} after PROJECT_NOT_FOUND/.test(fault)));
    });
  });

  it('the fence loses its dependency', async () => {
    const whole = [...registry.values()];
    const dependency = 'scope.project_id is not null offset 0';
    const statements = whole.map(({ name, text }) => ({ name, text: text.replaceAll(dependency, 'true offset 0') }));
    const report = await audit(['plans'], { statements });
    const fenced = whole.filter(({ text }) => text.includes(dependency));
    assert.ok(fenced.length >= 15);
    for (const { name } of fenced.slice(0, 5)) {
      assert.ok(
        faultsOf(report).some((fault) => fault.includes(`${name}: `)),
        name,
      );
    }
  });

  const BROKEN: readonly (readonly [string, string, string, RegExp])[] = [
    [
      'a definer function has no search_path of its own',
      'reset role; set role jeex_system; alter function create_project reset search_path; reset role',
      'set role jeex_system; alter function create_project set search_path = jeex, pg_temp; reset role',
      new RegExp(`${DEFINERS}: create_project\\(call,.* has no fixed search_path`),
    ],
    [
      'the app may call what is not its own',
      'set role jeex_system; grant execute on function purge_rows to jeex_app; reset role',
      'set role jeex_system; revoke execute on function purge_rows from jeex_app; reset role',
      /purge_rows\(call,uuid\) is not for this role to call/,
    ],
    [
      'the app may set the scope by itself',
      'grant execute on function scope_to to jeex_app',
      'revoke execute on function scope_to from jeex_app',
      /scope_to\(uuid\) sets the scope without asking/,
    ],
    [
      'a known definer function has an overload',
      `create function sweep(uuid) returns setof projects language sql security definer set search_path = jeex, pg_temp
         as 'select * from projects';
       grant execute on function sweep(uuid) to jeex_app; grant create on schema jeex to jeex_system;
       alter function sweep(uuid) owner to jeex_system; revoke create on schema jeex from jeex_system`,
      'set role jeex_system; drop function sweep(uuid); reset role',
      new RegExp(`${DEFINERS}: sweep\\(uuid\\) is not for this role to call`),
    ],
    ['a view shows rows', 'create view leak as select * from documents', 'drop view leak', /leak is a view/],
    [
      'a table is not keyed by its project',
      `create table loose (id uuid primary key, project_id uuid references projects, run uuid); grant select on loose to jeex_app`,
      'drop table loose',
      new RegExp(`${KEYED}: loose: its primary key does not begin with project_id`),
    ],
    [
      'a unique index spans projects',
      'create unique index across on exports (lease_token) include (project_id)',
      'drop index across',
      new RegExp(`${KEYED}: exports: across is unique across projects`),
    ],
    [
      'a table holds rows without saying whose',
      'create table plain as select content from document_bodies; grant select on plain to jeex_app',
      'drop table plain',
      new RegExp(`${NOTHING_ELSE}: plain: this role may select`),
    ],
    [
      'the app reads what is personal',
      'grant select (email) on users to jeex_app',
      'revoke select (email) on users from jeex_app',
      new RegExp(`${NOTHING_ELSE}: users: this role may select \\(email\\)`),
    ],
    [
      'the app reads all of the users',
      'grant select on users to jeex_app',
      'revoke select on users from jeex_app; grant select (id, delete_time) on users to jeex_app',
      new RegExp(`${NOTHING_ELSE}: users: this role may select$`),
    ],
    [
      'the app may empty a table, which no policy looks at',
      'grant truncate on changes to jeex_app',
      'revoke truncate on changes from jeex_app',
      new RegExp(`${NOTHING_ELSE}: changes: this role may truncate`),
    ],
  ];
  /** What it takes an administrator to break. */
  const BROKEN_ABOVE: readonly (readonly [string, string, string, RegExp])[] = [
    [
      'a definer function elsewhere can be called',
      `create schema helper; grant usage on schema helper to jeex_app;
       create function helper.leak() returns setof jeex.projects language sql security definer
         as 'select * from jeex.projects'; grant execute on function helper.leak to jeex_app`,
      'drop schema helper cascade',
      new RegExp(`${DEFINERS}: helper\\.leak\\(\\) runs as \\w+ for this role`),
    ],
    [
      'a column of a view elsewhere can be read',
      `create schema helper; grant usage on schema helper to jeex_app;
       create view helper.leak as select * from jeex.documents; grant select (project_id) on helper.leak to jeex_app`,
      'drop schema helper cascade',
      new RegExp(`${NOTHING_ELSE}: helper\\.leak: this role may select \\(project_id\\)`),
    ],
    [
      'a table of the system was opened',
      'grant select on pg_statistic to jeex_app',
      'revoke select on pg_statistic from jeex_app',
      new RegExp(`${NOTHING_ELSE}: pg_statistic: this role, or everybody, was granted it`),
    ],
    [
      'a function of the system was opened',
      'grant execute on function pg_read_file(text) to jeex_app',
      'revoke execute on function pg_read_file(text) from jeex_app',
      new RegExp(`${NOTHING_ELSE}: pg_read_file\\(text\\): this role, or everybody, was granted it`),
    ],
  ];
  const broken = [
    ...BROKEN.map((mutation) => [...mutation, owner] as const),
    ...BROKEN_ABOVE.map((mutation) => [...mutation, admin] as const),
  ];
  for (const [what, breaking, mending, sign, by] of broken) {
    it(what, async () => {
      const faults = await whileBroken(['catalog'], breaking, mending, by);
      assert.ok(
        faults.some((fault) => sign.test(fault)),
        faults.join('\n'),
      );
    });
  }
});

describe('the command', () => {
  const run = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
    runCommand(['isolation-audit', ...args], env);

  it('proves a temporary service that authenticates, in one JSON document and exit code 0', async () => {
    const { code, out, err } = await run(['--json', '--only', 'catalog']);
    const { ok, authenticated, left, leftOut } = JSON.parse(out);
    assert.deepEqual([code, ok, authenticated, left], [0, true, true, []], `${out}\n${err}`);
    assert.deepEqual(
      leftOut,
      GROUPS.filter((group) => group !== 'catalog'),
    );
  });

  it('ends with exit code 1 on a database that is broken, and says what is', async () => {
    const env = { DATABASE_URL: db.appUrl };
    await owner.query('alter table changes no force row level security');
    after(() => owner.query('alter table changes force row level security'));
    const { code, out } = await run(['--address', service.grpc, '--only', 'catalog'], env);
    assert.equal(code, 1);
    assert.match(out, /FAIL {2}row-level security is on and forced .*\n +changes: row-level security is not forced/);
    assert.match(out, /NOT ISOLATED: 1 of 7 checks do not hold/);
  });

  it('refuses a group it does not know as wrong use', async () => {
    assert.equal((await run(['--only', 'walls'])).code, 2);
  });
});
