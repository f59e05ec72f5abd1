import assert from 'node:assert/strict';
import { chownSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { z } from 'zod';
import { loadConfig } from '../src/config.ts';
import { createDatabase } from '../src/db/pool.ts';
import { provideDatabase } from '../src/db/provide.ts';
import { sql, statement } from '../src/db/statement.ts';
import { createAuthority, useSecret } from './support/certificates.ts';
import { connectAs } from './support/postgres.ts';
import { until } from './support/until.ts';

const session = statement({
  name: 'test.session',
  params: {},
  row: z.object({ ssl: z.boolean(), version: z.string() }),
  sql: () => sql.fragment`select ssl, version from pg_stat_ssl where pid = pg_backend_pid()`,
});
const nap = statement({
  name: 'test.tls_nap',
  params: {},
  row: z.object({}),
  sql: () => sql.fragment`select pg_sleep(60) is null as tls_nap`,
});

const database = await provideDatabase(loadConfig({}), { ephemeral: true, log: { info: () => {} } });
after(() => database.stop());
const admin = await connectAs(database.adminUrl ?? '');
const authority = await createAuthority('the authority');
const other = await createAuthority('another authority');

/** Gives the server a certificate for 127.0.0.1. */
const serveTls = async (): Promise<void> => {
  const { cert, key } = await authority.issue({ usage: 'server' });
  const cluster = join(database.folder ?? '', 'postgres');
  const { uid, gid } = statSync(cluster);
  for (const [name, text] of [
    ['server.crt', cert],
    ['server.key', key],
  ] as const) {
    writeFileSync(join(cluster, name), text, { mode: 0o600 });
    chownSync(join(cluster, name), uid, gid);
  }
  await admin.query('alter system set ssl = on');
  await admin.query('select pg_reload_conf()');
  await until(async () => (await admin.query('show ssl')).rows[0].ssl === 'on', 'TLS is on');
};

const databaseWith = async (search: string) => {
  const db = await createDatabase({ url: `${database.appUrl}?${search}`, size: 1 });
  after(() => db.end());
  return db;
};

const asleep = async (): Promise<boolean> =>
  (
    await admin.query(
      `select from pg_stat_activity where query like '%tls_nap%' and state = 'active' and pid <> pg_backend_pid()`,
    )
  ).rowCount === 1;

describe('TLS to PostgreSQL', () => {
  it('is 1.3, verifies the server, and cancels statements over it', async () => {
    await serveTls();
    const { pathOf } = await useSecret({ 'ca.crt': authority.cert, 'other.crt': other.cert });
    const db = await databaseWith(`sslmode=verify-full&sslrootcert=${pathOf('ca.crt')}`);
    assert.deepEqual(await db.run(session, {}), [{ ssl: true, version: 'TLSv1.3' }]);

    const call = new AbortController();
    const sleeping = db.run(nap, {}, call);
    await until(asleep, 'the statement runs');
    call.abort(new Error('no longer wanted'));
    await assert.rejects(sleeping, { reason: 'DEADLINE' });
    await until(async () => !(await asleep()), 'the statement has ended');

    const stranger = await databaseWith(`sslmode=verify-full&sslrootcert=${pathOf('other.crt')}`);
    await assert.rejects(stranger.run(session, {}), { reason: 'DATABASE_UNAVAILABLE' });
  });

  it('refuses a server that speaks no 1.3', async () => {
    await admin.query(`alter system set ssl_max_protocol_version = 'TLSv1.2'`);
    await admin.query('select pg_reload_conf()');
    const old = await databaseWith('sslmode=no-verify');
    await until(
      async () => (await admin.query('show ssl_max_protocol_version')).rows[0].ssl_max_protocol_version === 'TLSv1.2',
      'the server is old',
    );
    await assert.rejects(old.run(session, {}), { reason: 'DATABASE_UNAVAILABLE' });
  });
});
