// What a backfill in batches does to those who call meanwhile (REQ-003): a gigabyte of documents, on an embedded PostgreSQL
// and a service of its own; a migration adds a column, the next one fills it, while callers read and append. It ends with 1
// unless the migrations take less than five minutes, no call fails, and none waits for the migrator longer than 100 ms.

import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { credentials, Client as GrpcClient } from '@grpc/grpc-js';
import { Client } from 'pg';
import { loadConfig } from '../../src/config.ts';
import { type Provided, provideDatabase } from '../../src/db/provide.ts';
import { UserService } from '../../src/gen/jeex/persistence/v1/user_service_pb.js';
import { latestVersion, MIGRATIONS, number } from '../../src/migrator/files.ts';
import { up } from '../../src/migrator/migrate.ts';
import { KINDS, latencies, startCallers } from '../support/backfill-callers.ts';
import { clientOf } from '../support/client.ts';
import { type Spawned, startService } from '../support/spawned.ts';

const { values: options } = parseArgs({
  options: {
    documents: { type: 'string', default: '10000' },
    kib: { type: 'string', default: '105' },
    projects: { type: 'string', default: '400' },
    /** Of each kind. */
    callers: { type: 'string', default: '2' },
    /** How long callers are watched before the migrations, in seconds. */
    before: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});

const PROJECTS = Number(options.projects);
const VERSIONS = Math.ceil(Number(options.documents) / PROJECTS);
/** Of a document: random text that does not compress, some 90 bytes each. */
const WORDS = Math.ceil((Number(options.kib) * 1024) / 90);
const SAMPLE_MS = 20;
const MOST_MINUTES = 5;
const MOST_BLOCKED_MS = 100;

const BACKFILL = `-- run: batches
-- batch: document_bodies (project_id, sha256)
update document_bodies set words = cardinality(string_to_array(content, ' '))
where (project_id, sha256) between ($1, $2) and ($3, $4) and words is null;
`;

/** The release's migrations, and after them one that adds a column and one that fills it. */
const writeMigrations = (folder: string): string => {
  const directory = join(folder, 'migrations');
  cpSync(MIGRATIONS, directory, { recursive: true });
  const [expand, fill] = [number(latestVersion() + 1), number(latestVersion() + 2)];
  const files = {
    [`${expand}.do.words.sql`]: 'alter table document_bodies add column words integer;\n',
    [`${expand}.undo.words.sql`]: 'alter table document_bodies drop column words;\n',
    [`${fill}.do.count_words.sql`]: BACKFILL,
    [`${fill}.undo.count_words.sql`]: '-- The column goes with the migration before.\n',
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
};

const connect = async (url: string): Promise<Client> => {
  const client = new Client({ connectionString: url });
  await client.connect();
  await client.query('set search_path = jeex');
  return client;
};

/** Projects of one owner, each with a document of many versions, made inside the server. @returns their ids */
const load = async (url: string, actor: string): Promise<string[]> => {
  const client = await connect(url);
  const { rows } = await client.query<{ id: string }>(
    `with made as (
       insert into projects (name, language, created_by, owners, members, documents, versions, revision)
       select 'Bench ' || i, 'en', $1, 1, 1, 1, $3, $3 from generate_series(1, $2::int) i returning id
     ), owned as (
       insert into project_members (project_id, user_id, role) select id, $1, 'OWNER' from made
     )
     insert into documents (project_id, document_type, head_version, search_version, search)
     select id, 'idea', $3, $3, '' from made returning project_id as id`,
    [actor, PROJECTS, VERSIONS],
  );
  await client.query(
    `create function pg_temp.fill(project uuid, versions integer, words integer) returns void language sql
     set synchronous_commit = off as $$
       with made as (
         select v as version, string_agg(encode(sha512(format('%s %s %s', project, v, w)::bytea), 'base64'), ' ') as content
         from generate_series(1, versions) v, generate_series(1, words) w group by v
       ), bodies as (
         insert into document_bodies (project_id, sha256, content, size_bytes)
         select project, sha256(content::bytea), content, octet_length(content) from made
       )
       insert into document_versions (project_id, document_type, version, content_sha256, size_bytes, caller,
         correlation_id, create_time, project_revision)
       select project, 'idea', version, sha256(content::bytea), octet_length(content), 'bench', gen_random_uuid(), now(),
         version
       from made
     $$`,
  );
  for (const { id } of rows) await client.query('select pg_temp.fill($1, $2, $3)', [id, VERSIONS, WORDS]);
  await client.query('analyze document_bodies, document_versions, documents, projects');
  await client.end();
  return rows.map(({ id }) => id);
};

/** Looks every few milliseconds at who waits for the migrator, and how long it holds what it has. */
const startSampler = async (adminUrl: string) => {
  const client = await connect(adminUrl);
  const longest = { blockedMs: 0, transactionMs: 0, blockedBy: '' };
  let going = true;
  const watching = (async () => {
    while (going) {
      const { rows } = await client.query<{ waited: number | null; what: string | null; held: number | null }>(
        `with migrator as (
           select pid, extract(epoch from clock_timestamp() - xact_start)::float8 * 1000 as held
           from pg_stat_activity where application_name = 'jeex-persistence migrate'
         )
         select extract(epoch from clock_timestamp() - l.waitstart)::float8 * 1000 as waited,
           l.mode || ' on ' || coalesce(l.relation::regclass::text, l.locktype) as what, m.held
         from migrator m left join pg_locks l on not l.granted and l.pid <> m.pid and m.pid = any (pg_blocking_pids(l.pid))`,
      );
      for (const { waited, what, held } of rows) {
        longest.transactionMs = Math.max(longest.transactionMs, held ?? 0);
        if ((waited ?? 0) <= longest.blockedMs) continue;
        longest.blockedMs = waited ?? 0;
        longest.blockedBy = what ?? '';
      }
      await sleep(SAMPLE_MS);
    }
  })();
  return {
    longest,
    stop: async () => {
      going = false;
      await watching;
      await client.end();
    },
  };
};

/** What PostgreSQL itself counted of the batches' statement. */
const statementOf = async (adminUrl: string): Promise<{ batches: number; mean: number; max: number }> => {
  const client = await connect(adminUrl);
  const { rows } = await client.query<{ batches: number; mean: number; max: number }>(
    `select calls::int as batches, mean_exec_time as mean, max_exec_time as max from stats.pg_stat_statements
     where query like 'update document_bodies set words%'`,
  );
  await client.end();
  return rows[0] ?? { batches: 0, mean: 0, max: 0 };
};

/** How many of the loaded rows were filled with what is right. @throws Error when one was not */
const check = async (url: string): Promise<{ rows: number; bytes: number }> => {
  const client = await connect(url);
  const { rows } = await client.query<{ rows: number; right: number; bytes: number }>(
    `select count(*)::int as rows, count(*) filter (where b.words = $1)::int as right, sum(b.size_bytes)::float8 as bytes
     from document_versions v join document_bodies b on b.project_id = v.project_id and b.sha256 = v.content_sha256
     where v.document_type = 'idea'`,
    [WORDS],
  );
  await client.end();
  const [found] = rows;
  if (!found || found.right !== found.rows || found.rows !== PROJECTS * VERSIONS) {
    throw new Error(`${found?.right} of ${found?.rows} rows were filled, out of ${PROJECTS * VERSIONS}`);
  }
  return found;
};

const tell = (text: string): void => void process.stderr.write(`${text}\n`);

const measure = async (folder: string, address: string, { migrationUrl, adminUrl }: Provided) => {
  const channel = new GrpcClient(address, credentials.createInsecure());
  const { user } = await clientOf(UserService, channel).createUser({ email: 'bench@example.org', name: 'Bench' });
  channel.close();
  const actor = user?.id ?? '';
  tell(`loading ${PROJECTS * VERSIONS} documents of ${options.kib} KiB`);
  const projects = await load(migrationUrl, actor);
  const callers = startCallers({ address, actor, projects, versions: VERSIONS, ofEach: Number(options.callers) });
  tell(`watching the callers for ${options.before} s`);
  // The first calls warm what a service that has been running has warm.
  await sleep(3000);
  const watched = performance.now();
  await sleep(Number(options.before) * 1000);
  const sampler = await startSampler(adminUrl ?? '');
  const started = performance.now();
  const { steps } = await up(migrationUrl, { directory: writeMigrations(folder), embedded: true, log: { info: tell } });
  const ended = performance.now();
  await sampler.stop();
  await callers.stop();
  const seconds = (ended - started) / 1000;
  const { rows, bytes } = await check(migrationUrl);
  const statement = await statementOf(adminUrl ?? '');
  const [expand] = steps;
  return {
    gibibytes: bytes / 2 ** 30,
    rows,
    seconds,
    expandMs: expand?.durationMs ?? 0,
    rowsPerSecond: rows / seconds,
    batches: statement.batches,
    meanStatementMs: statement.mean,
    longestStatementMs: statement.max,
    longestTransactionMs: sampler.longest.transactionMs,
    longestBlockedMs: sampler.longest.blockedMs,
    blockedBy: sampler.longest.blockedBy,
    calls: KINDS.map((kind) => ({
      kind,
      before: latencies(callers.calls, kind, watched, started),
      during: latencies(callers.calls, kind, started, ended),
    })),
    failedCalls: callers.calls.flatMap(({ failure }) => failure ?? []),
  };
};

type Measured = Awaited<ReturnType<typeof measure>>;

const describe = (found: Measured): string => {
  const ms = (number: number) => `${number.toFixed(1)} ms`;
  const table = found.calls.flatMap(({ kind, before, during }) =>
    Object.entries({ before, during }).map(
      ([when, { calls, p50, p99, max }]) => `| ${kind} | ${when} | ${calls} | ${[p50, p99, max].map(ms).join(' | ')} |`,
    ),
  );
  return `${found.rows} rows, ${found.gibibytes.toFixed(2)} GiB, in ${found.seconds.toFixed(1)} s: \
${found.rowsPerSecond.toFixed(0)} rows/s in ${found.batches} batches
adding the column ${ms(found.expandMs)}; a batch's statement ${ms(found.meanStatementMs)}, at most \
${ms(found.longestStatementMs)}; the longest transaction seen ${ms(found.longestTransactionMs)}
the longest wait of a call for the migrator seen ${ms(found.longestBlockedMs)} ${found.blockedBy}
failed calls: ${found.failedCalls.length} ${found.failedCalls[0] ?? ''}

| call | | calls | p50 | p99 | max |
| --- | --- | --- | --- | --- | --- |
${table.join('\n')}
`;
};

const folder = mkdtempSync(join(tmpdir(), 'jeex-backfill-'));
// PostgreSQL's own account has to come through.
chmodSync(folder, 0o711);
let service: Spawned | undefined;
try {
  const env = { DATA_DIR: join(folder, 'data') };
  service = await startService({ ...env, LOG_LEVEL: 'warn' });
  const database = await provideDatabase(loadConfig(env), { share: true, log: { info: () => {} } });
  const found = await measure(folder, service.grpc, database);
  process.stdout.write(options.json ? `${JSON.stringify(found, null, 2)}\n` : describe(found));
  const { seconds, longestBlockedMs, failedCalls } = found;
  if (seconds > MOST_MINUTES * 60 || longestBlockedMs > MOST_BLOCKED_MS || failedCalls.length > 0) process.exitCode = 1;
} finally {
  await service?.stop();
  process.stderr.write(service?.log() ?? '');
  rmSync(folder, { recursive: true, force: true });
}
