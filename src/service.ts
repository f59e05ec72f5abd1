import type { AccessLog } from './audit/access-log.ts';
import { startAuthenticator } from './auth/authenticator.ts';
import { changeHandlers } from './changes/rpc.ts';
import type { Config } from './config.ts';
import { poolReader } from './database/pgbouncer-pools.ts';
import { type About, databaseHandlers } from './database/rpc.ts';
import { createConsole } from './db/pgbouncer.ts';
import { createDatabase } from './db/pool.ts';
import { checkRole } from './db/role-check.ts';
import { documentHandlers } from './documents/rpc.ts';
import { executionHandlers } from './executions/rpc.ts';
import { exportHandlers } from './exports/rpc.ts';
import { AgentExecutionService } from './gen/jeex/persistence/v1/agent_execution_service_pb.js';
import { ChangeService } from './gen/jeex/persistence/v1/change_service_pb.js';
import { DatabaseService } from './gen/jeex/persistence/v1/database_service_pb.js';
import { DocumentService } from './gen/jeex/persistence/v1/document_service_pb.js';
import { ExportService } from './gen/jeex/persistence/v1/export_service_pb.js';
import { ProjectService } from './gen/jeex/persistence/v1/project_service_pb.js';
import { UserService } from './gen/jeex/persistence/v1/user_service_pb.js';
import type { Logger } from './log.ts';
import { latestVersion, migrationFiles } from './migrator/files.ts';
import { checkPools } from './pool-check.ts';
import { projectHandlers } from './projects/rpc.ts';
import { watchReadiness } from './readiness.ts';
import type { Context } from './rpc/context.ts';
import { type BoundAddresses, createDoors } from './rpc/doors.ts';
import { type Implementation, implement } from './rpc/handlers.ts';
import { createHealth } from './rpc/health.ts';
import { requestIdentifier } from './rpc/identity.ts';
import { createPager } from './rpc/page.ts';
import { openTls } from './rpc/tls.ts';
import type { KeyRing } from './sealing/ring.ts';
import { openSealing } from './sealing/sealing.ts';
import { startSweeper } from './sweeper.ts';
import { userHandlers } from './users/rpc.ts';
import { VERSION } from './version.ts';

/** How long connections have to close once their calls have ended, in milliseconds. */
const CLOSE_MS = 1000;

interface ServiceOptions {
  readonly config: Config;
  /** As jeex_app. */
  readonly databaseUrl: string;
  /** What opens and seals what is kept encrypted. */
  readonly ring: KeyRing;
  readonly accessLog: AccessLog;
  readonly log: Logger;
}

export interface Service {
  readonly addresses: BoundAddresses;
  /** Drains and closes: calls in flight finish, for the configured grace at most. */
  stop(): Promise<void>;
}

/** Every service of the contract. */
export const SERVICES = [
  UserService,
  ProjectService,
  DocumentService,
  AgentExecutionService,
  ExportService,
  ChangeService,
  DatabaseService,
] as const;

const implementations = (context: Context, about: About): Implementation[] => [
  implement(UserService, userHandlers(context)),
  implement(ProjectService, projectHandlers(context)),
  implement(DocumentService, documentHandlers(context)),
  implement(AgentExecutionService, executionHandlers(context)),
  implement(ExportService, exportHandlers(context)),
  implement(ChangeService, changeHandlers(context)),
  implement(DatabaseService, databaseHandlers(context, about)),
];

/**
 * Serves a migrated database on both doors. What was opened closes in reverse order, also when the start fails.
 * @throws Error when the database role could see too much, the key ring does not open the database, an address is taken or
 *   not allowed, or a TLS file or the keys of tokens cannot be used
 */
export const startService = async (options: ServiceOptions): Promise<Service> => {
  const { config, databaseUrl, ring, accessLog, log } = options;
  await using opened = new AsyncDisposableStack();
  const authenticator = config.auth && (await startAuthenticator(config.auth, log));
  opened.defer(() => authenticator?.stop());
  const tls = config.tls && (await openTls(config.tls, log));
  opened.defer(() => tls?.close());
  if (tls && !config.healthListen)
    log.info('HEALTH_LISTEN is unset: gRPC probes of Kubernetes speak no TLS, and need it');
  // One more connection is the readiness check's.
  const db = await createDatabase({ url: databaseUrl, size: config.poolSize - 1, waitMs: config.poolWaitMs });
  opened.defer(() => db.end());
  await checkRole(db, log);
  const pooler = config.pgbouncerAdminUrl === null ? null : createConsole(config.pgbouncerAdminUrl);
  opened.defer(() => pooler?.end());
  await checkPools({ db, databaseUrl, pooler, config, log });

  const sealing = await openSealing(db, ring);
  const context: Context = { db, pager: createPager(sealing.pageTokenKey), sealing };
  const migrations = migrationFiles();
  const health = createHealth(SERVICES.map(({ typeName }) => typeName));
  const services = implementations(context, {
    serviceVersion: VERSION,
    health,
    migrations,
    pgbouncerPools: poolReader(pooler, log),
  });
  const readiness = await watchReadiness({ url: databaseUrl, requiredVersion: latestVersion(migrations), health, log });
  opened.defer(() => readiness.stop());
  const sweeper = startSweeper({ db, log });
  opened.defer(() => sweeper.stop());

  const doors = createDoors({
    grpcListen: config.grpcListen,
    httpListen: config.httpListen,
    healthListen: config.healthListen,
    tls,
    authenticate: authenticator?.authenticate ?? null,
    identifyRequest: requestIdentifier(sealing.requestKey),
    allowedOrigins: config.allowedOrigins,
    implementations: services,
    health,
    log,
    accessLog,
    version: VERSION,
  });
  const addresses = await doors.start();
  const graceMs = config.shutdownGraceSeconds * 1000;
  const closing = opened.move();
  closing.defer(async () => {
    await doors.drain(graceMs);
    await doors.stop(CLOSE_MS);
  });
  return { addresses, stop: () => closing.disposeAsync() };
};
