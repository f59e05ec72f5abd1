import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { type AuditOptions, auditIsolation, type Report } from '../src/audit/isolation/audit.ts';
import { GROUPS, type Group } from '../src/audit/isolation/check.ts';
import { tenantTables } from '../src/audit/isolation/database.ts';
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
    load: 200,
    signal: new AbortController().signal,
    tell: () => {},
    progress: () => {},
    ...options,
  });

/** What is wrong, a line each, with the name of the check before it. */
const faultsOf = ({ results }: Report): readonly string[] =>
  results.flatMap(({ name, faults }) => faults.map((fault) => `${name}: ${fault}`));

/** Audits with something broken, and mends it again. */
const whileBroken = async (groups: readonly Group[], broken: string, mended: string): Promise<readonly string[]> => {
  await owner.query(broken);
  try {
    const report = await audit(groups);
    assert.equal(report.ok, false);
    return faultsOf(report);
  } finally {
    await owner.query(mended);
  }
};

const FORCED = 'row-level security is on and forced on every tenant table';
const POLICIES = 'the policies are the expected ones, the scope a bare comparison';
const DEFINERS = 'what crosses projects is known, owned by jeex_system, with a fixed search_path';
const SCOPE = `(project_id = nullif(current_setting('jeex.project_id', true), '')::uuid)`;

describe('the audit', () => {
  it('passes on a healthy database, and leaves nothing', async () => {
    const report = await audit(['catalog', 'plans', 'membership', 'tables', 'foreign']);
    assert.deepEqual([faultsOf(report), report.left, report.ok], [[], [], true]);
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
      ['catalog', 'tables'],
      'alter table documents disable row level security',
      'alter table documents enable row level security',
    );
    assert.ok(faults.includes(`${FORCED}: documents: row-level security is off`));
    assert.ok(faults.some((fault) => fault.endsWith('documents shows rows')));
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
    const wrapped = SCOPE.replace('= ', '= (select ').replace('::uuid', '::uuid)');
    const faults = await whileBroken(
      ['catalog', 'tables'],
      `alter policy scope on document_versions using ${wrapped}`,
      `alter policy scope on document_versions using ${SCOPE}`,
    );
    assert.match(faults[0] ?? '', /the scope a bare comparison: document_versions: the policy scope shows .*SELECT/);
    assert.ok(
      faults.some((fault) => /document_versions: a batch/.test(fault)),
      faults.join('\n'),
    );
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
    const role = `jeex_test_${randomBytes(6).toString('hex')}`;
    await admin.query(`create role ${role} login bypassrls password 'bypass' in role jeex_app`);
    t.after(() => admin.query(`drop role ${role}`));
    const databaseUrl = withLogin(db.adminUrl, db.name, role, 'bypass');
    const faults = faultsOf(await audit(['catalog', 'tables'], { databaseUrl }));
    assert.ok(
      faults.includes(
        `the service's role cannot bypass it, nor become a role that can: ${role} can bypass row-level security`,
      ),
    );
    assert.ok(faults.some((fault) => fault.endsWith('projects shows rows')));
  });

  describe('the membership check', () => {
    const replaced = async (part: string, by: string) => {
      const { rows } = await owner.query(`select pg_get_functiondef('enter_project'::regproc) as text`);
      const { text } = rows[0] as { text: string };
      assert.ok(text.includes(part));
      return [text.replace(part, by), text] as const;
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
      const { rows } = await owner.query(`select pg_get_functiondef('enter_project'::regproc) as text`);
      const [part = ''] = members.exec(rows[0].text) ?? [];
      const faults = await whileBroken(['membership'], ...(await replaced(part, 'true')));
      assert.ok(faults.some((fault) => fault.endsWith('stranger of the project locks the project')));
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
      new RegExp(`${DEFINERS}: create_project has no fixed search_path`),
    ],
    [
      'the app may call what is not its own',
      'set role jeex_system; grant execute on function purge_rows to jeex_app; reset role',
      'set role jeex_system; revoke execute on function purge_rows from jeex_app; reset role',
      new RegExp(`${DEFINERS}: purge_rows is not for this role to call`),
    ],
    [
      'the app may set the scope by itself',
      'grant execute on function scope_to to jeex_app',
      'revoke execute on function scope_to from jeex_app',
      /scope_to sets the scope without asking/,
    ],
    ['a view shows rows', 'create view leak as select * from documents', 'drop view leak', /leak is a view/],
    [
      'a table is not keyed by its project',
      `create table loose (id uuid primary key, project_id uuid references projects, run uuid); grant select on loose to jeex_app`,
      'drop table loose',
      /loose: its primary key does not begin with project_id/,
    ],
  ];
  for (const [what, broken, mended, sign] of BROKEN) {
    it(what, async () => {
      const faults = await whileBroken(['catalog'], broken, mended);
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
    const { code, out, err } = await run(['--json', '--no-timings', '--load', '200']);
    const document = JSON.parse(out);
    assert.deepEqual([code, document.ok, document.left], [0, true, []], `${out}\n${err}`);
    const groups = new Set(document.checks.map(({ group }: { group: string }) => group));
    assert.deepEqual(
      [...groups],
      GROUPS.filter((group) => group !== 'timings'),
    );
    const forged = document.checks.find(({ name }: { name: string }) => name === 'no RPC takes a forged token');
    assert.match(forged.seen, /alg none.*× \d+ RPCs/);
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
