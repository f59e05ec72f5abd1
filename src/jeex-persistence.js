#!/usr/bin/env node
// The command's entry: plain JavaScript that an old Node can read, since it runs before the version is known.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const REQUIRED_MAJOR = 24;

/** The Node that came with this package's dependencies, or null when it is not installed. */
function bundledNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve('node/package.json');
    const program = join(dirname(manifest), 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
    return existsSync(program) ? program : null;
  } catch {
    return null;
  }
}

function fail(message) {
  process.stderr.write(`jeex-persistence: ${message}\n`);
  process.exit(1);
}

/** Runs this command again under another Node and stands in for it: same streams, signals and exit code. */
function handOver(program) {
  const child = spawn(program, [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => fail(`the bundled Node ${program} did not start: ${error.message}`));
  child.on('exit', (code, signal) => {
    process.exit(signal ? 128 + constants.signals[signal] : code);
  });
}

if (Number.parseInt(process.versions.node, 10) >= REQUIRED_MAJOR) {
  await import('./main.ts');
} else {
  const program = bundledNode();
  if (program === null) {
    fail(
      `needs Node ${REQUIRED_MAJOR} or later, and this is Node ${process.versions.node}. ` +
        'The bundled Node is not there: run `npm ci` in the package folder with install scripts and optional ' +
        `dependencies (or \`npm rebuild node\`), or install Node ${REQUIRED_MAJOR}.`,
    );
  }
  handOver(program);
}
