import assert from 'node:assert/strict';
import { subscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { after, describe, it } from 'node:test';
import { TLSSocket, type TlsOptions } from 'node:tls';
import { schemaVersion } from '../src/database/sql.ts';
import { ConnectFailure } from '../src/db/connect-failure.ts';
import { openClient } from '../src/db/connection.ts';
import { whatHappened } from '../src/db/errors.ts';
import { createDatabase } from '../src/db/pool.ts';
import { checkRole } from '../src/db/role-check.ts';
import { createLog } from '../src/log.ts';
import { createAuthority, useSecret } from './support/certificates.ts';
import { testCluster, useTestDatabase } from './support/postgres.ts';
import { until } from './support/until.ts';

const authority = await createAuthority('the authority');
const other = await createAuthority('another authority');
const good = await authority.issue({ usage: 'server' });
const expired = await authority.issue({ usage: 'server', from: -9, to: -1 });
const early = await authority.issue({ usage: 'server', from: 1 });
const { pathOf } = await useSecret({
  'ca.crt': authority.cert,
  'other.crt': other.cert,
  'garbage.crt': '-----BEGIN CERTIFICATE-----\nno certificate\n-----END CERTIFICATE-----\n',
  'client.crt': good.cert,
});

/** What a server does with a connection. */
type Behaviour = (socket: Socket) => void;

/** A server that speaks TLS as PostgreSQL does: asked for it first, and then with these options. */
const tls = (options: TlsOptions): Behaviour => {
  return (socket) =>
    socket.once('data', () => {
      socket.write('S');
      new TLSSocket(socket, { isServer: true, ...options }).on('error', () => socket.destroy());
    });
};

/** Its port. Ended after the tests. */
const serve = async (behave: Behaviour): Promise<number> => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => socket.destroy()));
    behave(socket);
  });
  after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
};

const ROOT = `sslmode=verify-full&sslrootcert=${pathOf('ca.crt')}`;

