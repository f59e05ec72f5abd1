import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { Agent, request } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { after, describe, test } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { fromBinary } from '@bufbuild/protobuf';
import { Client, credentials, status } from '@grpc/grpc-js';
import type { TlsConfig } from '../src/config.ts';
import { Health, HealthCheckResponseSchema } from '../src/gen/grpc/health/v1/health_pb.js';
import { ExportService } from '../src/gen/jeex/persistence/v1/export_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { createLog } from '../src/log.ts';
import { asName, namesOf } from '../src/rpc/certificates.ts';
import { openTls } from '../src/rpc/tls.ts';
import { createAuthority, type Issued, useSecret } from './support/certificates.ts';
import { type Answers, callGrpc, encode, endOf, pathOf, sendGrpc, streamGrpc, until, useEcho } from './support/echo.ts';
import { useService } from './support/service.ts';

const { batchGetUsers } = UserService.method;
const { streamExportContent } = ExportService.method;
const ID = '0190f3a1-7b8c-7d2e-8f3a-4b5c6d7e8f90';
const LOOK_EVERY_MS = 10;

const authority = await createAuthority('Test authority');
const stranger = await createAuthority('Another authority');
const first = await authority.issue({ usage: 'server', dns: ['first.example'] });
const second = await authority.issue({ usage: 'server', dns: ['second.example'] });

const filesOf = ({ cert, key }: Issued) => ({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.cert });
const configOf = (pathIn: (name: string) => string, clientNames: readonly string[] = []): TlsConfig => ({
  certFile: pathIn('tls.crt'),
  keyFile: pathIn('tls.key'),
  clientCaFile: clientNames.length > 0 ? pathIn('ca.crt') : null,
  clientNames,
});

/** What a client shows of itself. */
type Shown = Partial<Issued>;

const credentialsOf = ({ cert, key }: Shown = {}) =>
  credentials.createSsl(Buffer.from(authority.cert), key ? Buffer.from(key) : null, cert ? Buffer.from(cert) : null);

const useClient = (address: string, shown?: Shown): Client => {
  const client = new Client(address, credentialsOf(shown), { 'grpc.ssl_target_name_override': 'first.example' });
  after(() => client.close());
  return client;
};

/** Both doors over TLS with in-memory handlers. */
const useTls = async (
  answers: Answers = { 'UserService.batchGetUsers': async () => ({ users: [] }) },
  names?: string[],
) => {
  const secret = await useSecret(filesOf(first));
  const lines: Record<string, unknown>[] = [];
  const log = createLog('debug', { write: (line: string) => lines.push(JSON.parse(line)) });
  const tls = await openTls(configOf(secret.pathOf, names), log, LOOK_EVERY_MS);
  after(() => tls.close());
  const echo = await useEcho(answers, { tls, log });
  const said = (level: string, message: RegExp) =>
    lines.filter((line) => line.level === level && message.test(String(line.msg)));
  return { ...echo, secret, said };
};

/** Posts an empty batch over HTTPS: the status, and the first name of the server's certificate. */
const ask = async (http: string, shown: Shown = {}, agent = new Agent({ keepAlive: false })) => {
  const asked = request(http + pathOf(batchGetUsers), {
    ...{ method: 'POST', headers: { 'content-type': 'application/json' }, ca: authority.cert, agent },
    ...shown,
  });
  asked.end(JSON.stringify({ ids: [ID] }));
  const [response] = await once(asked, 'response');
  const socket: TLSSocket = response.socket;
  const seen = { status: response.statusCode, protocol: socket.getProtocol(), name: serverName(socket) };
  response.resume();
  await once(response, 'end');
  return seen;
};

const serverName = (socket: TLSSocket): string =>
  /DNS:(\w+)/.exec(socket.getPeerCertificate().subjectaltname ?? '')?.[1] ?? '';

const openSocket = (address: string, options: ConnectionOptions = {}): TLSSocket => {
  const { hostname, port } = new URL(`tcp://${address.replace('https://', '')}`);
  return connect({ host: hostname, port: Number(port), ca: authority.cert, ...options });
};

/** The first name of the certificate that a new connection is shown. */
const nameShown = async (address: string): Promise<string> => {
  const socket = openSocket(address, { ALPNProtocols: ['h2', 'http/1.1'] });
  await once(socket, 'secureConnect');
  const name = serverName(socket);
  socket.destroy();
  return name;
};

/** Resolves with the error that ends a connection, or null when it closes without one. */
const fateOf = (socket: TLSSocket): Promise<string | null> =>
  new Promise((resolve) => {
    socket.resume();
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.once('close', () => resolve(null));
  });

const batch = (client: Client) => sendGrpc(client, batchGetUsers, encode(batchGetUsers, { ids: [ID] }));

