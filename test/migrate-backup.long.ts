import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { type Embedded, startEmbedded } from '../src/db/embedded.ts';
import { requireBackup } from '../src/migrator/backup.ts';
import { connectAs } from './support/postgres.ts';
import { prepareServer } from './support/server.ts';

const GUARD = {
  destructive: [{ version: 21, name: 'one_name', reason: 'second names' }],
  haveBackup: false,
  embedded: false,
};

/** A server of one's own that archives, as one in production does: the record of backups is the whole server's. */
const startArchiving = async (): Promise<Embedded> => {
  const above = mkdtempSync(join(tmpdir(), 'jeex-archiving-'));
  chmodSync(above, 0o711);
  after(() => rmSync(above, { recursive: true }));
  const start = () => startEmbedded({ dataDir: join(above, 'data'), log: { info: () => {} } });
  const first = await start();
  const admin = await connectAs(first.adminUrl);
  await admin.query('alter system set archive_mode = on');
  await admin.query(`alter system set archive_command = 'exit 0'`);
  await first.stop();
  const second = await start();
  after(second.stop);
  return second;
};

suite('a base backup', async () => {
  const { adminUrl, folder } = await startArchiving();
  const passwords = { owner: 'owner', app: 'app', backup: 'backup' };
  const db = await prepareServer(adminUrl, passwords);
  const owner = await connectAs(db.ownerUrl);
  const tool = await connectAs(db.urlAs('backup'));
  await owner.query(
    `insert into users (email, name, caller, correlation_id) values ('a@b.c', 'A', 'x', gen_random_uuid())`,
  );

  /** What pgBackRest, pg_basebackup and volume snapshots end with. */
  const backUp = async (): Promise<void> => {
    await tool.query(`select pg_backup_start('test', fast => true)`);
    await assert.rejects(requireBackup(owner, GUARD), 'it has not ended');
    await tool.query('select pg_backup_stop(wait_for_archive => false)');
  };
  const wal = join(folder, 'postgres', 'pg_wal');
  const records = () => readdirSync(wal).filter((name) => name.endsWith('.backup'));

  test('that never ended is none', async () => {
    await assert.rejects(requireBackup(owner, GUARD), /no record of a base backup/);
  });

  test('lets a destructive migration run for an hour from its end', async () => {
    await backUp();
    await requireBackup(owner, GUARD);
    for (const name of records()) utimesSync(join(wal, name), new Date(), new Date(Date.now() - 61 * 60_000));
    await assert.rejects(requireBackup(owner, GUARD), /the last base backup ended at \S+Z, which is 1 h 1 min ago\n/);
  });

  test('after another counts in its place', async () => {
    await backUp();
    await requireBackup(owner, GUARD);
  });
});
