import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { chmod, readdir, readFile, rename, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type AccessLogOptions, type AccessRecord, createAccessLog } from '../src/audit/access-log.ts';
import { createLog } from '../src/log.ts';
import { type Line, makePipe, newRecord, PROJECT, parseLines, USER, useFolder, usePipe } from './support/access.ts';
import { until } from './support/until.ts';

const folder = await useFolder();

const newPath = () => join(folder, randomUUID());

/** An access log, and what the service's own log heard of it. */
const open = async (to: string, options: Partial<AccessLogOptions> = {}) => {
  const heard: Line[] = [];
  const log = createLog('info', { write: (line: string) => heard.push(JSON.parse(line)) });
  const place = { to, own: false };
  return { heard, accessLog: await createAccessLog({ place, reads: 'all', full: 'drop', ...options }, log) };
};

const linesOf = async (path: string): Promise<Line[]> => parseLines(await readFile(path, 'utf8'));

/** What a log wrote for these calls, in all. */
const written = async (calls: readonly AccessRecord[], options: Partial<AccessLogOptions> = {}): Promise<Line[]> => {
  const path = newPath();
  const { accessLog } = await open(path, options);
  for (const each of calls) accessLog.record(each);
  await accessLog.close();
  return linesOf(path);
};

const sum = (numbers: readonly unknown[]): number => numbers.reduce<number>((total, each) => total + Number(each), 0);

const ofKind = (lines: readonly Line[], kind: string): Line[] => lines.filter((line) => line.kind === kind);

describe('a record', () => {
  it('is one line of JSON with ids and names, and without what is not known', async () => {
    const correlationId = randomUUID();
    const full = newRecord({ users: [USER], correlationId });
    const least = newRecord({ caller: '', actor: null, projects: [], result: 'UNAUTHENTICATED', correlationId });
    const lines = await written([full, least]);
    for (const { time } of lines) assert.ok(Math.abs(Date.parse(time as string) - Date.now()) < 60_000);
    const common = { kind: 'access', rpc: full.rpc, correlation_id: correlationId, duration_ms: 1.5 };
    assert.deepEqual(
      lines.map(({ time, ...rest }) => rest),
      [
        { ...common, caller: 'orchestrator', actor: USER, projects: [PROJECT], users: [USER], result: 'OK' },
        { ...common, result: 'UNAUTHENTICATED' },
      ],
    );
  });

  it('names every project of a call about many', async () => {
    const projects = Array.from({ length: 1000 }, () => randomUUID());
    const [line] = await written([newRecord({ projects })]);
    assert.deepEqual(line?.projects, projects);
  });

  it('stays one line whatever the caller is called', async () => {
    const [line, ...others] = await written([newRecord({ caller: 'a"b\\c é' })]);
    assert.equal(line?.caller, 'a"b\\c é');
    assert.deepEqual(others, []);
  });
});

describe('reads', () => {
  const calls = [
    newRecord(),
    newRecord({ result: 'OPENED' }),
    newRecord({ result: 'CANCELLED' }),
    newRecord({ result: 'PROJECT_NOT_FOUND' }),
    newRecord({ read: false }),
  ];
  const own = ['CANCELLED', 'PROJECT_NOT_FOUND', 'OK'];

  it('each leave a record', async () => {
    const lines = await written(calls);
    assert.deepEqual(
      lines.map(({ result }) => result),
      ['OK', 'OPENED', ...own],
    );
  });

  it('leave none where only writes are wanted, unless refused', async () => {
    const lines = await written(calls, { reads: 'writes' });
    assert.deepEqual(
      lines.map(({ result }) => result),
      own,
    );
  });

  it('are counted by the second, actor, caller, RPC, project and result, unless refused', async () => {
    const reads = [
      newRecord({ durationMs: 1 }),
      newRecord({ durationMs: 3 }),
      newRecord({ durationMs: 2 }),
      newRecord({ actor: null }),
      newRecord({ caller: 'other' }),
      newRecord({ rpc: 'other' }),
      newRecord({ projects: [PROJECT, USER] }),
      newRecord({ result: 'OPENED' }),
    ];
    const lines = await written([...calls.slice(2), ...reads], { reads: 'aggregate' });
    assert.deepEqual(
      ofKind(lines, 'access').map(({ result }) => result),
      own,
    );
    const counted = ofKind(lines, 'aggregate');
    assert.equal(sum(counted.map(({ count }) => count)), reads.length);
    const [{ time, ...first } = {}] = counted;
    assert.match(time as string, /\.000Z$/);
    assert.deepEqual(first, {
      kind: 'aggregate',
      rpc: reads[0]?.rpc,
      caller: 'orchestrator',
      actor: USER,
      projects: [PROJECT],
      result: 'OK',
      count: 3,
      max_duration_ms: 3,
    });
    const kinds = new Set(
      counted.map(({ rpc, caller, actor, projects, result }) => `${rpc}${caller}${actor}${projects}${result}`),
    );
    assert.equal(kinds.size, 6);
  });

  it('are counted exactly, however many kinds there are', async () => {
    const kinds = 12_000;
    const calls = Array.from({ length: kinds }, () => newRecord({ actor: randomUUID() }));
    const lines = await written([...calls, ...calls], { reads: 'aggregate', full: 'refuse' });
    assert.equal(sum(lines.map(({ count }) => count)), 2 * kinds);
  });
});

