import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Client, credentials } from '@grpc/grpc-js';
import { type Certification, startCertifying } from '../src/certify/certify.ts';
import type { Promised } from '../src/certify/faults.ts';
import { pageOf, type Verdict } from '../src/certify/report.ts';
import { runCommand } from './support/command.ts';
import { connectAs, useOwner } from './support/postgres.ts';
import { useService } from './support/service.ts';
import { BASE_ENVIRONMENT } from './support/spawned.ts';
import { useIssuer } from './support/tokens.ts';
import { until } from './support/until.ts';

const ENTRY = fileURLToPath(new URL('../src/jeex-persistence.js', import.meta.url));
const service = await useService();
const owner = await useOwner(service.db);
const admin = await connectAs(service.db.adminUrl);
// Breaks what no constraint and no trigger would let anybody break.
await admin.query('set session_replication_role = replica');

/** @param giveUpMs how long a call is tried again */
const certify = (seed: number, giveUpMs = 20_000): Promise<Certification> =>
  startCertifying({
    connect: () => new Client(service.grpc, credentials.createInsecure()),
    seed,
    callers: 6,
    projects: 2,
    watchers: 3,
    retry: { giveUpMs },
  });

/** Works until so many writes more are acknowledged. */
const workOn = async (certification: Certification, writes: number): Promise<void> => {
  const goal = certification.progress().acknowledged + writes;
  await until(() => certification.progress().acknowledged >= goal, `${writes} writes were acknowledged`, 60_000);
};

const brokenIn = ({ promises }: Verdict): readonly Promised[] =>
  promises.filter(({ faults }) => faults > 0).map(({ promise }) => promise);

const leftOf = async (): Promise<unknown> =>
  (
    await owner.query(`select (select count(*) from projects)::int as projects,
      (select count(*) from users where delete_time is null)::int as users`)
  ).rows[0];

