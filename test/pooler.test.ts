import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { Client } from 'pg';
import { connectAs, testCluster, useTestDatabase } from './support/postgres.ts';

/** What a client knows of its own connection, and does not tell. */
interface Inside {
  readonly processID: number;
  readonly connection: { readonly stream: TLSSocket };
}

const inside = (client: Client): Inside => client as unknown as Inside;

it('services reach the database through PgBouncer and TLS in a run that has it, and directly in any other', async () => {
  const db = await useTestDatabase();
  const app = await connectAs(db.appUrl);
  const session = `select pid, version from pg_stat_ssl where pid = pg_backend_pid()`;
  const { pid, version } = (await app.query(session)).rows[0];
  const { processID, connection } = inside(app);
  if (testCluster().pooler === null) {
    assert.equal(processID, pid);
    return;
  }
  assert.notEqual(processID, pid, 'PgBouncer numbers its clients by itself');
  assert.deepEqual([connection.stream.getProtocol(), version], ['TLSv1.3', 'TLSv1.3']);
  const direct = await connectAs(db.urlAs('app'));
  assert.equal(inside(direct).processID, (await direct.query(session)).rows[0].pid);
});
