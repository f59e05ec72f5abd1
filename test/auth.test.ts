import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { JWTPayload } from 'jose';
import { CallerCache } from '../src/auth/caller-cache.ts';
import { printToken, type TokenOptions } from '../src/commands/token.ts';
import { DatabaseService } from '../src/gen/jeex/persistence/v1/database_service_pb.js';
import { callerWith } from './support/access.ts';
import { clientOf } from './support/client.ts';
import { endOf, pathOf, post, refusedGrpc, refusedHttp, sendGrpc, streamGrpc, useEcho } from './support/echo.ts';
import { outcomeOf } from './support/methods.ts';
import { useService } from './support/service.ts';
import { BASE_ENVIRONMENT } from './support/spawned.ts';
import { ask, forgeries, now, RARELY, useAuthenticator, useIssuer } from './support/tokens.ts';

const issuer = await useIssuer();
const INFO = DatabaseService.method.getServerInfo;
const HEALTH = DatabaseService.method.watchHealth;

describe('a token', () => {
  const authenticator = useAuthenticator(issuer, RARELY);
  const callerBy = async (claims: JWTPayload) => await ask(await authenticator, await issuer.token(claims));

  it('says who calls, what it may do, for whom, where, and until when', async () => {
    const [actor, project, exp] = [randomUUID(), randomUUID(), now() + 60];
    assert.deepEqual(await callerBy({ sub: 'agents / writer', scope: 'write read', exp }), {
      name: 'agents / writer',
      scopes: new Set(['read', 'write']),
      actors: null,
      projects: null,
      expires: (exp + 30) * 1000,
    });
    const narrow = await callerBy({ actors: [actor.toUpperCase()], projects: [project], scope: 'openid read  x' });
    assert.ok(typeof narrow === 'object');
    assert.deepEqual([narrow.actors, narrow.projects], [new Set([actor]), new Set([project])]);
    assert.deepEqual(narrow.scopes, new Set(['read']), 'scopes of others mean nothing here');
    const bare = await callerBy({ scope: undefined, actors: [], projects: [], aud: ['x', 'another'] });
    assert.ok(typeof bare === 'object');
    assert.deepEqual([bare.scopes, bare.actors, bare.projects], [new Set(), new Set(), new Set()]);
  });

  const BROKEN: readonly [string, JWTPayload & Record<string, unknown>][] = [
    ['sub', { sub: undefined }],
    ['sub', { sub: '' }],
    ['sub', { sub: 'a\nb' }],
    ['sub', { sub: 'a\u0000' }],
    ['sub', { sub: 'a\u202eb' }],
    ['sub', { sub: ' a' }],
    ['sub', { sub: 'a'.repeat(256) }],
    ['sub', { sub: 7 as unknown as string }],
    ['exp', { exp: undefined }],
    ['exp', { exp: 'tomorrow' as unknown as number }],
    ['iat', { iat: 'now' as unknown as number }],
    ['nbf', { nbf: 'now' as unknown as number }],
    ['scope', { scope: ['read'] }],
    ['scope', { scope: null }],
    ['actors', { actors: 'all' }],
    ['actors', { actors: null }],
    ['actors', { actors: ['not a uuid'] }],
    ['actors', { actors: [1] }],
    ['projects', { projects: {} }],
    ['projects', { projects: [''] }],
  ];
  it('is refused for a claim that is not what it must be', async () => {
    for (const [claim, claims] of BROKEN) {
      assert.match(String(await callerBy(claims)), new RegExp(`claim ${claim} must`), JSON.stringify(claims));
    }
  });

  it('has 30 s of leeway at both ends', async () => {
    assert.equal(typeof (await callerBy({ exp: now() - 25 })), 'object');
    assert.match(String(await callerBy({ exp: now() - 31 })), /expired/);
    for (const claim of ['nbf', 'iat']) {
      assert.equal(typeof (await callerBy({ [claim]: now() + 28 })), 'object');
      assert.match(String(await callerBy({ [claim]: now() + 60 })), /not valid yet/);
    }
  });

  it('is remembered until it ends', async (t) => {
    const { authenticate } = await authenticator;
    const header = await issuer.token({ exp: now() + 60 }).then((token) => () => `bearer ${token}`);
    const first = await authenticate(header);
    assert.equal(authenticate(header), first, 'at once, and the same');
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 80_000 });
    assert.equal(authenticate(header), first);
    t.mock.timers.tick(11_000);
    await assert.rejects(async () => authenticate(header), { reason: 'UNAUTHENTICATED', message: /expired/ });
  });
});

it('whoever calls again and again stays remembered, others are forgotten for newer ones', () => {
  const cache = new CallerCache(4);
  const add = (name: string) => cache.set(name, callerWith(name));
  add('busy');
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    add(name);
    assert.equal(cache.get(name)?.name, name);
    assert.equal(cache.get('busy')?.name, 'busy');
  }
  assert.deepEqual(
    ['a', 'b'].map((name) => cache.get(name)),
    [undefined, undefined],
  );
});

