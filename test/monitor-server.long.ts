import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import type { DatabaseHealth } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { look } from '../src/monitor/look.ts';
import { createSession } from '../src/monitor/session.ts';
import { connectAs } from './support/postgres.ts';
import { useRestartable } from './support/restartable.ts';
import { useService } from './support/service.ts';
import { useStandby } from './support/standby.ts';
import { until } from './support/until.ts';

const microsOf = (time: Timestamp | undefined): bigint | null =>
  time === undefined ? null : time.seconds * 1_000_000n + BigInt(time.nanos / 1000);

suite('what a server of one’s own tells is what is read of it another way', async () => {
  const server = await useRestartable();
  await (await connectAs(server.adminUrl)).query('alter system set archive_mode = on');
  const standby = await useStandby(server, 'standby_one');
  const admin = await connectAs(server.adminUrl);
  const ask = async (sql: string) => (await admin.query(sql)).rows[0];
  const db = { ...server, name: 'jeex', urlAs: () => server.monitorUrl, drop: async () => {} };
  const service = await useService({ db });

  const healthNow = async (): Promise<DatabaseHealth> =>
    (await service.database.getDatabaseHealth({})).health ?? assert.fail('no health');
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`http://${service.http}/metrics`)).text();
    return Number(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'm').exec(text)?.[1]);
  };
  const archiveBy = async (command: string) => {
    await ask(`alter system set archive_command = '${command}'`);
    await ask('select pg_reload_conf()');
    await ask(`select pg_logical_emit_message(true, 'test', '')`);
    await ask('select pg_switch_wal()');
  };
  /** Waits until the health and a superuser say the same of the archiver, and it is what it should be. */
  const untilArchiver = async (is: (row: { fails: boolean; archived_count: string }) => boolean, what: string) =>
    await until(async () => {
      const { walArchiving } = await healthNow();
      const row = await ask(
        `select archived_count, failed_count, last_archived_wal, extract(epoch from last_archived_time) * 1000000 as archived,
           extract(epoch from last_failed_time) * 1000000 as failed,
           coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) as fails
         from pg_stat_archiver`,
      );
      const said = [
        walArchiving?.archivedCount,
        walArchiving?.failedCount,
        walArchiving?.lastArchivedWal || null,
        microsOf(walArchiving?.lastArchivedTime),
        microsOf(walArchiving?.lastFailedTime),
      ];
      const read = [row.archived_count, row.failed_count, row.last_archived_wal, row.archived, row.failed];
      const texts = (values: unknown[]) => values.map((value) => (value === null ? null : String(value).split('.')[0]));
      return is(row) && JSON.stringify(texts(said)) === JSON.stringify(texts(read));
    }, what);

  test('of archiving: what is archived, what fails, and for how long', async () => {
    assert.equal((await healthNow()).walArchiving?.enabled, true);
    await archiveBy('true');
    await untilArchiver((row) => Number(row.archived_count) > 0 && !row.fails, 'it archives');
    assert.equal(await metric('postgresql_wal_archive_failing_time'), 0);
    await archiveBy('false');
    await untilArchiver((row) => row.fails, 'it fails');
    await until(async () => {
      await healthNow();
      return (await metric('postgresql_wal_archive_failing_time')) > 2;
    }, 'the time that it has failed grows');
    await archiveBy('true');
    await untilArchiver((row) => !row.fails, 'it archives again');
    assert.equal(await metric('postgresql_wal_archive_failing_time'), 0);
  });

  test('of the last base backup: when its record was written', async () => {
    assert.equal((await healthNow()).lastBackup, undefined);
    await ask(`select pg_backup_start('test', fast => true)`);
    await ask('select pg_backup_stop(wait_for_archive => false)');
    await until(async () => (await healthNow()).lastBackup !== undefined, 'it is told');
    const { data_directory: folder } = await ask('show data_directory');
    const wal = join(folder, 'pg_wal');
    const [record = ''] = readdirSync(wal).filter((name) => name.endsWith('.backup'));
    const { lastBackup } = await healthNow();
    assert.equal(Number(lastBackup?.completeTime?.seconds), Math.floor(statSync(join(wal, record)).mtimeMs / 1000));
    assert.equal(lastBackup?.succeeded, true);
  });

  test('of replicas: one that streams, and a slot that waits for one, with its lag', async () => {
    const only = async () => {
      const { replicas } = await healthNow();
      assert.equal(replicas.length, 1);
      return replicas[0];
    };
    const missing = await only();
    assert.deepEqual([missing?.name, missing?.state, missing?.synchronous], ['standby_one', 'disconnected', false]);
    await ask(`select pg_logical_emit_message(true, 'test', repeat('x', 1000000))`);
    const lag = `select pg_current_wal_lsn() - restart_lsn as lag, (select pg_current_wal_lsn()) as now from pg_replication_slots`;
    await until(async () => {
      const before = Number((await ask(lag)).lag);
      const told = Number((await only())?.lagBytes);
      return before > 1_000_000 && told >= before && told <= Number((await ask(lag)).lag);
    }, 'the lag is that of the slot');
    assert.equal(await metric('postgresql_replication_replicas_missing'), 1);

    await standby.start();
    await until(async () => (await only())?.state === 'streaming', 'it streams');
    await until(async () => {
      const row = await ask(
        'select application_name, state, pg_current_wal_lsn() - replay_lsn as lag from pg_stat_replication',
      );
      const { name, state, lagBytes } = (await only()) ?? {};
      return name === row.application_name && state === row.state && lagBytes === 0n && row.lag === '0';
    }, 'it has replayed all');
    assert.equal(await metric('postgresql_replication_replicas_missing'), 0);
  });

  test('also while it is itself a replica, which has replicas of its own at most', async () => {
    const { host, port, user, password } = (await standby.connect()) as unknown as Record<string, string>;
    const session = createSession(`postgres://${user}:${password}@${encodeURIComponent(String(host))}:${port}/jeex`);
    const { server: seen, counters } = await look(session, 1000);
    assert.deepEqual([seen.replicas, seen.postgresVersion.split('.')[0]], [[], '18']);
    assert.ok(counters.transactions > 0n && seen.databaseSizeBytes > 0n);
    await session.end();
    await standby.stop();
  });

  test('after it was started again: rates begin anew', async () => {
    await until(async () => (await healthNow()).transactionsPerSecond !== undefined, 'there are rates');
    await admin.end();
    await server.stop('immediate');
    await server.start();
    const started = BigInt(Date.now()) * 1000n;
    await until(async () => {
      const { checkTime, postgresVersion } = await healthNow();
      return (microsOf(checkTime) ?? 0n) > started && postgresVersion !== '';
    }, 'it answers the monitor');
    await until(async () => {
      const { transactionsPerSecond: rate, queriesPerSecond: queries } = await healthNow();
      assert.ok((rate ?? 0) >= 0 && (queries ?? 0) >= 0);
      return rate !== undefined && rate > 0;
    }, 'there are rates again');
  });
});