describe('a certification', () => {
  it('finds nothing wrong while connections are cut, and leaves nothing', async () => {
    const certification = await certify(11);
    for (let cut = 0; cut < 10; cut++) {
      await workOn(certification, 15);
      await admin.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename = 'jeex_app'`,
        [service.db.name],
      );
    }
    const verdict = await certification.stop();
    assert.deepEqual([brokenIn(verdict), verdict.left], [[], []], pageOf(verdict));
    assert.ok(verdict.acknowledged >= 150 && verdict.events > 0 && verdict.resumed > 0, pageOf(verdict));
    assert.deepEqual(await leftOf(), { projects: 0, users: 0 });
  });

  /** What somebody does behind the service's back to the project $1, and the promise that it breaks. */
  const BROKEN: readonly (readonly [string, string, Promised])[] = [
    ['the row of a version is removed', 'delete from document_versions where project_id = $1 and version = 1', 'row'],
    [
      'a content is altered',
      `update document_bodies set content = 'x' || substr(content, 2)
       where (project_id, sha256) in (select project_id, sha256 from document_bodies where project_id = $1 limit 1)`,
      'content',
    ],
    ['a run is removed', `delete from agent_executions where project_id = $1 and status = 'PENDING'`, 'row'],
    [
      'a run is completed by nobody',
      `update agent_executions set status = 'COMPLETED', complete_time = start_time,
       lease_token = null, lease_expire_time = null where project_id = $1 and status = 'RUNNING'`,
      'row',
    ],
    ['a change is removed', 'delete from changes where project_id = $1 and revision = 7', 'revisionGap'],
    ['an author is altered', `update changes set caller = 'somebody' where project_id = $1 and revision = 8`, 'chain'],
    [
      'a version is taken for the head that is none',
      `update documents set head_version = head_version - 1 where project_id = $1`,
      'stale',
    ],
    [
      'an export is counted twice',
      `update projects set exports = exports + 1, versions = versions - 1 where id = $1`,
      'read',
    ],
  ];
  for (const [what, sql, promise] of BROKEN) {
    it(`names the promise that is broken when ${what}: ${promise}`, async () => {
      // What is broken fails for good: nobody waits long for it.
      const certification = await certify(12, 2_000);
      await workOn(certification, 80);
      const breaks = async () => (await admin.query(sql, [certification.projects[0]])).rowCount !== 0;
      await until(breaks, 'there was something to break');
      await workOn(certification, 20);
      const verdict = await certification.stop();
      assert.ok(brokenIn(verdict).includes(promise), pageOf(verdict));
      assert.equal(verdict.ok, false);
    });
  }

  it('finds what is applied twice where replies are forgotten', async () => {
    await admin.query(`create function forget() returns trigger language plpgsql as 'begin return null; end'`);
    await admin.query('create trigger forget before insert on requests for each row execute function forget()');
    const certification = await certify(13, 2_000);
    await workOn(certification, 150);
    const verdict = await certification.stop();
    await admin.query('drop function forget cascade');
    assert.ok(brokenIn(verdict).includes('twice'), pageOf(verdict));
  });
});

describe('the command', () => {
  it('certifies a temporary service, with exit code 0', async () => {
    const args = ['certify', '--seconds', '3', '--callers', '4', '--projects', '2', '--watchers', '2', '--seed', '3'];
    const { code, out, err } = await runCommand([...args, '--json'], {});
    const { ok, seed, left, acknowledged } = JSON.parse(out) as Verdict;
    assert.deepEqual([code, ok, seed, left], [0, true, 3, []], `${out}\n${err}`);
    assert.ok(acknowledged > 0);
  });

  it('ends with exit code 1 and says what is broken, on a service that keeps no promise', async () => {
    const broken = setInterval(() => void admin.query('delete from document_versions where version = 1'), 100);
    after(() => clearInterval(broken));
    const args = ['certify', '--address', service.grpc, '--seconds', '5', '--callers', '4', '--projects', '2'];
    const { code, out } = await runCommand(args, {});
    clearInterval(broken);
    assert.equal(code, 1, out);
    assert.match(out, /rows missing, or other than recorded \.+ [1-9]/);
    // The first few of them, whichever the load met.
    assert.match(
      out,
      /version 1, recorded at revision \d+, is not there|the manifest of export \d+ names \d+ of \d+ documents/,
    );
    assert.match(out, /NOT CERTIFIED: \d+ of \d+ promises broken/);
  });

  it('judges what ran when it is interrupted', async () => {
    const args = [ENTRY, 'certify', '--address', service.grpc, '--minutes', '10', '--callers', '2', '--projects', '1'];
    const child = spawn(process.execPath, args, { env: BASE_ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
    const out: string[] = [];
    child.stdout.on('data', (text) => out.push(String(text)));
    for await (const line of createInterface({ input: child.stderr })) if (line.includes('calls')) break;
    const exit = once(child, 'exit');
    child.kill('SIGINT');
    assert.deepEqual(await exit, [0, null], out.join(''));
    assert.match(out.join(''), /CERTIFIED: every promise holds/);
  });

  it('is let in by its key, and says what to do without one', async () => {
    const issuer = await useIssuer();
    const guarded = await useService({ db: service.db, env: issuer.env });
    const folder = await mkdtemp(join(tmpdir(), 'certify-'));
    after(() => rm(folder, { recursive: true }));
    const key = join(folder, 'key.json');
    await writeFile(key, JSON.stringify(issuer.key));
    const args = ['certify', '--address', guarded.grpc, '--seconds', '2', '--callers', '2', '--projects', '1'];
    const refused = await runCommand(args, issuer.env);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /the service authenticates its callers: give --key/);
    const { code, out, err } = await runCommand([...args, '--key', key], issuer.env);
    assert.equal(code, 0, out + err);
  });

  it('refuses a number of callers that is none as wrong use', async () => {
    assert.equal((await runCommand(['certify', '--callers', '0'], {})).code, 2);
  });
});