/** More than waits at most: some 6 MB. */
const MANY = 20_000;

describe('a consumer that stops reading', () => {
  it('loses records that are counted, in the stream and in the log, and gets all others in order', async () => {
    const pipe = usePipe(folder);
    const { accessLog, heard } = await open(pipe.path);
    for (let i = 0; i < MANY; i++) accessLog.record(newRecord({ durationMs: i }));
    accessLog.admit();
    assert.equal(heard.length, 1, 'told once');
    pipe.readOn();
    await until(() => ofKind(pipe.lines(), 'dropped').length > 0, 'the count of the dropped');
    accessLog.record(newRecord({ durationMs: MANY }));
    await accessLog.close();
    await until(() => pipe.lines().at(-1)?.duration_ms === MANY, 'the last record');

    const lines = pipe.lines();
    const access = ofKind(lines, 'access');
    const [dropped, ...others] = ofKind(lines, 'dropped');
    assert.deepEqual(others, []);
    assert.equal(Number(dropped?.count) + access.length, MANY + 1);
    assert.deepEqual(
      access.slice(0, -1).map(({ duration_ms }) => duration_ms),
      Array.from({ length: access.length - 1 }, (_, i) => i),
    );
    assert.deepEqual(
      heard.map(({ dropped }) => dropped),
      [undefined, dropped?.count],
    );
  });

  it('has calls refused until it reads on, and gets the record of each that was let in', async () => {
    const pipe = usePipe(folder);
    const { accessLog, heard } = await open(pipe.path, { full: 'refuse' });
    let recorded = 0;
    const refused = () => {
      try {
        accessLog.admit();
        return false;
      } catch (error) {
        assert.equal((error as { reason?: string }).reason, 'OVERLOADED');
        return true;
      }
    };
    while (!refused()) accessLog.record(newRecord({ durationMs: recorded++ }));
    for (let i = 0; i < 3000; i++) accessLog.record(newRecord({ durationMs: recorded++ }));
    for (let i = 0; i < 50_000; i++) {
      accessLog.record(newRecord({ admitted: false, result: i % 2 === 0 ? 'OVERLOADED' : 'CANCELLED' }));
    }
    assert.equal(heard.length, 1, 'told once');
    pipe.readOn();
    await until(() => !refused(), 'calls are let in');
    accessLog.record(newRecord({ durationMs: recorded++ }));
    await accessLog.close();
    await until(() => pipe.lines().at(-1)?.duration_ms === recorded - 1, 'the last record');

    const lines = pipe.lines();
    assert.deepEqual(
      ofKind(lines, 'access').map(({ duration_ms }) => duration_ms),
      Array.from({ length: recorded }, (_, i) => i),
    );
    assert.deepEqual(ofKind(lines, 'dropped'), []);
    assert.deepEqual(
      ofKind(lines, 'refused').map(({ count }) => count),
      [50_000],
    );
  });

  it('at standard output holds up neither the process nor its end', async () => {
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('support/access-writer.ts', import.meta.url)), String(MANY)],
      {
        stdio: ['ignore', openSync(usePipe(folder).path, constants.O_RDWR), 'pipe'],
      },
    );
    after(() => child.kill('SIGKILL'));
    let log = '';
    child.stderr?.on('data', (chunk) => {
      log += chunk;
    });
    const [code] = await once(child, 'exit', { signal: AbortSignal.timeout(30_000) });
    assert.equal(code, 0);
    const lost = parseLines(log).at(-1) as Line;
    assert.match(lost.msg as string, /lost/);
    assert.ok(Number(lost.dropped) > 0 && Number(lost.dropped) < MANY);
  });
});

