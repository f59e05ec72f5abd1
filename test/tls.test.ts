import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { Agent } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { describe, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { ChangeService } from '../src/gen/jeex/persistence/v1/change_service_pb.js';
import { UserService } from '../src/gen/jeex/persistence/v1/user_service_pb.js';
import { createLog } from '../src/log.ts';
import { openTls } from '../src/rpc/tls.ts';
import { useSecret } from './support/certificates.ts';
import { callGrpc, endOf, streamGrpc } from './support/echo.ts';
import {
  ask,
  authority,
  batch,
  configOf,
  fateOf,
  filesOf,
  first,
  ID,
  openSocket,
  STAYS_OPEN_MS,
  serverName,
  useClient,
  useTls,
} from './support/tls.ts';
import { until } from './support/until.ts';

const { batchGetUsers } = UserService.method;
const { watchProject } = ChangeService.method;
const second = await authority.issue({ usage: 'server', dns: ['second.example'] });

/** The first name of the certificate that a new connection is shown. */
const nameShown = async (address: string): Promise<string> => {
  const socket = openSocket(address, { ALPNProtocols: ['h2', 'http/1.1'] });
  await once(socket, 'secureConnect');
  const name = serverName(socket);
  socket.destroy();
  return name;
};

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

test('a draining service finishes what is in flight over TLS, and ends what is left by force', async () => {
  const { promise: mayEnd, resolve: end } = Promise.withResolvers<object>();
  let arrived = 0;
  const { grpc, http, doors } = await useTls({
    'UserService.batchGetUsers': () => {
      arrived += 1;
      return mayEnd as Promise<object>;
    },
    'ChangeService.watchProject': async function* () {
      arrived += 1;
      yield { event: { case: 'heartbeat', value: { projectId: ID, revision: 1n } } };
      await new Promise(() => {});
    } as never,
  });
  const client = useClient(grpc);
  const inFlight = callGrpc(client, batchGetUsers, { ids: [ID] });
  const overHttp = ask(http);
  const waiting = endOf(streamGrpc(client, watchProject, { projectId: ID }));
  const silent = [grpc, http.replace('https://', '')].map((address) => {
    const { hostname, port } = new URL(`tcp://${address}`);
    return connectTcp(Number(port), hostname);
  });
  await Promise.all(silent.map((socket) => once(socket, 'connect')));
  const idle = connectHttp2(`https://${grpc}`, { ca: authority.cert });
  await once(idle, 'remoteSettings');
  const goaway = once(idle, 'goaway');
  await until(() => arrived === 3, 'the calls arrived');

  const drained = doors.drain(5000);
  assert.equal((await waiting).error?.code, status.UNAVAILABLE);
  end({ users: [] });
  assert.deepEqual((await inFlight).users, []);
  assert.equal((await overHttp).status, 200);
  await drained;
  const signal = AbortSignal.timeout(STAYS_OPEN_MS);
  const closed = silent.map((socket) => once(socket.resume(), 'close', { signal }));
  assert.equal((await goaway)[0], constants.NGHTTP2_NO_ERROR);
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
  // What grpc-js calls a connection that breaks depends on whether it was writing.
  const ends: (status | undefined)[] = [status.UNAVAILABLE, status.INTERNAL];
  assert.ok(ends.includes((await overGrpc).error?.code));
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
