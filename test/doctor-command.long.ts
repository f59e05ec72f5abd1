import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { Result } from '../src/doctor/check.ts';
import { createLog } from '../src/log.ts';
import { runCommand } from './support/command.ts';
import { useTestDatabase } from './support/postgres.ts';
import { ENCRYPTION_KEY, useService } from './support/service.ts';
import { spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

const db = await useTestDatabase();
const ENV = { DATABASE_URL: db.appUrl, MIGRATION_DATABASE_URL: db.ownerUrl, ENCRYPTION_KEYS: ENCRYPTION_KEY };

describe('`jeex-persistence doctor`', () => {
  it('answers 1 and one JSON document, without passwords, when a check has failed', async () => {
    const { code, out, err } = await runCommand(['doctor', '--json'], { ...ENV, GRPC_LISTEN: '0.0.0.0:50051' });
    const { ok, database, checks } = JSON.parse(out) as { ok: boolean; database: string; checks: readonly Result[] };
    assert.deepEqual([code, err, ok], [1, '', false]);
    assert.match(database, new RegExp(`^PostgreSQL [^@]+/${db.name}$`));
    const [environment] = checks;
    assert.deepEqual([environment?.name, environment?.status], ['environment', 'failed']);
    assert.match(environment?.faults[0]?.says ?? '', /^GRPC_LISTEN: expected a loopback address/);
    for (const secret of [new URL(db.appUrl).password, new URL(db.ownerUrl).password, '5e5e5e'])
      assert.ok(!out.includes(secret));
  });

  it('answers 0 on the embedded database, also while a service uses it, and says what it leaves out', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'jeex-doctor-'));
    after(() => rmSync(folder, { recursive: true }));
    const DATA_DIR = join(folder, 'data');
    await spawnService({ DATA_DIR });
    const { code, out, err } = await runCommand(['doctor'], { DATA_DIR });
    assert.deepEqual([code, err], [0, ''], out);
    assert.match(out, /^Doctor of embedded PostgreSQL 18 of process \d+ on 127\.0\.0\.1:\d+, data in /);
    assert.match(out, /\n {2}ok {4}row-level security +forced on every tenant table\n/);
    assert.match(out, /\n {2}skip {2}archive +the embedded PostgreSQL has none\n/);
    assert.match(out, /\nWELL: of \d+ checks \d+ ok, 0 warning, 0 failed, \d+ skipped\.\n$/);
  });

  it('answers 2 to wrong use', async () => {
    assert.equal((await runCommand(['doctor', '--nonsense'], ENV)).code, 2);
  });
});

describe('the start of a service', () => {
  const startWith = async (env: Readonly<Record<string, string>>) => {
    const lines: Record<string, unknown>[] = [];
    const log = createLog('warn', { write: (line) => void lines.push(JSON.parse(line)) });
    const service = await useService({ db, env, log });
    return { service, lines };
  };

  it('says nothing of pools that fit', async () => {
    const { service, lines } = await startWith({});
    await service.stop();
    assert.deepEqual(lines, []);
  });

  it('warns of pools that do not fit, once, and how to mend it; the service serves', async () => {
    const { service, lines } = await startWith({ MAX_REPLICAS: '50' });
    assert.equal((await service.database.getDatabaseHealth({})).health?.pgbouncerPools.length, 0);
    await service.stop();
    assert.equal(lines.length, 1);
    assert.match(String(lines[0]?.msg), /^the pools do not fit: .*50 × \(10 \+ 2\)/);
    assert.match(String(lines[0]?.mend), /^lower MAX_REPLICAS to \d+, or/);
  });

  it('warns of a PgBouncer that cannot be asked, once, however often it is; its pools are known to nobody', async () => {
    let asked = 0;
    const nobody = createServer((socket) => {
      asked += 1;
      socket.destroy();
    }).listen(0, '127.0.0.1');
    after(() => nobody.close());
    await once(nobody, 'listening');
    const { port } = nobody.address() as AddressInfo;
    const url = `postgres://jeex_monitor:x@127.0.0.1:${port}/pgbouncer`;
    const { service, lines } = await startWith({ PGBOUNCER_ADMIN_URL: url });
    const poolsOf = async () => (await service.database.getDatabaseHealth({})).health?.pgbouncerPools;
    await until(async () => {
      assert.deepEqual(await poolsOf(), []);
      return asked >= 3;
    }, 'it was asked at the start and twice for the health');
    await service.stop();
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      ['PgBouncer cannot be asked, so its pools are not compared', "PgBouncer's pools are not known"],
    );
    assert.match(String(lines[0]?.reason), /127\.0\.0\.1:\d+ has closed the connection/);
  });
});