/** What the operator reads, by what is wrong. */
const CASES: readonly (readonly [string, Behaviour, string, RegExp])[] = [
  [
    'another authority in sslrootcert',
    tls(good),
    `sslmode=verify-full&sslrootcert=${pathOf('other.crt')}`,
    /^the certificate of 127\.0\.0\.1:\d+ is not signed by the authorities in sslrootcert \(.*other\.crt\): put the authority/,
  ],
  [
    'no sslrootcert',
    tls(good),
    'sslmode=verify-full',
    /not signed by an authority that Node knows: .*sslrootcert=FILE/,
  ],
  [
    'a certificate for another name',
    tls(good),
    `${ROOT}&host=localhost`,
    /is not for localhost, but for IP Address:127\.0\.0\.1/,
  ],
  ['an expired certificate', tls(expired), ROOT, /has expired: renew it/],
  ['a certificate of tomorrow', tls(early), ROOT, /is not valid yet: compare the clocks/],
  [
    'no TLS at all',
    (socket) => void socket.once('data', () => socket.write('N')),
    ROOT,
    /speaks no TLS, which sslmode=verify-full asks for/,
  ],
  ['an old TLS', tls({ ...good, maxVersion: 'TLSv1.2' }), ROOT, /speaks no TLS 1\.3, and nothing older is accepted/],
  [
    'a handshake that is cut',
    (socket) => void socket.once('data', () => socket.end('S')),
    ROOT,
    /has closed the connection before it was made/,
  ],
  [
    'another protocol',
    (socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    ROOT,
    /not be PostgreSQL at all/,
  ],
  [
    'a missing file',
    tls(good),
    'sslmode=verify-full&sslrootcert=/nowhere/ca.crt',
    /^the file of sslrootcert in the URL cannot be read \(ENOENT.*\/nowhere\/ca\.crt/,
  ],
  [
    'a file of garbage',
    tls(good),
    `sslmode=verify-full&sslrootcert=${pathOf('garbage.crt')}`,
    /not signed by the authorities in sslrootcert \(.*garbage\.crt\): .*in PEM/,
  ],
  [
    'a key of another certificate',
    tls(good),
    `${ROOT}&sslcert=${pathOf('client.crt')}&sslkey=${pathOf('client.crt')}`,
    /not what they should be, in PEM: .*sslkey/,
  ],
];

const failureOf = async (url: string): Promise<string> => {
  const failed = await openClient(url, 'test').then(
    () => assert.fail('it connected'),
    (error) => error,
  );
  assert.ok(failed instanceof ConnectFailure);
  return whatHappened(failed);
};

describe('TLS that fails is one clear line', () => {
  for (const [name, behave, search, line] of CASES) {
    it(name, async () => {
      const port = await serve(behave);
      const said = await failureOf(`postgres://jeex_app:hidden@127.0.0.1:${port}/jeex?${search}`);
      assert.match(said, line);
      assert.doesNotMatch(said, /\n|hidden/);
    });
  }
});

describe('a server that lets nobody in', async () => {
  const db = await useTestDatabase();
  const changed = (change: (url: URL) => void) => {
    const url = new URL(db.adminUrl);
    url.username = 'jeex_app';
    url.password = testCluster().passwords.app;
    change(url);
    return url.href;
  };

  it('says whose password is wrong, which database is missing, that the port is wrong', async () => {
    assert.match(
      await failureOf(changed((url) => (url.password = 'wrong'))),
      /does not accept the password of the role jeex_app/,
    );
    assert.match(await failureOf(changed((url) => (url.username = 'nobody'))), /of the role nobody/);
    assert.match(await failureOf(changed((url) => (url.password = ''))), /and there is none: put it into the URL/);
    assert.match(await failureOf(changed((url) => (url.pathname = '/nowhere'))), /has no database nowhere/);
    assert.match(await failureOf(changed((url) => (url.port = '1'))), /nothing accepts connections at 127\.0\.0\.1:1/);
    assert.match(
      await failureOf(changed((url) => (url.hostname = 'nowhere.invalid'))),
      /the name nowhere\.invalid is not known/,
    );
  });

  it('says so at the start of the service', async () => {
    const port = await serve(tls(good));
    const url = `postgres://jeex_app:hidden@127.0.0.1:${port}/jeex?sslmode=verify-full&sslrootcert=${pathOf('other.crt')}`;
    const pool = await createDatabase({ url, size: 1 });
    await assert.rejects(checkRole(pool, createLog('silent')), {
      message:
        /^the database cannot be asked for the service's role: the certificate of .* is not signed by the authorities in sslrootcert/,
    });
    await pool.end();
  });
});

/** A message of PostgreSQL's protocol. */
const message = (type: string, body: Buffer): Buffer => {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([Buffer.from(type), length, body]);
};
const READY = message('Z', Buffer.from('I'));
const WELCOME = Buffer.concat([message('R', Buffer.alloc(4)), READY]);
const REFUSAL = Buffer.concat([message('E', Buffer.from('C42601\0Mrefused\0\0')), READY]);

/** Lets everybody in, refuses every statement, and hears no goodbye. */
const deaf: Behaviour = (socket) => {
  socket.allowHalfOpen = true;
  socket.once('data', () => {
    socket.write(WELCOME);
    socket.on('data', (data) => data.toString('latin1', 0, 1) === 'P' && socket.write(REFUSAL));
  });
};

describe('a server that hears no goodbye', () => {
  it('keeps no connection open here, which would keep the process from ending', async () => {
    const opened: Socket[] = [];
    subscribe('net.client.socket', (made) => opened.push((made as { socket: Socket }).socket));
    const pool = await createDatabase({ url: `postgres://jeex_app@127.0.0.1:${await serve(deaf)}/jeex`, size: 1 });
    await assert.rejects(pool.run(schemaVersion, { actor: null }), { reason: 'INTERNAL', outcome: 'not_applied' });
    await until(() => opened.length === 1 && opened[0]?.destroyed === true, 'the connection is given up');
    await pool.end();
  });
});
