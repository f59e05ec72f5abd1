import assert from 'node:assert/strict';
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { docker, must, ROOT } from './support/docker.ts';
import { NO_DOCKER } from './support/stack.ts';

const IMAGE = 'jeex-promtool:dev';
const RULES = join(ROOT, 'deploy/monitoring');

const buildPromtool = async (): Promise<void> => {
  const base = process.env.BASE_IMAGE ? ['--build-arg', `BASE_IMAGE=${process.env.BASE_IMAGE}`] : [];
  await must(['build', '--tag', IMAGE, ...base, '-'], {
    input: readFileSync(new URL('promtool/Dockerfile', import.meta.url), 'utf8'),
  });
};

/** Runs promtool in a container without a network, where the files of a folder are. */
const promtool = (folder: string, ...args: readonly string[]) => {
  const hardened = ['--rm', '--network=none', '--read-only', '--tmpfs=/tmp', '--cap-drop=ALL'];
  const place = [`--volume=${folder}:/monitoring:ro`, '--workdir=/monitoring'];
  return docker(['run', ...hardened, ...place, IMAGE, 'promtool', ...args]);
};

suite('the rules for Prometheus', { skip: NO_DOCKER }, () => {
  before(buildPromtool);

  test('are rules to promtool', async () => {
    const { code, out, err } = await promtool(RULES, 'check', 'rules', '--lint=all', '--lint-fatal', 'alerts.yaml');
    assert.equal(code, 0, out + err);
    assert.match(out, /SUCCESS: 23 rules found/);
  });

  test('fire and clear as alerts.test.yaml says', async () => {
    const { code, out, err } = await promtool(RULES, 'test', 'rules', 'alerts.test.yaml');
    assert.equal(code, 0, out + err);
    assert.match(out, /SUCCESS/);
  });

  test('with another threshold fail that test', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'jeex-rules-'));
    after(() => rmSync(folder, { recursive: true }));
    chmodSync(folder, 0o755);
    cpSync(RULES, folder, { recursive: true });
    const altered = readFileSync(join(RULES, 'alerts.yaml'), 'utf8').replace(
      'lock_longest_wait) > 10',
      'lock_longest_wait) > 11',
    );
    writeFileSync(join(folder, 'alerts.yaml'), altered);
    const { code, err, out } = await promtool(folder, 'test', 'rules', 'alerts.test.yaml');
    assert.equal(code, 1);
    assert.match(out + err, /jeex_lock_wait/);
  });

  test('the example of a configuration is one', async () => {
    const { code, out, err } = await promtool(RULES, 'check', 'config', '--syntax-only', 'prometheus.yaml');
    assert.equal(code, 0, out + err);
  });
});