describe('a place that fails', () => {
  it('is said once in the log, and what is lost at the end too', async () => {
    const { accessLog, heard } = await open('/dev/full');
    accessLog.record(newRecord());
    accessLog.record(newRecord());
    await accessLog.close();
    assert.deepEqual(
      heard.map(({ level, dropped }) => [level, dropped]),
      [
        ['error', undefined],
        ['error', 2],
      ],
    );
    assert.equal((heard.at(0)?.err as Line | undefined)?.code, 'ENOSPC');
  });

  it('is tried again, and nothing is lost once it takes records', async () => {
    const pipe = usePipe(folder);
    const { accessLog, heard } = await open(pipe.path);
    closeSync(pipe.fd);
    accessLog.record(newRecord());
    await until(() => heard.length > 0, 'the failure is told');
    pipe.readOn();
    accessLog.record(newRecord());
    await until(() => pipe.lines().length === 2, 'both are there');
    await accessLog.close();
    assert.deepEqual(
      heard.map(({ level }) => level),
      ['error', 'warn'],
    );
  });

  it('refuses the start', async () => {
    const pipe = newPath();
    makePipe(pipe);
    await assert.rejects(open(pipe), /ACCESS_LOG.*nobody reads this pipe/);
    await assert.rejects(open(join(folder, 'no-such-folder', 'access.log')), /ACCESS_LOG.*ENOENT/);
    await assert.rejects(open(folder), /ACCESS_LOG.*EISDIR/);
  });
});

describe('a file', () => {
  it('goes on after what it holds, and is closed to others', async () => {
    const path = newPath();
    for (let start = 0; start < 2; start++) {
      const { accessLog } = await open(path);
      accessLog.record(newRecord());
      await accessLog.close();
    }
    assert.equal((await linesOf(path)).length, 2);
    assert.equal((await stat(path)).mode & 0o027, 0);
  });

  it('that was rotated away is opened anew, and each record is in one of the two', async () => {
    const path = newPath();
    const { accessLog } = await open(path);
    let recorded = 0;
    const record = () => accessLog.record(newRecord({ durationMs: recorded++ }));
    record();
    await until(async () => (await stat(path)).size > 0, 'the first record is there');
    await rename(path, `${path}.1`);
    await until(async () => {
      record();
      return (await stat(path).catch(() => null)) !== null;
    }, 'the new file');
    await accessLog.close();
    const lines = [...(await linesOf(`${path}.1`)), ...(await linesOf(path))];
    assert.deepEqual(
      lines.map(({ duration_ms }) => duration_ms),
      Array.from({ length: recorded }, (_, i) => i),
    );
  });

  it('of the service itself is kept small by the service, which follows no link there', async () => {
    const path = newPath();
    await writeFile(path, '');
    await chmod(path, 0o600);
    await truncate(path, 64 * 1024 * 1024);
    const { accessLog } = await open(path, { place: { to: path, own: true } });
    accessLog.record(newRecord());
    await accessLog.close();
    assert.equal((await linesOf(path)).length, 1);
    const kept = (await readdir(dirname(path))).filter((name) => name.startsWith(`${basename(path)}.2`));
    assert.equal(kept.length, 1, 'the earlier file has the time in its name');
    assert.equal((await stat(join(dirname(path), kept[0] ?? ''))).size, 64 * 1024 * 1024);
    const link = newPath();
    await symlink(path, link);
    await assert.rejects(open(link, { place: { to: link, own: true } }), /ACCESS_LOG.*ELOOP/);
  });
});