describe('with a certificate', async () => {
  const { grpc, http, client: plaintext, secret, said } = await useTls();
  const client = useClient(grpc);

  test('both doors answer over TLS 1.3', async () => {
    assert.deepEqual((await callGrpc(client, batchGetUsers, { ids: [ID] })).users, []);
    assert.deepEqual(await ask(http), { status: 200, protocol: 'TLSv1.3', name: 'first' });
    const socket = openSocket(grpc, { ALPNProtocols: ['h2'] });
    await once(socket, 'secureConnect');
    assert.deepEqual([socket.getProtocol(), socket.alpnProtocol], ['TLSv1.3', 'h2']);
    socket.destroy();
  });

  test('an older TLS is refused', async () => {
    for (const address of [grpc, http]) {
      const fate = await fateOf(openSocket(address, { maxVersion: 'TLSv1.2', ALPNProtocols: ['h2', 'http/1.1'] }));
      assert.equal(fate, 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
    }
  });

  test('plaintext is refused', async () => {
    assert.equal((await batch(plaintext)).error?.code, status.UNAVAILABLE);
    const session = connectHttp2(`http://${grpc}`).on('error', () => {});
    let greeted = false;
    session.on('remoteSettings', () => {
      greeted = true;
    });
    await new Promise((resolve) => session.once('close', resolve));
    assert.equal(greeted, false);
    await assert.rejects(fetch(http.replace('https:', 'http:')));
  });

  test('what does not speak HTTP/2 is refused by the gRPC door', async () => {
    const [answer] = await once(openSocket(grpc), 'data');
    assert.match(String(answer), /^HTTP\/1.0 403 /);
    assert.equal(
      await fateOf(openSocket(grpc, { ALPNProtocols: ['http/1.1'] })),
      'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL',
    );
  });

  test('a replaced certificate is shown to new connections, and the open ones go on', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    assert.equal((await ask(http, {}, agent)).name, 'first');
    await secret.replace(filesOf(second));
    await until(() => said('info', /replaced/).length === 1, 'the certificate was replaced');
    assert.deepEqual(said('info', /replaced/)[0]?.names, ['DNS:second.example']);
    for (const address of [grpc, http]) assert.equal(await nameShown(address), 'second');
    assert.equal((await ask(http, {}, agent)).name, 'first');
    assert.equal((await batch(client)).error, null);
    assert.equal(await fateOf(openSocket(http, { maxVersion: 'TLSv1.2' })), 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
    agent.destroy();
  });

  test('files that do not fit together leave the certificate in use, are named once, and are taken once mended', async () => {
    const third = await authority.issue({ usage: 'server', dns: ['third.example'] });
    const broken: [Record<string, string>, RegExp][] = [
      [{ ...filesOf(third), 'tls.key': first.key }, /TLS_KEY_FILE.*first certificate/],
      [{ ...filesOf(third), 'tls.crt': third.cert.slice(0, 300) }, /TLS_CERT_FILE.*no certificate/],
      [{ 'tls.crt': third.cert }, /TLS_KEY_FILE.*ENOENT/],
    ];
    const errors = () => said('error', /stays/).map(({ err }) => (err as Error).message);
    for (const [index, [files, message]] of broken.entries()) {
      await secret.replace(files);
      await until(() => errors().length > index, 'the mistake was named');
      assert.match(errors()[index] ?? '', message);
      for (const address of [grpc, http]) assert.equal(await nameShown(address), 'second');
    }
    await secret.replace(filesOf(third));
    await until(() => said('info', /replaced/).length === 2, 'the mended files were taken');
    assert.equal(errors().length, broken.length);
    for (const address of [grpc, http]) assert.equal(await nameShown(address), 'third');
  });
});

describe('with an authority of client certificates', async () => {
  let calls = 0;
  const count = async () => {
    calls += 1;
    return { users: [] };
  };
  const names = ['Orchestrator.example', 'spiffe://jeex/agents'];
  const { grpc, http, probes, secret, said } = await useTls({ 'UserService.batchGetUsers': count }, names);

  const asks = async (shown: Shown): Promise<boolean[]> => {
    const before = calls;
    const client = useClient(grpc, shown);
    const overGrpc = await batch(client);
    const overHttp = await ask(http, shown).then(
      (answered) => answered.status,
      () => null,
    );
    const answered = [overGrpc.error === null, overHttp === 200];
    assert.equal(calls - before, answered.filter(Boolean).length);
    return answered;
  };

  test('a certificate with a DNS or URI name on the list gets in', async () => {
    assert.deepEqual(await asks(await authority.issue({ dns: ['other.example', 'orchestrator.example'] })), [
      true,
      true,
    ]);
    assert.deepEqual(await asks(await authority.issue({ uris: ['spiffe://jeex/agents'] })), [true, true]);
  });

  test('no certificate, or one that the authority does not vouch for, does not get in', async () => {
    const dns = ['orchestrator.example'];
    const refused: Record<string, Shown> = {
      none: {},
      'of another authority': await stranger.issue({ dns }),
      ended: await authority.issue({ dns, from: -2, to: -1 }),
      'not yet begun': await authority.issue({ dns, from: 1, to: 2 }),
      'of a server': await authority.issue({ dns, usage: 'server' }),
    };
    for (const [what, shown] of Object.entries(refused)) assert.deepEqual(await asks(shown), [false, false], what);
    assert.ok(said('warn', /refused a TLS handshake/).length >= 2 * Object.keys(refused).length);
  });

  test('a certificate without a name on the list does not get in, and is named in the log', async () => {
    const refused = [
      { dns: ['evil.example'] },
      { commonName: 'orchestrator.example' },
      { dns: ['spiffe://jeex/agents'] },
      { uris: ['orchestrator.example'] },
      { dns: ['*.example'] },
      { uris: ['spiffe://evil, URI:spiffe://jeex/agents', 'spiffe://evil", URI:spiffe://jeex/agents'] },
    ];
    for (const subject of refused) {
      assert.deepEqual(await asks(await authority.issue(subject)), [false, false], JSON.stringify(subject));
    }
    const lines = said('warn', /TLS_CLIENT_NAMES/);
    assert.ok(lines.length >= 2 * refused.length);
    assert.deepEqual(lines[0]?.names, ['DNS:evil.example']);
    assert.ok(lines.every((line) => JSON.stringify(line).length < 1000));
  });

  test('no connection is let in by the session of an earlier one', async () => {
    const shown = await authority.issue({ dns: ['orchestrator.example'] });
    const { promise, resolve } = Promise.withResolvers<Buffer>();
    const earlier = openSocket(http, shown).once('session', resolve);
    earlier.write(`GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`);
    const session = await promise;
    earlier.destroy();
    const later = openSocket(http, { session });
    assert.match((await fateOf(later)) ?? '', /ALERT_CERTIFICATE_REQUIRED|ECONNRESET/);
    assert.equal(later.isSessionReused(), false);
  });

  test('a replaced authority decides from then on', async () => {
    const dns = ['orchestrator.example'];
    await secret.replace({ ...filesOf(first), 'ca.crt': stranger.cert });
    await until(() => said('info', /replaced/).length === 1, 'the authority was replaced');
    assert.deepEqual(await asks(await stranger.issue({ dns })), [true, true]);
    assert.deepEqual(await asks(await authority.issue({ dns })), [false, false]);
  });

  test('the health port answers in plaintext, and has health alone', async () => {
    const client = new Client(probes ?? '', credentials.createInsecure());
    const { bytes } = await sendGrpc(client, Health.method.check, encode(Health.method.check, { service: '' }));
    assert.equal(fromBinary(HealthCheckResponseSchema, bytes ?? Buffer.alloc(0)).status, 1);
    assert.equal((await batch(client)).error?.code, status.UNIMPLEMENTED);
    client.close();
  });
});

test('a draining service finishes what is in flight over TLS, and ends what is left by force', async () => {
  const { promise: mayEnd, resolve: end } = Promise.withResolvers<object>();
  let arrived = 0;
  const { grpc, http, doors } = await useTls({
    'UserService.batchGetUsers': () => {
      arrived += 1;
      return mayEnd as Promise<object>;
    },
    'ExportService.streamExportContent': async function* () {
      arrived += 1;
      yield { version: { version: 1 } };
      await new Promise(() => {});
    } as never,
  });
  const client = useClient(grpc);
  const inFlight = callGrpc(client, batchGetUsers, { ids: [ID] });
  const overHttp = ask(http);
  const waiting = endOf(streamGrpc(client, streamExportContent, { projectId: ID, id: ID }));
  const silent = [grpc, http.replace('https://', '')].map((address) => {
    const { hostname, port } = new URL(`tcp://${address}`);
    return connectTcp(Number(port), hostname);
  });
  await Promise.all(silent.map((socket) => once(socket, 'connect')));
  await until(() => arrived === 3, 'the calls arrived');

  const drained = doors.drain(5000);
  assert.equal((await waiting).error?.code, status.UNAVAILABLE);
  end({ users: [] });
  assert.deepEqual((await inFlight).users, []);
  assert.equal((await overHttp).status, 200);
  await drained;
  const closed = silent.map((socket) => once(socket.resume(), 'close'));
  await doors.stop(50);
  await Promise.all(closed);
  for (const address of [grpc, http]) assert.equal(await fateOf(openSocket(address)), 'ECONNREFUSED');
});

test('a stop ends by force what does not end over TLS', async () => {
  let arrived = 0;
  const { grpc, http, doors } = await useTls({
    'UserService.batchGetUsers': () => {
      arrived += 1;
      return new Promise(() => {});
    },
  });
  const overGrpc = batch(useClient(grpc));
  const overHttp = assert.rejects(ask(http), { code: 'ECONNRESET' });
  await until(() => arrived === 2, 'the calls arrived');
  await doors.stop(50);
  assert.equal((await overGrpc).error?.code, status.UNAVAILABLE);
  await overHttp;
});

describe('at the start', () => {
  const lines: Record<string, unknown>[] = [];
  const log = createLog('info', { write: (line: string) => lines.push(JSON.parse(line)) });
  const open = async (files: Record<string, string>, without = '') => {
    const secret = await useSecret(files);
    const pathIn = (name: string) => (name === without ? '/nowhere/SECRET' : secret.pathOf(name));
    (await openTls(configOf(pathIn, ['any']), log)).close();
  };

  test('a file that cannot be used is refused by its variable, without its value', async () => {
    const files = filesOf(first);
    for (const [variable, name] of [
      ['TLS_CERT_FILE', 'tls.crt'],
      ['TLS_KEY_FILE', 'tls.key'],
      ['TLS_CLIENT_CA_FILE', 'ca.crt'],
    ]) {
      await assert.rejects(open(files, name), { message: `${variable}: the file cannot be read: ENOENT` });
    }
    const damaged = authority.cert.replace(/\nMII/, '\nAAA');
    const refused: [Record<string, string>, RegExp][] = [
      [{ ...files, 'tls.crt': first.key }, /^TLS_CERT_FILE: the file holds no certificate in PEM/],
      [{ ...files, 'tls.key': first.cert }, /^TLS_KEY_FILE: the file holds no private key in PEM/],
      [{ ...files, 'tls.key': second.key }, /^TLS_KEY_FILE: the key is not that of TLS_CERT_FILE/],
      [{ ...files, 'ca.crt': '' }, /^TLS_CLIENT_CA_FILE: the file holds no certificate in PEM/],
      [{ ...files, 'ca.crt': authority.cert + damaged }, /^TLS_CLIENT_CA_FILE: certificate 2 of the file is damaged$/],
    ];
    for (const [content, message] of refused) await assert.rejects(open(content), { message });
  });

  test('a certificate that has ended or soon will is served with a warning', async () => {
    await open(filesOf(await authority.issue({ usage: 'server', to: 13 })));
    await open(filesOf(await authority.issue({ usage: 'server', from: -3, to: -1 })));
    const warned = lines.filter(({ level }) => level === 'warn').map(({ msg }) => msg);
    assert.deepEqual(warned, ['TLS_CERT_FILE: a certificate ends soon', 'TLS_CERT_FILE: a certificate has ended']);
  });
});

test('only DNS and URI names identify a client, each as a whole', async () => {
  const odd = await authority.issue({
    commonName: 'cn.example',
    dns: ['A.example'],
    uris: ['urn:x, DNS:b', 'urn:"é\\'],
  });
  assert.deepEqual(namesOf(new X509Certificate(odd.cert)), ['DNS:a.example', 'URI:urn:x, DNS:b', 'URI:urn:"é\\']);
  assert.deepEqual(namesOf({ subjectAltName: 'IP Address:127.0.0.1, email:a@b.example' } as X509Certificate), []);
  assert.deepEqual(namesOf({ subjectAltName: 'DNS:a.example, not read' } as X509Certificate), []);
  assert.deepEqual(['A.example', 'spiffe://jeex/A'].map(asName), ['DNS:a.example', 'URI:spiffe://jeex/A']);
});

test('the whole service serves TLS as configured', async () => {
  const secret = await useSecret(filesOf(first));
  const shown = await authority.issue({ dns: ['orchestrator.example'] });
  const service = await useService({
    env: {
      TLS_CERT_FILE: secret.pathOf('tls.crt'),
      TLS_KEY_FILE: secret.pathOf('tls.key'),
      TLS_CLIENT_CA_FILE: secret.pathOf('ca.crt'),
      TLS_CLIENT_NAMES: 'orchestrator.example',
    },
  });
  const request = { ids: [ID] };
  assert.deepEqual((await callGrpc(useClient(service.grpc, shown), batchGetUsers, request)).users, []);
  assert.equal((await ask(`https://${service.http}`, shown)).status, 200);
  assert.equal((await batch(useClient(service.grpc))).error?.code, status.UNAVAILABLE);
});
