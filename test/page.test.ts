import assert from 'node:assert/strict';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { pageRoutes } from '../src/page/page.ts';
import { Refusal } from '../src/refusal.ts';
import { pathOf, useEcho } from './support/echo.ts';
import { authority, useTls } from './support/tls.ts';

const answers = { 'UserService.batchGetUsers': async () => ({ users: [] }) };
const METHOD = pathOf(UserService.method.batchGetUsers);
const routes = pageRoutes();
const { http } = await useEcho(answers, { routes });

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Sends headers that `fetch` would not: Host, and any Origin. */
const send = (method: string, url: string, headers: Record<string, string> = {}, body = ''): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const start = url.startsWith('https:') ? httpsRequest : httpRequest;
    const options = { method, headers, ca: authority.cert, servername: 'first.example', agent: false as const };
    const asked = start(url, options, async (response) => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: await text(response) });
    });
    asked.on('error', reject).end(body);
  });

/** The status that a page of this origin gets for a call under this name of the host. */
const callFrom = async (door: string, origin: string, host?: string): Promise<number> => {
  const headers = { 'content-type': 'application/json', origin, ...(host && { host }) };
  return (await send('POST', door + METHOD, headers, '{"ids":["0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90"]}')).status;
};

test('the page and all that it loads are served, run nothing but their own, and are framed by nobody', async () => {
  const shell = await send('GET', `${http}/`);
  assert.equal(shell.status, 200);
  assert.equal(shell.headers['content-type'], 'text/html; charset=utf-8');
  const loaded = [...shell.body.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path = '']) => path);
  assert.ok(loaded.length >= 4, loaded.join());
  assert.deepEqual(
    [...routes.keys()].filter((path) => path === '/' || !path.startsWith('/page/')),
    ['/'],
  );
  for (const path of loaded) assert.ok(routes.has(path), path);
  for (const path of routes.keys()) {
    const { status, headers, body } = await send('GET', http + path);
    assert.equal(status, 200, path);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['referrer-policy'], 'no-referrer');
    assert.equal(headers['cache-control'], 'no-store');
    const policy = String(headers['content-security-policy']);
    assert.match(policy, /^default-src 'none';/);
    for (const rule of ["script-src 'self'", "connect-src 'self'", "form-action 'none'", "frame-ancestors 'none'"]) {
      assert.ok(`${policy};`.includes(` ${rule};`), `${path} lacks ${rule}`);
    }
    assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    assert.doesNotMatch(body, /(?:src|href)="(?:https?:)?\/\//, `${path} loads from elsewhere`);
  }
});

test('the page is read, not written, and a HEAD has no body', async () => {
  const head = await send('HEAD', `${http}/`);
  assert.equal(head.status, 200);
  assert.equal(head.body, '');
  assert.ok(Number(head.headers['content-length']) > 1000);
  assert.equal((await send('POST', `${http}/`)).status, 405);
  for (const path of ['/page/', '/page/../package.json', '/page/page.ts', '/page/%2e%2e/page.ts', '//', '/page.html']) {
    assert.equal((await send('GET', http + path)).status, 404, path);
  }
});

test('pages of the door itself may call it, those of other origins may not', async () => {
  const { port } = new URL(http);
  assert.equal(await callFrom(http, http), 200);
  assert.equal(await callFrom(http, `http://localhost:${port}`, `localhost:${port}`), 200);
  const others = [
    `https://127.0.0.1:${port}`,
    'http://127.0.0.1:1',
    `http://localhost:${port}`,
    'http://127.0.0.1',
    'null',
  ];
  for (const origin of others) assert.equal(await callFrom(http, origin), 403, origin);
  const own = await send('POST', http + METHOD, { 'content-type': 'application/json', origin: http }, '{}');
  assert.equal(own.headers['access-control-allow-origin'], undefined, 'its own page needs no leave to read the answer');
});

test('without authentication a page that reaches this machine under a name of its own may not call', async () => {
  const { port } = new URL(http);
  assert.equal(await callFrom(http, `http://evil.example:${port}`, `evil.example:${port}`), 403);
});

test('over TLS the own origin is one with https', async () => {
  const tls = await useTls(answers);
  const { port } = new URL(tls.http);
  assert.equal(await callFrom(tls.http, `https://localhost:${port}`, `localhost:${port}`), 200);
  assert.equal(await callFrom(tls.http, `http://localhost:${port}`, `localhost:${port}`), 403);
});

test('where tokens are asked for, the page is shown to anybody, and a call without one is refused', async () => {
  const authenticate = () => Promise.reject(new Refusal('UNAUTHENTICATED', 'no token'));
  const guarded = await useEcho(answers, { routes, authenticate });
  assert.equal((await send('GET', `${guarded.http}/`)).status, 200);
  assert.equal(await callFrom(guarded.http, guarded.http), 401);
  assert.equal(await callFrom(guarded.http, 'http://rebound.example', 'rebound.example'), 401);
});
