import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { Client } from 'pg';
import { startEmbedded } from '../../src/db/embedded.ts';
import { withDatabase } from '../../src/db/roles.ts';
import { openChannel } from '../support/client.ts';
import { runCommand } from '../support/command.ts';
import { startService } from '../support/spawned.ts';
import { until } from '../support/until.ts';
import { fill } from './fill.ts';
import { readsOf } from './reads.ts';
import { type Asked, type Recorded, record } from './recording.ts';

// Makes the fixture of a release from a checkout of it: `node test/releases/make.ts CHECKOUT`, with that release's
// node_modules in the checkout, and pg_dump 18 or Docker.

const DATABASE = 'jeex';
const ENCRYPTION_KEYS = `1:${'f1'.repeat(32)}`;

/** What a release's service would do by itself as time goes by is put off, so that the data stays what it is. */
const PUT_OFF = `
  update projects set purge_time = '2999-01-31' where delete_time is not null;
  update agent_executions set create_time = '2999-01-01' where status = 'PENDING';
  update agent_executions set lease_expire_time = '2999-01-31' where status = 'RUNNING';
  update exports set create_time = '2999-01-01', expire_time = '2999-01-31';
  update exports set lease_expire_time = '2999-01-31' where status = 'PROCESSING';
  update requests set create_time = '2999-01-01';`;

const run = promisify(execFile);

const main = async (checkout: string): Promise<void> => {
  const { version } = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8')) as { version: string };
  const folder = join(import.meta.dirname, version);
  if (existsSync(folder)) throw new Error(`${folder} is there: what a release left behind is made once`);
  const { adminUrl, stop } = await startEmbedded({ dataDir: '', ephemeral: true, log: { info: () => {} } });
  try {
    const answers = await play(join(checkout, 'src/jeex-persistence.js'), adminUrl);
    const dump = await dumped(withDatabase(adminUrl, DATABASE));
    mkdirSync(folder);
    const lines = answers.map((answer) => `${JSON.stringify(answer)}\n`).join('');
    writeFileSync(join(folder, 'answers.jsonl.gz'), gzipSync(lines, { level: 9 }));
    writeFileSync(join(folder, 'data.sql.gz'), gzipSync(dump, { level: 9 }));
    writeFileSync(join(folder, 'encryption_keys'), `${ENCRYPTION_KEYS}\n`);
    process.stdout.write(`${folder}: ${answers.length} answers\n`);
  } finally {
    await stop();
  }
};

/** Fills a database by the release's own demo and by calls, and records what the release answers about it. */
const play = async (entry: string, adminUrl: string): Promise<Recorded[]> => {
  const command = async (args: string[], env = {}): Promise<string> => {
    const { code, out, err } = await runCommand(args, env, '', entry);
    if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}:\n${out}${err}`);
    return out;
  };
  const printed = await command(['bootstrap', '--database', DATABASE], { ADMIN_DATABASE_URL: adminUrl });
  const urls = Object.fromEntries(
    [...printed.matchAll(/^(\w*DATABASE_URL)=(.+)$/gm)].map(([, name, url]) => [name, url]),
  );
  const service = await startService({ ...urls, ENCRYPTION_KEYS, MIGRATE: 'auto' }, [], entry);
  const channel = openChannel(service.grpc);
  const admin = new Client({ connectionString: withDatabase(adminUrl, DATABASE), options: '-c search_path=jeex' });
  try {
    await admin.connect();
    await command(['demo', '--address', service.grpc]);
    const kept = await fill(channel);
    await until(() => isIndexed(admin), 'every head is indexed for the search');
    await admin.query(PUT_OFF);
    const read: Recorded[] = [];
    for (const asked of await readsOf(admin)) read.push(await recordNamed(channel, asked));
    return [...kept, ...read];
  } finally {
    await admin.end();
    channel.close();
    await service.stop();
  }
};

const recordNamed = async (channel: Parameters<typeof record>[0], asked: Asked): Promise<Recorded> => {
  try {
    return await record(channel, asked);
  } catch (cause) {
    throw new Error(`the release refuses ${JSON.stringify(asked)}`, { cause });
  }
};

const isIndexed = async (admin: Client): Promise<boolean> => {
  const { rowCount } = await admin.query('select from documents where search_version <> head_version limit 1');
  return rowCount === 0;
};

/** What `bootstrap` makes, and has made where the fixture is loaded. */
const LEFT_OUT = [
  ...['crypto', 'pooler', 'stats'].map((schema) => `--exclude-schema=${schema}`),
  ...['pgcrypto', 'pg_stat_statements'].map((extension) => `--exclude-extension=${extension}`),
];

/** Schema and data as statements that any client of PostgreSQL can send, run as a superuser. */
const dumped = async (url: string): Promise<string> => {
  const options = ['--inserts', '--rows-per-insert=100', '--no-comments', '--no-statistics', '--restrict-key=fixture'];

  const [program = '', ...before] = await pgDump();
  const { stdout } = await run(program, [...before, ...options, ...LEFT_OUT, `--dbname=${url}`], {
    maxBuffer: 256 * 1024 * 1024,
  });
  return stdout.replace(/^\\(un)?restrict fixture\n/gm, '');
};

/** PostgreSQL 18's pg_dump: this machine's, or that of the image of the deployment. */
const pgDump = async (): Promise<string[]> => {
  const { stdout } = await run('pg_dump', ['--version']).catch(() => ({ stdout: '' }));
  if (/ 18\./.test(stdout)) return ['pg_dump'];
  const image = `jeex-postgres:${process.env.JEEX_TAG ?? 'dev'}`;
  return ['docker', 'run', '--rm', '--network', 'host', '--entrypoint', 'pg_dump', image];
};

const [checkout] = process.argv.slice(2);
if (checkout === undefined) {
  process.stderr.write('give the folder of a release, with its node_modules: node test/releases/make.ts CHECKOUT\n');
  process.exitCode = 2;
} else {
  await main(resolve(checkout));
}
