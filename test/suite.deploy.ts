import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { ROOT } from './support/docker.ts';
import { NO_DOCKER } from './support/stack.ts';

/** What a run that failed shows of itself at least: node:test repeats its failures at the end. */
const SHOWN_LINES = 300;

// A run within a run would report to the outer one, in the runner's own format.
const { NODE_TEST_CONTEXT: _outer, ...environment } = process.env;

test('the whole suite passes through PgBouncer, as jeex_app, over TLS', { skip: NO_DOCKER }, async (t) => {
  const child = spawn('npm', ['test'], {
    cwd: ROOT,
    env: { ...environment, TEST_PGBOUNCER: 'true' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [out, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  const summary = out.match(/^ℹ (tests|pass|fail|skipped|duration_ms) .*$/gm) ?? [];
  t.diagnostic(summary.join(', '));
  assert.equal(code, 0, out.split('\n').slice(-SHOWN_LINES).join('\n'));
});
