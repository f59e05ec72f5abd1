import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { fromBinary } from '@bufbuild/protobuf';
import { Client, credentials, status } from '@grpc/grpc-js';
import { Health, HealthCheckResponseSchema } from '../src/gen/grpc/health/v1/health_pb.js';
import { asName, namesOf } from '../src/rpc/certificates.ts';
import { createAuthority, useSecret } from './support/certificates.ts';
import { encode, sendGrpc } from './support/echo.ts';
import { useService } from './support/service.ts';
import {
  ask,
  authority,
  batch,
  fateOf,
  filesOf,
  first,
  openSocket,
  type Shown,
  useClient,
  useTls,
} from './support/tls.ts';
import { until } from './support/until.ts';

const stranger = await createAuthority('Another authority');
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
  assert.deepEqual(await asks(await authority.issue({ dns: ['other.example', 'orchestrator.example'] })), [true, true]);
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
  assert.equal((await batch(useClient(service.grpc, shown))).error, null);
  assert.equal((await ask(`https://${service.http}`, shown)).status, 200);
  assert.equal((await batch(useClient(service.grpc))).error?.code, status.UNAVAILABLE);
});
