import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Client } from 'pg';
import { latestVersion } from '../src/migrator/files.ts';
import { VERSION } from '../src/version.ts';
import { runCommand } from './support/command.ts';
import { ask } from './support/migrations.ts';
import { useTestDatabase } from './support/postgres.ts';

const LATEST = latestVersion();
const LATEST_NUMBER = String(LATEST).padStart(3, '0');

/** `migrate` on a database by the owner's URL alone, as in a container that only migrates. */
const migrateOn =
  (url: string) =>
  (...args: string[]) =>
    runCommand(['migrate', ...args], { MIGRATION_DATABASE_URL: url });

/** What a command says to machines, which is one line and nothing else. */
const oneLine = (out: string) => {
  assert.match(out, /^[^\n]+\n$/);
  return JSON.parse(out);
};

const codes = ({ problems }: { problems: { code: string }[] }): string[] => problems.map(({ code }) => code);

suite('the command migrate', () => {
  test('goes up, down and up again, and tells each step with its duration', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    const first = await run('up', '--to', '2');
    assert.deepEqual([first.code, first.err], [0, '']);
    assert.match(first.out, /^applied 001 tables in [\d.]+ m?s\napplied 002 scope in [\d.]+ m?s\nnow at 2\n$/);
    const rest = JSON.parse((await run('up', '--json')).out);
    assert.equal(rest.version, LATEST);
    assert.deepEqual(rest.steps[0], { version: 3, name: 'users', action: 'do', durationMs: rest.steps[0].durationMs });
    assert.match((await run('up')).out, new RegExp(`^nothing to do: at ${LATEST}\n$`));
    const down = await run('down', '--to', String(LATEST - 1));
    assert.match(down.out, new RegExp(`^undone ${LATEST_NUMBER} \\w+ in [\\d.]+ m?s\nnow at ${LATEST - 1}\n$`));
    assert.equal((await run('up')).code, 0);
  });

  test('prints the SQL of either way instead of running it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    const up = await run('up', '--to', '1', '--dry-run');
    assert.match(up.out, /^-- 001 tables\n.*create table users \(/s);
    assert.doesNotMatch(up.out, /-- 002 scope/);
    assert.match((await run('down', '--to', '0', '--dry-run')).out, /^-- nothing to do: at 0\n$/);
    await run('up', '--to', '2');
    assert.match((await run('down', '--to', '0', '--dry-run')).out, /^-- 002 scope\n.*-- 001 tables\n/s);
    assert.equal(JSON.parse((await run('status', '--json')).out).version, 2);
  });

  test('judges a dry run as the run itself, and prints it for machines', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    await run('up', '--to', '2');
    const above = await run('up', '--to', '9999', '--dry-run');
    assert.deepEqual([above.code, above.out], [3, '']);
    assert.match(above.err, /there is no migration 9999/);
    for (const args of [
      ['up', '--to', '1', '--dry-run', '--json'],
      ['down', '--to', '3', '--dry-run', '--json'],
    ]) {
      const refused = await run(...args);
      assert.equal(refused.code, 3, args.join(' '));
      assert.deepEqual(codes(oneLine(refused.out)), ['TARGET']);
    }
    const { version, steps } = oneLine((await run('down', '--to', '0', '--dry-run', '--json')).out);
    assert.equal(version, 2);
    assert.deepEqual(
      steps.map(({ sql, ...step }: { sql: string }) => ({ ...step, sql: sql.length > 0 })),
      [
        { version: 2, name: 'scope', action: 'undo', sql: true },
        { version: 1, name: 'tables', action: 'undo', sql: true },
      ],
    );
    await ask(ownerUrl, "update jeex.schemaversion set md5 = 'another' where version = 1");
    const changed = await run('down', '--to', '0', '--dry-run');
    assert.deepEqual([changed.code, changed.out], [3, '']);
    for (const look of [
      ['plan', '--json'],
      ['up', '--dry-run', '--json'],
    ]) {
      const refused = await run(...look);
      assert.equal(refused.code, 3, look.join(' '));
      assert.deepEqual(codes(oneLine(refused.out)), ['CHECKSUM'], look.join(' '));
    }
  });

  test('tells machines of any failure in one line, with what was done before it', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    await ask(ownerUrl, 'create function jeex.shares_project(uuid, uuid) returns boolean language sql return true');
    const failed = await run('up', '--json');
    assert.equal(failed.code, 1);
    const { error, problems, steps, version } = oneLine(failed.out);
    assert.match(error, /migration 003 users failed/);
    assert(failed.err.includes(error));
    assert.deepEqual([problems, version], [[], 2]);
    assert.deepEqual(
      steps.map((step: { version: number }) => step.version),
      [1, 2],
    );
    const nowhere = migrateOn(ownerUrl.replace(/\/[^/]+$/, '/no_such_database'));
    for (const way of [['up'], ['down', '--to', '0'], ['status'], ['plan'], ['verify']]) {
      const lost = await nowhere(...way, '--json');
      assert.equal(lost.code, 1, way[0]);
      const told = oneLine(lost.out);
      assert.match(told.error, /no_such_database/, way[0]);
      assert.deepEqual([told.problems, told.steps], [[], []], way[0]);
      assert(lost.err.includes(told.error), way[0]);
    }
  });

  test('shows what was begun', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    await run('up', '--to', '2');
    await ask(
      ownerUrl,
      `insert into jeex.schemaprogress values (3, 'do', '{"done": {"rows": 750, "batches": 12}}', now())`,
    );
    assert.match((await run('status')).out, /\n {2}003 users {2}missing; begun: 750 rows in 12 batches\n/);
    assert.match((await run('plan')).out, /\n {2}003 users {2}in one transaction; begun: 750 rows in 12 batches\n/);
    const [step, next] = oneLine((await run('plan', '--json')).out).steps;
    assert.deepEqual([step.begun, next.begun], [{ rows: 750, batches: 12 }, null]);
    const status = oneLine((await run('status', '--json')).out);
    assert.deepEqual(status.unfinished, [{ version: 3, action: 'do', rows: 750, batches: 12 }]);
  });

  test('plans, shows and verifies, for people and for machines', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    await run('up', '--to', '1');
    const plan = await run('plan');
    assert.match(
      plan.out,
      /^database at 001, this release at \d{3}\n {2}002 scope {2}in one transaction\n {6}Entering a project/,
    );
    const [step] = JSON.parse((await run('plan', '--json')).out).steps;
    assert.deepEqual([step.version, step.run, step.destructive], [2, 'transaction', null]);
    const behind = await run('verify');
    assert.equal(behind.code, 3);
    assert.match(
      behind.out,
      /problem: the database is at version 1, and this release needs .*\n {4}run `jeex-persistence migrate up`/,
    );
    await run('up');
    assert.match((await run('plan')).out, /\nnothing to do\n$/);
    assert.match((await run('verify', '--drift')).out, /^verified: .*\nthe schema is what the migrations made\n$/);
    assert.match(
      (await run('status')).out,
      new RegExp(`001 tables {2}applied \\S+Z by ${VERSION.replaceAll('.', '\\.')} in [\\d.]+ m?s\n`),
    );
    assert.deepEqual(JSON.parse((await run('status', '--json')).out).problems, []);
  });

  test('answers 3 and names what differs when the schema has drifted', async () => {
    const { ownerUrl } = await useTestDatabase();
    await ask(ownerUrl, 'alter table jeex.projects add column whim text');
    const run = migrateOn(ownerUrl);
    assert.equal((await run('verify')).code, 0);
    const drift = await run('verify', '--drift', '--json');
    assert.equal(drift.code, 3);
    const { problems } = JSON.parse(drift.out);
    assert.deepEqual(
      problems.map(({ code, identity }: { code: string; identity: string }) => [code, identity]),
      [['DRIFT', 'column jeex.projects.whim']],
    );
  });

  const refusals: [string, string[], number, RegExp][] = [
    ['a version that is not there', ['up', '--to', '9999'], 3, /there is no migration 9999/],
    ['a version above the database', ['down', '--to', '9999'], 3, /which is below 9999.*migrate up/s],
    ['a version below the database', ['up', '--to', '1'], 3, /which is above 1.*migrate down --to 1/s],
    ['no number', ['up', '--to', 'newest'], 2, /expected a whole number/],
    ['no version to go down to', ['down'], 2, /--to <version>/],
    ['a way that is none', ['sideways'], 2, /unknown command/],
    ['a patience that is none', ['up', '--wait', 'long'], 2, /expected seconds/],
  ];
  test('answers 2 or 3 to what cannot be done, and changes nothing', async () => {
    const { ownerUrl } = await useTestDatabase();
    const run = migrateOn(ownerUrl);
    for (const [what, args, code, message] of refusals) {
      const ended = await run(...args);
      assert.equal(ended.code, code, what);
      assert.match(ended.err, message, what);
    }
    const machine = await run('up', '--to', '1', '--json');
    assert.deepEqual(codes(oneLine(machine.out)), ['TARGET']);
    assert.equal((await run('verify', '--drift')).code, 0);
  });

  test('answers 1 when a migration fails or the lock stays taken', async () => {
    const { ownerUrl } = await useTestDatabase({ empty: true });
    const run = migrateOn(ownerUrl);
    await run('up', '--to', '2');
    await ask(ownerUrl, 'create function jeex.shares_project(uuid, uuid) returns boolean language sql return true');
    const failed = await run('up');
    assert.equal(failed.code, 1);
    assert.match(failed.err, /migration 003 users failed and was rolled back: .*already exists.*SQLSTATE 42723/);
    assert.equal(JSON.parse((await run('status', '--json')).out).version, 2);
    const holder = new Client({ connectionString: ownerUrl, application_name: 'somebody' });
    await holder.connect();
    try {
      await holder.query('select pg_advisory_lock($1, 2)', [0x6a656578]);
      const waited = await run('up', '--wait', '0');
      assert.equal(waited.code, 1);
      assert.match(waited.err, /waited 0 s for the lock "migrate": held by the session \d+ \(somebody\)/);
    } finally {
      await holder.end();
    }
  });
});