describe('through both doors', () => {
  it('a wrong token is refused and told why, and no log has it', async () => {
    const { authenticate } = await useAuthenticator(issuer, RARELY);
    const echo = await useEcho({ 'DatabaseService.getServerInfo': async () => ({}) }, { authenticate });
    for (const [name, [authorization, message]] of Object.entries(await forgeries(issuer))) {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      const overGrpc = refusedGrpc(await sendGrpc(echo.client, INFO, Buffer.alloc(0), headers));
      const response = await post(echo.http, INFO, '{}', headers);
      assert.deepEqual([response.status, response.headers.get('www-authenticate')], [401, 'Bearer'], name);
      for (const refused of [overGrpc, await refusedHttp(response)]) {
        assert.deepEqual([refused.code, refused.reason, refused.metadata], [16, 'UNAUTHENTICATED', {}], name);
        assert.match(refused.message, message, name);
      }
      const token = authorization?.replace(/^\w+ /, '') ?? '';
      const logged = JSON.stringify(echo.lines);
      for (const part of token.split('.').filter((each) => each.length > 3)) {
        assert.ok(!logged.includes(part), `${name} is in the log`);
      }
    }
    assert.ok(echo.lines.some(({ err }) => (err as { message?: string } | undefined)?.message === 'expired'));
    assert.ok(!JSON.stringify(echo.lines).includes('orchestrator'));
  });

  it('the first of two headers is not taken for the only one', async () => {
    const { authenticate } = await useAuthenticator(issuer, RARELY);
    const echo = await useEcho({ 'DatabaseService.getServerInfo': async () => ({}) }, { authenticate });
    const token = `Bearer ${await issuer.token()}`;
    const status = async (authorization: string | string[]) => {
      const headers: Record<string, string | string[]> = { 'content-type': 'application/json', authorization };
      const sent = request(`${echo.http}${pathOf(INFO)}`, { method: 'POST', headers });
      sent.end('{}');
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      return response.resume().statusCode;
    };
    assert.equal(await status(token), 200);
    assert.equal(await status([token, token]), 401);
  });

  it('a stream ends with its token', { timeout: 20_000 }, async () => {
    const { authenticate } = await useAuthenticator(issuer, RARELY);
    const forever = async function* () {
      yield {};
      await new Promise(() => {});
    };
    const echo = await useEcho({ 'DatabaseService.watchHealth': forever }, { authenticate });
    // What is left of the leeway.
    const authorization = `Bearer ${await issuer.token({ exp: now() - 28 })}`;
    const stream = streamGrpc(echo.client, HEALTH, {}, { authorization });
    const messages: unknown[] = [];
    stream.on('data', (message) => messages.push(message));
    const { reason, message } = refusedGrpc(await endOf(stream));
    assert.deepEqual([reason, message], ['UNAUTHENTICATED', 'the token has expired; call again with a new one']);
    assert.equal(messages.length, 1);
  });
});

describe('the command token', () => {
  const entry = fileURLToPath(new URL('../src/jeex-persistence.js', import.meta.url));
  const dataDir = mkdtempSync(join(tmpdir(), 'jeex-token-'));
  after(() => rmSync(dataDir, { recursive: true }));
  const run = async (...args: string[]) => {
    const env = { ...BASE_ENVIRONMENT, DATA_DIR: dataDir };
    const ended = promisify(execFile)(process.execPath, [entry, 'token', ...args], { env });
    return await ended.then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      ({ code, stdout, stderr }) => ({ code, stdout, stderr }) as { code: number; stdout: string; stderr: string },
    );
  };

  it('makes keys once, and tokens that a service with them takes', async () => {
    const first = await run('--sub', 'orchestrator', '--scope', 'read write');
    assert.match(first.stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    const [, jwks = '', name = ''] = /AUTH_JWKS=(\S+) AUTH_ISSUER=(\S+) npm start/.exec(first.stderr) ?? [];
    assert.equal(statSync(join(dataDir, 'auth', 'key.json')).mode & 0o777, 0o600);
    const second = await run('--sub', 'agents', '--scope', 'read', '--ttl', '5m', '--json');
    const told = JSON.parse(second.stdout);
    assert.deepEqual([told.jwks, told.issuer, told.audience], [jwks, name, 'jeex-persistence']);

    const service = await useService({ env: { AUTH_JWKS: jwks, AUTH_ISSUER: name } });
    const client = clientOf(DatabaseService, service.channel);
    const call = (token: string) => client.getServerInfo({}, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(await outcomeOf(call(first.stdout.trim())), 'OK');
    assert.equal(await outcomeOf(call(told.token)), 'OK');
    assert.equal(await outcomeOf(client.getServerInfo({})), 'UNAUTHENTICATED');
    const signed = await run('--sub', 'x', '--scope', '', '--json', '--key', join(dataDir, 'auth', 'key.json'));
    assert.equal(await outcomeOf(call(JSON.parse(signed.stdout).token)), 'OK');
  });

  it('says what is wrong with its use', async () => {
    const fine: TokenOptions = { sub: 'a', scope: 'read', ttl: '1h' };
    const WRONG: readonly [Partial<TokenOptions>, RegExp][] = [
      [{ sub: 'a\nb' }, /^--sub: expected/],
      [{ scope: 'reed' }, /^--scope: there is no scope reed; expected some of read write/],
      [{ actors: 'me' }, /^--actors: expected UUIDs/],
      [{ projects: '' }, /^--projects: expected UUIDs/],
      [{ ttl: '2y' }, /^--ttl: expected/],
      [{ ttl: '366d' }, /^--ttl: expected/],
      [{ key: join(dataDir, 'auth', 'jwks.json') }, /holds no private key/],
    ];
    for (const [options, message] of WRONG) {
      const wrong = (said: string) => assert.fail(said);
      await assert.rejects(printToken({ ...fine, ...options }, wrong), { message });
    }
    const { code, stdout, stderr } = await run('--sub', 'a', '--scope', 'reed');
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, /^error: --scope: there is no scope reed/);
  });
});
