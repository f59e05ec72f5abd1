import type { AccessLog } from './audit/access-log.ts';
import { changeHandlers } from './changes/rpc.ts';
import type { Config } from './config.ts';
import { type About, databaseHandlers } from './database/rpc.ts';
import { latestVersion, migrationFiles } from './db/migrator.ts';
import { createDatabase } from './db/pool.ts';
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
import { projectHandlers } from './projects/rpc.ts';
import { watchReadiness } from './readiness.ts';
import type { Context } from './rpc/context.ts';
import { type BoundAddresses, createDoors } from './rpc/doors.ts';
import { type Implementation, implement } from './rpc/handlers.ts';
import { createHealth } from './rpc/health.ts';
import { createPager } from './rpc/page.ts';
import { startSweeper } from './sweeper.ts';
import { userHandlers } from './users/rpc.ts';
import { VERSION } from './version.ts';

/** How long connections have to close once their calls have ended, in milliseconds. */
const CLOSE_MS = 1000;

interface ServiceOptions {
  readonly config: Config;
  /** As jeex_app. */
  readonly databaseUrl: string;
  /** Signs page tokens; the same for all replicas. */
  readonly pageTokenSecret: Buffer;
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
 * @throws Error when an address is taken or not allowed
 */
export const startService = async (options: ServiceOptions): Promise<Service> => {
  const { config, databaseUrl, pageTokenSecret, accessLog, log } = options;
  await using opened = new AsyncDisposableStack();
  const db = await createDatabase({ url: databaseUrl, size: config.poolSize });
  opened.defer(() => db.end());

  const context: Context = { db, pager: createPager(pageTokenSecret) };
  const migrations = migrationFiles();
  const health = createHealth(SERVICES.map(({ typeName }) => typeName));
  const services = implementations(context, {
    serviceVersion: VERSION,
    poolSize: config.poolSize,
    health,
    migrations,
  });
  const readiness = await watchReadiness({ url: databaseUrl, requiredVersion: latestVersion(migrations), health, log });
  opened.defer(() => readiness.stop());
  const sweeper = startSweeper({ db, log });
  opened.defer(() => sweeper.stop());

  const doors = createDoors({
    grpcListen: config.grpcListen,
    httpListen: config.httpListen,
    healthListen: config.healthListen,
    authenticate: null,
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
