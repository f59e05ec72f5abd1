import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { credentials } from '@grpc/grpc-js';
import { View } from '../src/gen/jeex/persistence/v1/document_service_pb.js';
import { openChannel } from './support/client.ts';
import { output } from './support/docker.ts';
import { clientsOn, newUser } from './support/service.ts';
import { NO_DOCKER, useStack } from './support/stack.ts';

const CONTENT = '# Größer\n';

/** Why a client's test is skipped, which it never is in CI. */
const lacks = (command: string): string | false =>
  process.env.CI || spawnSync(command, ['--version']).status === 0 ? false : `${command} is not installed`;

suite('clients with stock settings call the composed stack over TLS with a token', { skip: NO_DOCKER }, async () => {
  const stack = await useStack();
  const folder = mkdtempSync(join(tmpdir(), 'jeex-clients-'));
  after(() => rmSync(folder, { recursive: true }));
  const caFile = join(folder, 'ca.crt');
  writeFileSync(caFile, stack.ca);

  /** What a script of test/clients/ prints. */
  const script = async (name: string, address: string): Promise<string> => {
    const path = fileURLToPath(new URL(`clients/${name}`, import.meta.url));
    const env = { PATH: process.env.PATH, TOKEN: await stack.token() };
    return (await promisify(execFile)('bash', [path, address, caFile], { env, timeout: 60_000 })).stdout;
  };

  test('grpc-js', async () => {
    const clients = clientsOn(await stack.channel());
    const actor = await newUser(clients);
    const { project } = await clients.projects.createProject({ name: 'From grpc-js', language: 'en' }, { actor });
    const idea = { projectId: project?.id ?? '', documentType: 'idea' };
    const { version } = await clients.documents.appendVersion({ ...idea, content: CONTENT }, { actor });
    assert.equal(version?.version, 1);
    const read = await clients.documents.getVersion({ ...idea, view: View.FULL }, { actor });
    assert.equal(read.version?.content, CONTENT);
    await assert.rejects(clients.documents.appendVersion({ ...idea, content: 'x', expectedVersion: 0 }, { actor }), {
      reason: 'VERSION_CONFLICT',
    });
  });

  test('nobody without a token, nor by plaintext', async () => {
    const ask = async (security = credentials.createInsecure()) => {
      const channel = openChannel(stack.grpc, {}, security);
      await clientsOn(channel)
        .database.getServerInfo({}, { timeout: 5000 })
        .finally(() => channel.close());
    };
    await assert.rejects(ask(credentials.createSsl(Buffer.from(stack.ca))), { reason: 'UNAUTHENTICATED' });
    await assert.rejects(ask(), { reason: '' });
  });

  test('Python grpcio', async () => {
    const run = ['run', '--rm', '--no-deps', '-T', '--env', `TOKEN=${await stack.token()}`, 'python'];
    const printed = output(await stack.compose(...run, 'persistence:50051', '/run/secrets/jeex/ca.crt'));
    assert.deepEqual(JSON.parse(printed), {
      version: 1,
      content: CONTENT,
      refused: {
        code: 'ABORTED',
        reason: 'VERSION_CONFLICT',
        metadata: { current_version: '1', outcome: 'not_applied' },
      },
    });
  });

  test('grpcurl, with reflection', { skip: lacks('grpcurl') }, async () => {
    const printed = await script('grpcurl.sh', stack.grpc);
    assert.match(printed, /^jeex\.persistence\.v1\.DocumentService$/m);
    assert.match(printed, /"content": "# Größer\\n"/);
    assert.match(printed, /Code: Aborted\n.*"reason": "VERSION_CONFLICT"/s);
  });

  test('curl', { skip: lacks('curl') }, async () => {
    const [appended, first, read, second, refused, third] = (await script('curl.sh', stack.http)).trim().split('\n');
    assert.deepEqual([first, second, third], ['200', '200', '409']);
    assert.match(appended ?? '', /^\{"version":\{.*"version":1,/);
    assert.match(read ?? '', /"content":"# Größer\\n"/);
    assert.match(refused ?? '', /^\{"code":"aborted",.*"reason":"VERSION_CONFLICT".*"current_version":"1"/);
  });
});
