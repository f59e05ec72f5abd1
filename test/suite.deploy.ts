import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { ROOT } from './support/docker.ts';
import { NO_DOCKER } from './support/stack.ts';

/** What a run that failed shows of itself at least: node:test repeats its failures at the end. */
const SHOWN_LINES = 300;

// A run within a run would report to the outer one, in the runner's own format.
const { NODE_TEST_CONTEXT: _outer, ...environment } = process.env;

/** How a test file that reaches a database begins. */
const REACHES_A_DATABASE = /\/support\/(?:service|postgres|examples|spawned|pooled|command|embedded-service)\.ts'/;
/** What these are about ends before the database, or has connections of its own past PgBouncer. */
const ABOUT_SOMETHING_ELSE =
  /^test\/(?:access|alerts|auth|config|doors|health|log|manifests|metrics|migrat|monitor|page|readme|server-timing|slow-queries|telemetry|tls)/;
const ALL = "'test/*.test.ts'";

/** `npm test`, but for the files that would see nothing of PgBouncer. */
const suiteCommand = (): string => {
  const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  assert.ok(scripts.test.includes(ALL));
  const reaching = globSync('test/*.test.ts', { cwd: ROOT }).filter(
    (file) => !ABOUT_SOMETHING_ELSE.test(file) && REACHES_A_DATABASE.test(readFileSync(join(ROOT, file), 'utf8')),
  );
  assert.ok(reaching.length > 30);
  return scripts.test.replace(ALL, reaching.sort().join(' '));
};

test('every test of what is kept passes through PgBouncer, as jeex_app, over TLS', {
  skip: NO_DOCKER,
}, async (t) => {
  const child = spawn('npm', ['exec', '--call', suiteCommand()], {
    cwd: ROOT,
    env: { ...environment, TEST_PGBOUNCER: 'true' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [out, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  const summary = out.match(/^ℹ (tests|pass|fail|skipped|duration_ms) .*$/gm) ?? [];
  t.diagnostic(summary.join(', '));
  assert.equal(code, 0, out.split('\n').slice(-SHOWN_LINES).join('\n'));
});
