import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { after, describe, test } from 'node:test';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { createHealth } from '../src/rpc/health.ts';
import { createAuthority, useSecret } from './support/certificates.ts';
import { runCommand } from './support/command.ts';

/** What an operator's environment could hold, and no probe should mind. */
const PROXY = 'http://127.0.0.1:1';
const NAME = 'jeex.persistence.v1.UserService';

const authority = await createAuthority('Test authority');
const stranger = await createAuthority('Another authority');
const issued = await authority.issue({ usage: 'server' });
const own = await authority.issue({ commonName: 'probe' });
const files = await useSecret({
  'ca.crt': authority.cert,
  'other.crt': stranger.cert,
  'tls.crt': own.cert,
  'tls.key': own.key,
});

/** Health alone, on a free port. */
const useHealth = async (ready: boolean, server = ServerCredentials.createInsecure()) => {
  const grpc = new Server();
  const health = createHealth([NAME]);
  health.setReady(ready);
  health.addTo(grpc);
  const port = await new Promise<number>((resolve, reject) =>
    grpc.bindAsync('127.0.0.1:0', server, (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  after(() => grpc.forceShutdown());
  return { port, address: `127.0.0.1:${port}` };
};

/** A port where a connection is taken and nothing is ever said, or, once it is closed, where nobody listens. */
const useSilence = async () => {
  const server = createServer((socket) => socket.on('error', () => {}).resume());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = () => new Promise((resolve) => server.close(resolve));
  return { address: `127.0.0.1:${port}`, close };
};

const check = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  runCommand(['health', ...args], { HTTP_PROXY: PROXY, http_proxy: PROXY, grpc_proxy: PROXY, ...env });

const ended = (code: number, out: string, err: string) => ({ code, out: out && `${out}\n`, err: err && `${err}\n` });
const failed = (text: string) => ended(1, '', `jeex-persistence: ${text}`);

const up = await useHealth(true);
const down = await useHealth(false);

describe('health over plaintext', { concurrency: true }, () => {
  test('says SERVING, and ends with 0', async () => {
    const whole = await check(['--address', up.address]);
    assert.deepEqual(whole, ended(0, `the service at ${up.address} is SERVING`, ''));
    const one = await check(['--address', up.address, '--service', NAME]);
    assert.deepEqual(one, ended(0, `${NAME} at ${up.address} is SERVING`, ''));
  });

  test('fails in one line for a service that is not ready, though it lives', async () => {
    const whole = await check(['--address', down.address]);
    assert.deepEqual(whole, failed(`the service at ${down.address} is NOT_SERVING`));
    const alive = await check(['--address', down.address, '--service', 'liveness']);
    assert.equal(alive.code, 0);
  });

  test('fails for a name that no service has', async () => {
    const ended = await check(['--address', up.address, '--service', 'jeex.Unknown']);
    assert.deepEqual(ended, failed(`${up.address} knows no service jeex.Unknown`));
  });

  test('tells a program the status on one line of JSON', async () => {
    const asJson = async (args: readonly string[]) => {
      const { code, out } = await check([...args, '--json']);
      return { code, ...JSON.parse(out) };
    };
    assert.deepEqual(await asJson(['--address', up.address, '--service', 'readiness']), {
      ...{ code: 0, address: up.address, service: 'readiness', status: 'SERVING' },
    });
    assert.deepEqual(await asJson(['--address', down.address]), {
      ...{ code: 1, address: down.address, service: '', status: 'NOT_SERVING' },
    });
    assert.deepEqual(await asJson(['--address', up.address, '--service', 'jeex.Unknown']), {
      ...{ code: 1, address: up.address, service: 'jeex.Unknown', status: 'SERVICE_UNKNOWN' },
    });
  });

  test('fails where nobody listens, and where nobody answers in time', async () => {
    const { address, close } = await useSilence();
    after(close);
    const silent = await check(['--address', address, '--timeout', '200', '--json']);
    assert.equal(silent.code, 1);
    assert.equal(JSON.parse(silent.out).status, 'UNREACHABLE');
    assert.match(silent.err, /^jeex-persistence: 127\.0\.0\.1:\d+ did not answer: DEADLINE_EXCEEDED, [^\n]+\n$/);
    const gone = await useSilence();
    await gone.close();
    const refused = await check(['--address', gone.address]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.err,
      /^jeex-persistence: 127\.0\.0\.1:\d+ did not answer: UNAVAILABLE, .*ECONNREFUSED[^\n]+\n$/,
    );
  });
});

describe('the address of health', { concurrency: true }, () => {
  test("without one it is HEALTH_LISTEN's, else GRPC_LISTEN's", async () => {
    const both = { HEALTH_LISTEN: up.address, GRPC_LISTEN: down.address };
    assert.equal((await check([], both)).code, 0);
    assert.deepEqual(
      await check([], { GRPC_LISTEN: down.address }),
      failed(`the service at ${down.address} is NOT_SERVING`),
    );
  });

  test('who listens on every address is asked on the loopback one', async () => {
    const { out } = await check([], { HEALTH_LISTEN: `0.0.0.0:${up.port}` });
    assert.equal(out, `the service at ${up.address} is SERVING\n`);
    // It listens on IPv4 alone, as one on `::` does where there is no `::1`.
    const both = await check([], { HEALTH_LISTEN: `[::]:${up.port}` });
    assert.equal(both.out, `the service at localhost:${up.port} is SERVING\n`);
  });

  test('is wrong use in other forms, and where the configured one speaks TLS', async () => {
    for (const args of [
      ['--address', 'nowhere'],
      ['--timeout', '0'],
      ['--timeout', '60001'],
    ]) {
      assert.equal((await check(args)).code, 2, args.join(' '));
    }
    const secured = {
      GRPC_LISTEN: up.address,
      TLS_CERT_FILE: files.pathOf('tls.crt'),
      TLS_KEY_FILE: files.pathOf('tls.key'),
    };
    const { code, err } = await check([], secured);
    assert.equal(code, 2);
    assert.match(err, /HEALTH_LISTEN: expected, because TLS_CERT_FILE is set/);
  });
});

describe('health over TLS', { concurrency: true }, async () => {
  const pair = { private_key: Buffer.from(issued.key), cert_chain: Buffer.from(issued.cert) };
  const open = await useHealth(true, ServerCredentials.createSsl(null, [pair]));
  const mutual = await useHealth(true, ServerCredentials.createSsl(Buffer.from(authority.cert), [pair], true));
  const trusting = ['--ca', files.pathOf('ca.crt')];

  test('with the authority of the certificate', async () => {
    assert.equal((await check(['--address', open.address, ...trusting])).code, 0);
    assert.equal((await check(trusting, { GRPC_LISTEN: open.address, HEALTH_LISTEN: down.address })).code, 0);
  });

  test('not without it, and not with another one', async () => {
    const plain = await check(['--address', open.address]);
    assert.equal(plain.code, 1);
    assert.match(plain.err, /did not answer: UNAVAILABLE/);
    const stranger = await check(['--address', open.address, '--ca', files.pathOf('other.crt')]);
    assert.equal(stranger.code, 1);
    assert.match(stranger.err, /did not answer: UNAVAILABLE.*certificate/);
  });

  test('with a certificate of its own, where one is asked for', async () => {
    const pem = ['--cert', files.pathOf('tls.crt'), '--cert-key', files.pathOf('tls.key')];
    assert.equal((await check(['--address', mutual.address, ...trusting, ...pem])).code, 0);
    assert.equal((await check(['--address', mutual.address, ...trusting])).code, 1);
  });

  test('a file that cannot be read is named', async () => {
    const { code, err } = await check(['--address', open.address, '--ca', '/nowhere/ca.crt']);
    assert.equal(code, 1);
    assert.match(err, /\/nowhere\/ca\.crt/);
  });
});
