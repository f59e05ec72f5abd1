import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Fault } from './soak/fault.ts';
import { FAULTS } from './soak/faults/index.ts';
import type { Report } from './soak/report.ts';
import { schedule } from './soak/schedule.ts';
import { BASE_ENVIRONMENT } from './support/spawned.ts';

const MAIN = fileURLToPath(new URL('./soak/main.ts', import.meta.url));
const SEED = 7;

/** Runs the soak as anybody would. */
const soak = async (...args: readonly string[]) => {
  const child = spawn(process.execPath, [MAIN, ...args], { env: BASE_ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
  after(() => child.kill());
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  return { out, err, code };
};

/** What the seed's first round is, of those faults that are there. */
const firstRound = (there: readonly Fault[]): string[] => {
  const steps = schedule(SEED, FAULTS);
  const all = FAULTS.map(() => steps.next().value.fault as Fault);
  return all.filter((fault) => there.includes(fault)).map(({ name }) => name);
};

describe('the soak', () => {
  it('inflicts every fault once, in the order of its seed, and no promise breaks', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'jeex-soaked-'));
    after(() => rmSync(folder, { recursive: true }));
    const json = join(folder, 'report.json');
    const { out, err, code } = await soak('--rounds', '1', '--direct', '--seed', `${SEED}`, '--json', json);
    assert.equal(code, 0, `${err}\n${out}`);
    const { outcome, verdict } = JSON.parse(readFileSync(json, 'utf8')) as Report;
    const there = FAULTS.filter(({ name }) => outcome.faults.find((fault) => fault.name === name)?.missing === null);
    // What takes Docker, and what takes root.
    assert.ok(there.length >= FAULTS.length - 3);
    assert.deepEqual(outcome.order, firstRound(there));
    assert.ok(verdict.acknowledged > 0);
    assert.match(out, /^PASSED$/m);
  });

  it('refuses arguments that it does not know', async () => {
    const { err, code } = await soak('--only', 'earthquake');
    assert.equal(code, 2);
    assert.match(err, /there is no earthquake/);
  });
});
