import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { startAuthenticator } from '../src/auth/authenticator.ts';
import { keySetOf, makeKey } from '../src/auth/development.ts';
import { ask, newLog, RARELY, useAuthenticator, useIssuer } from './support/tokens.ts';
import { until } from './support/until.ts';

const issuer = await useIssuer();

describe('keys in a file', () => {
  it('come and go without a restart', async () => {
    const authenticator = await useAuthenticator(issuer, { everyMs: 20 });
    const next = await makeKey();
    const [old, fresh] = [await issuer.token(), await issuer.token({}, next)];
    assert.match(String(await ask(authenticator, fresh)), /not \(or no longer\)/);
    assert.equal(typeof (await ask(authenticator, old)), 'object');
    issuer.publish(issuer.key, next);
    await until(() => authenticator.lines.length === 1, 'the new key is read');
    assert.equal(typeof (await ask(authenticator, old)), 'object');
    assert.equal(typeof (await ask(authenticator, fresh)), 'object');
    issuer.publish(next);
    await until(() => authenticator.lines.length === 2, 'the old key is gone');
    assert.match(String(await ask(authenticator, old)), /not \(or no longer\)/, 'though it was remembered');
    assert.equal(typeof (await ask(authenticator, fresh)), 'object');
    issuer.publish(issuer.key);
  });

  it('are read at once for a token that names one that is not there', async () => {
    const authenticator = await useAuthenticator(issuer, { ...RARELY, cooldownMs: 0 });
    const next = await makeKey();
    issuer.publish(issuer.key, next);
    assert.equal(typeof (await ask(authenticator, await issuer.token({}, next))), 'object');
    issuer.publish(issuer.key);
  });

  it('stay in force while the file is broken, and the log says so once', async () => {
    const authenticator = await useAuthenticator(issuer, { ...RARELY, cooldownMs: 0 });
    const stranger = await issuer.token({}, await makeKey());
    for (const text of ['{', '{"keys":[{"kty":"oct","k":"AAAA"}]}', JSON.stringify({ keys: [issuer.key] })]) {
      writeFileSync(issuer.jwksFile, text);
      assert.match(String(await ask(authenticator, stranger)), /not \(or no longer\)/);
      assert.equal(typeof (await ask(authenticator, await issuer.token())), 'object');
    }
    assert.deepEqual(
      authenticator.lines.map(({ level }) => level),
      ['warn'],
    );
    issuer.publish(issuer.key);
    await ask(authenticator, stranger);
    assert.deepEqual(
      authenticator.lines.map(({ level }) => level),
      ['warn', 'info'],
    );
  });

  it('are all refused when none is left', async () => {
    const authenticator = await useAuthenticator(issuer, { everyMs: 20 });
    issuer.publish();
    await until(() => authenticator.lines.length === 1, 'the keys are gone');
    assert.match(String(await ask(authenticator, await issuer.token())), /not \(or no longer\)/);
    issuer.publish(issuer.key);
  });

  it('without a name verify tokens without one, when just one could', async () => {
    const nameless = ({ kid, ...rest }: JWK): JWK => rest;
    const [one, two] = [nameless(await makeKey()), nameless(await makeKey())];
    issuer.publish(one);
    const authenticator = await useAuthenticator(issuer, { everyMs: 20 });
    const token = await issuer.token({}, one);
    assert.equal(typeof (await ask(authenticator, token)), 'object');
    issuer.publish(one, two);
    await until(() => authenticator.lines.length === 1, 'the second key is read');
    assert.match(String(await ask(authenticator, token)), /kid/);
    issuer.publish(issuer.key);
  });

  it('that cannot be used keep the service from starting, and it says why', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'jeex-keys-'));
    after(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'jwks.json');
    const { d: _, ...publicKey } = issuer.key;
    const weak = await exportJWK((await generateKeyPair('RS256', { extractable: true })).publicKey);
    const BAD: readonly [string | null, RegExp][] = [
      [null, /ENOENT/],
      ['', /no JSON Web Key Set/],
      ['[]', /no JSON Web Key Set/],
      ['{"keys":[]}', /no public key/],
      [JSON.stringify({ keys: Array.from({ length: 101 }, () => publicKey) }), /at most 100/],
      [JSON.stringify({ keys: [publicKey], padding: 'x'.repeat(300_000) }), /larger than/],
      [JSON.stringify({ keys: [publicKey, issuer.key] }), /keys\[1\] is a private key/],
      [JSON.stringify({ keys: [{ kty: 'oct', k: 'c2VjcmV0' }] }), /keys\[0\] is a symmetric key/],
      [JSON.stringify({ keys: [{ ...publicKey, use: 'enc' }] }), /no public key/],
      [JSON.stringify({ keys: [{ ...weak, n: weak.n?.slice(0, 171) }] }), /no public key/],
      [JSON.stringify({ keys: [{ kty: 'new', x: 'y' }] }), /no public key/],
    ];
    for (const [text, message] of BAD) {
      if (text !== null) writeFileSync(file, text);
      await assert.rejects(startAuthenticator({ ...issuer.auth, jwks: file }, newLog().log), ({ message: said }) => {
        assert.match(said, message);
        assert.match(said, /^AUTH_JWKS: /);
        assert.ok(!said.includes(issuer.key.d), 'it repeats no key');
        return true;
      });
    }
  });
});

