import { setTimeout as sleep } from 'node:timers/promises';
import {
  type DatabaseHealth,
  type DatabaseService,
  DatabaseStatus,
} from '../gen/jeex/persistence/v1/database_service_pb.js';
import { Refusal } from '../refusal.ts';
import type { Call } from '../rpc/call.ts';
import type { Context } from '../rpc/context.ts';
import { duration, oneOr, timestamp } from '../rpc/convert.ts';
import type { ServiceHandlers } from '../rpc/handlers.ts';
import { MAX_MESSAGE_BYTES, MAX_PAGE_BYTES } from '../rpc/limits.ts';
import { MAX_STRUCT_BYTES, MAX_STRUCT_DEPTH } from '../rpc/text.ts';
import { compareMigrations, type MigrationFile } from './database.ts';
import { measureHealth } from './health.ts';
import type { ReadPools } from './pgbouncer-pools.ts';
import * as statements from './sql.ts';

/** What this service is, as who started it knows. */
export interface About {
  readonly serviceVersion: string;
  /** Whether the service takes calls: looked at by WatchHealth, which then asks the database itself. */
  readonly health: { readonly ready: boolean };
  readonly migrations: readonly MigrationFile[];
  readonly pgbouncerPools: ReadPools;
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
const WATCH_MS = 500;
/** How often, in milliseconds, it asks whether its actor is still one. */
const ADMIT_MS = 5_000;

const unanswered = (): Refusal => new Refusal('INTERNAL', 'the database gave no row');

/** What WatchHealth tells the changes by. */
const mark = ({ status, alerts }: DatabaseHealth): string => JSON.stringify([status, alerts.map(({ name }) => name)]);

/** Ends the stream of an actor that was erased; a database that does not answer is what the stream is there to tell. */
const admitAgain = async ({ db }: Context, { actor, signal }: Call): Promise<void> => {
  try {
    await db.run(statements.admit, { actor }, signal);
  } catch (error) {
    if (error instanceof Refusal && error.reason === 'ACTOR_UNKNOWN') throw error;
  }
};

/** The health at once, then each time it is another. Asks the database again only while something looks wrong. */
async function* watchHealth(context: Context, { health, pgbouncerPools }: About, call: Call) {
  const { db } = context;
  const { actor, signal } = call;
  let last = await measureHealth(db, pgbouncerPools, actor, signal);
  let admitted = performance.now();
  yield { health: last };
  for (;;) {
    await sleep(WATCH_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
    if (actor !== null && performance.now() - admitted >= ADMIT_MS) {
      await admitAgain(context, call);
      admitted = performance.now();
    }
    if (health.ready && last.status === DatabaseStatus.HEALTHY) continue;
    const now = await measureHealth(db, pgbouncerPools, null, signal);
    if (mark(now) === mark(last)) continue;
    last = now;
    yield { health: now };
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
  const { db, pager } = context;
  return {
    getServerInfo: async (_request, call) => {
      const rows = await db.run(statements.schemaVersion, { actor: call.actor }, call.signal);
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

    getDatabaseHealth: async (_request, call) => ({
      health: await measureHealth(db, about.pgbouncerPools, call.actor, call.signal),
    }),

    // The service keeps no statistics of statements, and PostgreSQL none without its extension: nothing is known to be slow.
    listSlowQueries: async (request, call) => {
      pager.read(call, request, request.pageToken);
      await db.run(statements.admit, { actor: call.actor }, call.signal);
      return { queries: [] };
    },

    getMigrationStatus: async (_request, call) => {
      const rows = await db.run(statements.migrations, { actor: call.actor }, call.signal);
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

    watchHealth: (_request, call) => watchHealth(context, about, call),
  };
};
