import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { DatabaseService } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { type Line, newRecord, parseLines, useAccessLog, useFolder, usePipe } from './support/access.ts';
import { clientOf, openChannel } from './support/client.ts';
import { encode, refusedGrpc, sendGrpc, useEcho } from './support/echo.ts';
import { type TestDatabase, useTestDatabase } from './support/postgres.ts';
import { clientsOn, ENCRYPTION_KEY, newUser } from './support/service.ts';
import { type Spawned, spawnService } from './support/spawned.ts';
import { until } from './support/until.ts';

const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const { getUser } = UserService.method;

describe('reads that are counted', () => {
  it('sum up exactly, across seconds', async () => {
    const { accessLog, text } = await useAccessLog({ reads: 'aggregate' });
    const { client } = await useEcho({ 'UserService.getUser': async () => ({}) }, { accessLog });
    const actors = [randomUUID(), randomUUID()] as const;
    const volley = () =>
      Promise.all(
        Array.from({ length: 100 }, (_, i) =>
          sendGrpc(client, getUser, encode(getUser, { id: ID }), {
            'x-actor-id': actors[i % 2] as string,
          }),
        ),
      );
    await volley();
    const second = Math.floor(Date.now() / 1000);
    await until(() => Math.floor(Date.now() / 1000) > second, 'the next second');
    await volley();
    await accessLog.close();
    const lines = parseLines(await text());
    assert.ok(lines.length >= 4 && lines.every(({ kind }) => kind === 'aggregate'));
    const sumOf = (actor: string) =>
      lines.filter((line) => line.actor === actor).reduce((sum, { count }) => sum + Number(count), 0);
    assert.deepEqual(actors.map(sumOf), [100, 100]);
    assert.equal(new Set(lines.map(({ time, actor }) => `${time} ${actor}`)).size, lines.length);
  });
});

describe('a service whose records nobody reads', () => {
  const useUnread = async (full: 'drop' | 'refuse') => {
    const pipe = usePipe(await useFolder());
    const place = { to: pipe.path, own: false };
    const { accessLog } = await useAccessLog({ place, full });
    const { client } = await useEcho({ 'UserService.getUser': async () => ({}) }, { accessLog });
    for (let i = 0; i < 20_000; i++) accessLog.record(newRecord());
    const call = async () => {
      const answered = await sendGrpc(client, getUser, encode(getUser, { id: ID }));
      return answered.error ? refusedGrpc(answered) : null;
    };
    return { accessLog, pipe, call };
  };

  it('goes on where records may be dropped', async () => {
    const { accessLog, pipe, call } = await useUnread('drop');
    for (let i = 0; i < 10; i++) assert.equal(await call(), null);
    pipe.readOn();
    await until(() => pipe.lines().some(({ kind }) => kind === 'dropped'), 'the count of the dropped');
    await accessLog.close();
    const dropped = pipe.lines().find(({ kind }) => kind === 'dropped');
    const access = pipe.lines().filter(({ kind }) => kind === 'access');
    assert.equal(Number(dropped?.count) + access.length, 20_010);
  });

  it('refuses calls where they may not, until somebody reads on', async () => {
    const { accessLog, pipe, call } = await useUnread('refuse');
    const refused = await call();
    assert.deepEqual([refused?.reason, refused?.retry], ['OVERLOADED', true]);
    assert.ok(Number(refused?.pushback) >= 500);
    assert.match(refused?.message ?? '', /on record/);
    pipe.readOn();
    let refusals = 1;
    while ((await call()) !== null) refusals += 1;
    await accessLog.close();
    await until(() => pipe.lines().at(-1)?.result === 'OK', 'the last call');
    const access = pipe.lines().filter(({ kind, result }) => kind === 'access' && result === 'OK');
    const count = pipe.lines().find(({ kind }) => kind === 'refused')?.count;
    assert.deepEqual([access.length, count], [20_001, refusals]);
  });
});

const databaseOf = (db: TestDatabase) => ({
  DATABASE_URL: db.appUrl,
  MIGRATION_DATABASE_URL: db.ownerUrl,
  ENCRYPTION_KEYS: ENCRYPTION_KEY,
});

describe('the service as it is run', { concurrency: true }, () => {
  const linesOnStdout = ({ process }: Spawned) => {
    let text = '';
    process.stdout?.on('data', (chunk) => {
      text += chunk;
    });
    return () => parseLines(text);
  };

  const callOnce = async (service: Spawned): Promise<void> => {
    const channel = openChannel(service.grpc);
    await newUser(clientsOn(channel) as never);
    channel.close();
  };

  const isCall = ({ kind, rpc, result }: Line): boolean =>
    kind === 'access' && rpc === 'jeex.persistence.v1.UserService/CreateUser' && result === 'OK';

  it('puts calls on record on standard output, after the line that it is ready', async () => {
    const service = await spawnService(databaseOf(await useTestDatabase()));
    const lines = linesOnStdout(service);
    await callOnce(service);
    service.process.kill('SIGTERM');
    assert.equal(await service.exited, 0);
    assert.deepEqual(lines().map(isCall), [true]);
  });

  it('puts them into a file where one is configured, also those that its end cuts off', async () => {
    const file = join(await useFolder(), 'access.log');
    const service = await spawnService({ ...databaseOf(await useTestDatabase()), ACCESS_LOG: file });
    const lines = linesOnStdout(service);
    const channel = openChannel(service.grpc);
    const watch = clientOf(DatabaseService, channel).watchHealth()[Symbol.asyncIterator]();
    await watch.next();
    service.process.kill('SIGTERM');
    assert.equal(await service.exited, 0);
    channel.close();
    const results = parseLines(await readFile(file, 'utf8')).map(({ result }) => result);
    assert.deepEqual(results, ['OPENED', 'SHUTTING_DOWN']);
    assert.deepEqual(lines(), []);
  });

  it('keeps them beside the embedded data', async () => {
    const service = await spawnService({}, ['--ephemeral']);
    const ready = () => parseLines(service.log()).find(({ msg }) => msg === 'ready');
    await until(() => ready() !== undefined, 'it says in its log where records go');
    const { records } = ready() as { records: string };
    await callOnce(service);
    await until(() => statSync(records).size > 0, 'the call is on record');
    assert.equal(statSync(records).mode & 0o077, 0);
    assert.deepEqual(parseLines(await readFile(records, 'utf8')).map(isCall), [true]);
    service.process.stdin?.end();
    assert.equal(await service.exited, 0);
    assert.equal(existsSync(records), false);
  });
});
