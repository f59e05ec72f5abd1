import { setTimeout as sleep } from 'node:timers/promises';
import type { Database } from '../db/pool.ts';
import type { DatabaseService } from '../gen/jeex/persistence/v1/database_service_pb.js';
import { inTime } from '../in-time.ts';
import type { Monitor } from '../monitor/monitor.ts';
import { type Report, statusOf } from '../monitor/report.ts';
import type { ReadSlowQueries } from '../monitor/slow-queries.ts';
import { Refusal } from '../refusal.ts';
import type { Call } from '../rpc/call.ts';
import type { Context } from '../rpc/context.ts';
import { duration, oneOr, timestamp } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { MAX_MESSAGE_BYTES, MAX_PAGE_BYTES } from '../rpc/limits.ts';
import { MAX_STRUCT_BYTES, MAX_STRUCT_DEPTH } from '../rpc/text.ts';
import { compareMigrations, type MigrationFile } from './database.ts';
import { healthOf, sampleOf } from './health.ts';
import { slowQueryLister } from './slow-queries.ts';
import * as statements from './sql.ts';

/** What this service is, as who started it knows. */
export interface About {
  /** A connection that waits for no caller's. */
  readonly aside: Database;
  readonly serviceVersion: string;
  readonly monitor: Pick<Monitor, 'report' | 'current' | 'samples'>;
  readonly migrations: readonly MigrationFile[];
  readonly slowQueries: ReadSlowQueries;
}

/** What is switched on. */
const FEATURES = ['connect', 'full-text-search', 'grpc-web', 'health', 'reflection', 'watch'];

/** The limits of the contract that a caller may run into, by name. */
const LIMITS: Readonly<Record<string, bigint>> = {
  message_bytes: BigInt(MAX_MESSAGE_BYTES),
  page_bytes: BigInt(MAX_PAGE_BYTES),
  page_size: 1000n,
  struct_bytes: BigInt(MAX_STRUCT_BYTES),
  struct_depth: BigInt(MAX_STRUCT_DEPTH),
  content_bytes: 3_145_728n,
  payload_bytes: 1_048_576n,
  batch_append_versions: 100n,
  batch_get_versions: 100n,
  batch_get_users: 1000n,
  batch_create_executions: 1000n,
  watch_cursors: 1000n,
  export_documents: 20_000n,
  export_ttl_seconds: 2_592_000n,
  lease_seconds: 3600n,
  project_members: 1000n,
  request_id_seconds: 86_400n,
};

/** How often a WatchHealth stream looks for a change, in milliseconds. */
const WATCH_MS = 250;
/** How often, in milliseconds, it asks whether its actor is still one. */
const ADMIT_AGAIN_MS = 5_000;
/** How long health waits to be told whether its actor is one, in milliseconds. */
const ADMIT_MS = 500;
/** How many such questions may wait on the connection kept for them: readiness is asked there too. */
const MAX_ASIDE = 16;

const unanswered = (): Refusal => new Refusal('INTERNAL', 'the database gave no row');

/**
 * Refuses an actor that is none. A database that does not answer, and a pool whose connections are all in use, is what health
 * is there to tell, and keeps nobody from it.
 * @throws ACTOR_UNKNOWN
 */
const admit = async ({ db }: Context, { aside }: About, call: Call): Promise<void> => {
  const { actor } = call;
  if (actor === null) return;
  const patience = AbortSignal.timeout(ADMIT_MS);
  const way = aside.state().waiting < MAX_ASIDE ? aside : db;
  const asked = way.run(statements.admit, { actor }, { ...call, signal: patience }).then(
    () => {},
    (error: unknown) => {
      if (error instanceof Refusal && error.reason === 'ACTOR_UNKNOWN') throw error;
    },
  );
  await inTime(asked, ADMIT_MS, undefined);
};

/** What WatchHealth tells the changes by. */
const mark = (report: Report): string =>
  JSON.stringify([statusOf(report), report.alerts.map(({ name, severity }) => [name, severity])]);

/** The health at once, then each time it is another. */
async function* watchHealth(context: Context, about: About, call: Call) {
  const { monitor } = about;
  const { actor, signal } = call;
  const [first] = await Promise.all([monitor.current(), admit(context, about, call)]);
  let told = mark(first);
  let admitted = performance.now();
  yield { health: healthOf(first) };
  for (;;) {
    await sleep(WATCH_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
    if (actor !== null && performance.now() - admitted >= ADMIT_AGAIN_MS) {
      await admit(context, about, call);
      admitted = performance.now();
    }
    if (mark(monitor.report) === told) continue;
    const report = await monitor.current();
    if (mark(report) === told) continue;
    told = mark(report);
    yield { health: healthOf(report) };
  }
}

const MICROS_PER_MS = 1000n;

const toMigration = ({ version, name, checksum, time, release, duration_ms }: statements.MigrationRow) => ({
  version,
  name,
  checksum,
  applyTime: timestamp(time),
  release: release ?? '',
  duration: duration_ms === null ? undefined : duration(duration_ms * MICROS_PER_MS),
});

export const databaseHandlers = (context: Context, about: About): ServiceHandlers<typeof DatabaseService> => {
  const { db } = context;
  return {
    getServerInfo: async (_request, call) => {
      const rows = await db.run(statements.schemaVersion, { actor: call.actor }, call);
      const { version } = oneOr(rows, unanswered);
      return {
        info: {
          serviceVersion: about.serviceVersion,
          schemaVersion: version,
          features: FEATURES,
          limits: LIMITS,
        },
      };
    },

    getDatabaseHealth: async (_request, call) => {
      const [report] = await Promise.all([about.monitor.current(), admit(context, about, call)]);
      return { health: healthOf(report) };
    },

    listSlowQueries: slowQueryLister(context, about.slowQueries),

    getMigrationStatus: async (_request, call) => {
      const rows = await db.run(statements.migrations, { actor: call.actor }, call);
      const applied = rows.filter((row) => row.version !== null);
      const { pending, mismatches, oldest } = compareMigrations(about.migrations, applied);
      return {
        applied: applied.map(toMigration),
        pending: pending.map(({ version, name, checksum }) => ({ version, name, checksum })),
        oldestRelease: oldest,
        checksumMismatches: mismatches.map((found) => ({
          version: found.version,
          name: found.name,
          appliedChecksum: found.applied,
          fileChecksum: found.file ?? '',
        })),
      };
    },

    getHealthHistory: async (_request, call) => {
      await admit(context, about, call);
      return { samples: about.monitor.samples.map(sampleOf) };
    },

    watchHealth: (_request, call) => watchHealth(context, about, call),
  };
};