describe('keys behind a URL', () => {
  const serve = async () => {
    const state = { status: 200, body: keySetOf([issuer.key]), asked: 0 };
    const server = createServer(({ url }, response) => {
      state.asked += 1;
      if (url === '/elsewhere') response.end(state.body);
      else response.writeHead(state.status, { location: '/elsewhere' }).end(state.body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    after(() => server.close().closeAllConnections());
    return { state, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks?tenant=secret` };
  };

  it('stay in force while it is down, and forged names of keys do not make it a storm of requests', async () => {
    const { state, url } = await serve();
    const authenticator = await useAuthenticator(issuer, { ...RARELY, cooldownMs: 0 }, url);
    const next = await makeKey();
    const [old, fresh] = [await issuer.token(), await issuer.token({}, next)];
    const good = keySetOf([next]);
    for (const broken of [{ status: 503 }, { status: 302 }, { body: '<html>' }]) {
      Object.assign(state, { status: 200, body: good, ...broken });
      assert.match(String(await ask(authenticator, fresh)), /not \(or no longer\)/);
      assert.equal(typeof (await ask(authenticator, old)), 'object');
    }
    Object.assign(state, { status: 200, body: good });
    assert.equal(typeof (await ask(authenticator, fresh)), 'object');
    assert.match(String(await ask(authenticator, old)), /not \(or no longer\)/);
    assert.deepEqual(
      authenticator.lines.map(({ level }) => level),
      ['warn', 'info', 'info'],
    );
    assert.ok(!JSON.stringify(authenticator.lines).includes('tenant'), 'a query may be a secret');

    const patient = await useAuthenticator(issuer, RARELY, url);
    const asked = state.asked;
    const forged = await Promise.all(Array.from({ length: 50 }, async () => issuer.token({}, await makeKey())));
    await Promise.all(forged.map((token) => ask(patient, token)));
    assert.equal(state.asked, asked, 'it was read a moment ago');
  });

  it('keep the service from starting when they cannot be had', async () => {
    const { state, url } = await serve();
    const start = (jwks: string) => startAuthenticator({ ...issuer.auth, jwks }, newLog().log);
    state.status = 404;
    await assert.rejects(start(url), /^Error: AUTH_JWKS: http:\/\/127\.0\.0\.1:\d+\/jwks cannot be used: .*404/);
    Object.assign(state, { status: 200, body: 'x'.repeat(300_000) });
    await assert.rejects(start(url), /larger than/);
    await assert.rejects(start('http://127.0.0.1:1/jwks'), /AUTH_JWKS: http:\/\/127\.0\.0\.1:1\/jwks cannot be used/);
    await assert.rejects(start('https://user:password@example.org/'), /AUTH_JWKS must not hold/);
  });
});
