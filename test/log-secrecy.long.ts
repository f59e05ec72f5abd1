import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { DescMethod } from '@bufbuild/protobuf';
import { keySetOf, makeKey, mint } from '../src/auth/development.ts';
import { openChannel } from './support/client.ts';
import { sendGrpc } from './support/echo.ts';
import { newWorld, useExamples } from './support/examples.ts';
import { placesOf, withValue } from './support/fields.ts';
import { type Fields, METHODS } from './support/methods.ts';
import { spawnWithCluster } from './support/own-cluster.ts';
import { connectAs } from './support/postgres.ts';
import { binaryOf } from './support/raw.ts';
import { clientsOn, type TestService } from './support/service.ts';

const folder = mkdtempSync(join(tmpdir(), 'jeex-keys-'));
after(() => rmSync(folder, { recursive: true }));
const AUTH_JWKS = join(folder, 'jwks.json');
const key = await makeKey();
writeFileSync(AUTH_JWKS, keySetOf([key]));

const { spawned, database } = await spawnWithCluster({ AUTH_JWKS, AUTH_ISSUER: 'test', LOG_LEVEL: 'trace' });
const admin = await connectAs(database.adminUrl ?? '');
const app = await connectAs(database.appUrl);
const owner = await connectAs(database.migrationUrl);

const token = (scope: string, ttlSeconds = 600) => {
  const now = Math.floor(Date.now() / 1000);
  return mint(key, { iss: 'test', aud: 'jeex-persistence', sub: 'tester', scope, iat: now, exp: now + ttlSeconds });
};
const good = await token('read write system monitor admin');
const tokens = [good, await token('read'), await token('write', -600), `${good.slice(0, -8)}AAAAAAAA`];
const channel = openChannel(spawned.grpc, { authorization: `Bearer ${good}` });
after(() => channel.close());
const service = { ...clientsOn(channel), channel } as unknown as TestService;

const examples = useExamples(service);

/** Stands in every text that a caller can send. */
const MARK = `mark${randomUUID().replaceAll('-', '')}`;

/** Sends a call with the mark in each of its texts in turn; whether it is taken or refused, somebody logs it. */
const sendMarked = async (method: DescMethod): Promise<void> => {
  const { request, options } = await examples(method);
  const headers: Record<string, string> = options.actor === undefined ? {} : { 'x-actor-id': options.actor };
  const marked = placesOf(method.input)
    .filter(({ kind }) => kind === 'text' || kind === 'uuid')
    .map(({ path, keys }) => withValue(request as Fields, keys, path.endsWith('email') ? `${MARK}@example.org` : MARK));
  const everywhere = { ...(request as Fields), profile: { [MARK]: MARK }, metadata: { [MARK]: MARK } };
  const requests = [request as Fields, ...marked, everywhere];
  for (const each of requests) {
    await sendGrpc(channel, method, binaryOf(method, { requestId: randomUUID(), ...each }), headers);
  }
  for (const header of ['x-actor-id', 'x-correlation-id', 'traceparent']) {
    await sendGrpc(channel, method, binaryOf(method, request as Fields), { ...headers, [header]: MARK });
  }
};

/** Errors whose DETAIL holds the row or the key, for both of the service's roles. */
const provokeDetails = async (): Promise<void> => {
  const { projectId } = await newWorld(service);
  const call = [null, 'tester', randomUUID(), 'x', null, null, null];
  await app.query('begin');
  await app.query('select enter_project($1, null, $2)', [projectId, 'owner']);
  const body = 'insert into document_bodies (project_id, sha256, content, size_bytes) values ($1, $2, $3, 1)';
  await assert.rejects(app.query(body, [projectId, Buffer.alloc(32), MARK]), { code: '23514' });
  await app.query('rollback');
  const user = `insert into users (email, name, caller, correlation_id) values ($1, $2, $3, $4)`;
  const values = [`twice-${MARK}@example.org`, MARK, call[1], call[2]];
  await owner.query(user, values);
  await assert.rejects(owner.query(user, values), { code: '23505' });
};

/** Everything that was logged, by its place. */
const logs = (): Record<string, string> => {
  const data = database.folder ?? '';
  const files = readdirSync(data).filter((name) => name.endsWith('.log'));
  return {
    'standard error': spawned.log(),
    ...Object.fromEntries(files.map((name) => [name, readFileSync(join(data, name), 'utf8')])),
  };
};

const secretsOf = (value: unknown): string[] =>
  typeof value === 'string'
    ? value.split(/[,:]/).filter((part) => part.length > 15)
    : Object.values(value ?? {}).flatMap(secretsOf);

describe('the logs of the service and of PostgreSQL, at every level', () => {
  it('hold no token, password, key, content or e-mail', async () => {
    for (const [name, value] of [
      ['log_min_messages', 'debug5'],
      ['log_statement', 'all'],
      ['log_min_duration_statement', '0'],
      ['log_connections', 'all'],
    ]) {
      await admin.query(`alter system set ${name} = '${value}'`);
    }
    await admin.query('select pg_reload_conf()');
    for (const method of METHODS.filter(({ methodKind }) => methodKind === 'unary')) await sendMarked(method);
    for (const each of tokens) {
      const [method] = METHODS as [DescMethod];
      const bare = openChannel(spawned.grpc);
      for (const scheme of ['Bearer', 'Basic']) {
        await sendGrpc(bare, method, binaryOf(method, {}), { authorization: `${scheme} ${each}` });
      }
      bare.close();
    }
    await provokeDetails();
    await admin.query('alter system reset all');

    const found = logs();
    assert.match(found['postgres.log'] ?? '', /create_user\(.*\$1/s, 'statements are logged');
    assert.match(found['postgres.log'] ?? '', /violates check constraint/, 'errors are logged');
    assert.match(found['standard error'] ?? '', /"code":"OK"/, 'calls are logged');
    assert.match(found['access.log'] ?? '', /CreateUser/, 'calls are on record');
    const signatures = tokens.map((each) => each.split('.')[2] ?? '');
    const secrets = [MARK, ...tokens, ...signatures, String(key.d), ...secretsOf(database.secrets)];
    for (const [place, text] of Object.entries(found)) {
      for (const secret of secrets) {
        const line = text.split('\n').find((each) => each.toLowerCase().includes(secret.toLowerCase()));
        assert.equal(line, undefined, `${place} holds ${secret.slice(0, 8)}…`);
      }
    }
  });
});
