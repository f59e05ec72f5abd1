import type { AccessLog } from './audit/access-log.ts';
import { startAuthenticator } from './auth/authenticator.ts';
import { announcing } from './changes/announce.ts';
import { changeHandlers } from './changes/rpc.ts';
import { startSignals } from './changes/signals.ts';
import type { Config } from './config.ts';
import { type About, databaseHandlers } from './database/rpc.ts';
import { createBreaker } from './db/breaker.ts';
import { placeOf } from './db/observe.ts';
import { createConsole } from './db/pgbouncer.ts';
import { createDatabase } from './db/pool.ts';
import { createRetries } from './db/retry.ts';
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
import { createAlerts } from './monitor/evaluate.ts';
import { startMonitor } from './monitor/monitor.ts';
import { createPlans } from './monitor/plans.ts';
import { poolerLook } from './monitor/pooler.ts';
import { createSession } from './monitor/session.ts';
import { createSlowLog } from './monitor/slow-log.ts';
import { slowQueryReader } from './monitor/slow-queries.ts';
import { configuredRules } from './monitor/thresholds.ts';
import { pageRoutes } from './page/page.ts';
import { checkPools } from './pool-check.ts';
import { projectHandlers } from './projects/rpc.ts';
import { watchReadiness } from './readiness.ts';
import type { Context } from './rpc/context.ts';
import { type BoundAddresses, createDoors, type Doors } from './rpc/doors.ts';
import { type Implementation, implement } from './rpc/handlers.ts';
import { createHealth } from './rpc/health.ts';
import { requestIdentifier } from './rpc/identity.ts';
import { metricsPage } from './rpc/metrics-page.ts';
import { createPager } from './rpc/page.ts';
import { openTls } from './rpc/tls.ts';
import type { KeyRing } from './sealing/ring.ts';
import { openSealing } from './sealing/sealing.ts';
import { startSweeper } from './sweeper.ts';
import { createMeasurements } from './telemetry/measurements.ts';
import { NO_TELEMETRY, type Telemetry } from './telemetry/preload.ts';
import { userHandlers } from './users/rpc.ts';
import { VERSION } from './version.ts';

/** How long, in milliseconds, connections have at least to close once their calls have ended. */
const CLOSE_MS = 1000;

interface ServiceOptions {
  readonly config: Config;
  /** As jeex_app. */
  readonly databaseUrl: string;
  /** The same database as jeex_monitor, direct; as any other role it tells the monitor less. */
  readonly monitorUrl: string;
  /** The same database as jeex_app, direct, for notifications; null: there are none. */
  readonly listenUrl: string | null;
  /** What opens and seals what is kept encrypted. */
  readonly ring: KeyRing;
  readonly accessLog: AccessLog;
  readonly log: Logger;
  /** Without it nothing is sent. */
  readonly telemetry?: Telemetry;
}

export interface Service {
  readonly addresses: BoundAddresses;
  /** Drains and closes: calls in flight finish, for the configured grace at most. */
  stop(): Promise<void>;
}

/** Drains, and closes; answers that are still being read have what is left of the grace. */
const close = async (doors: Doors, { shutdownDelaySeconds, shutdownGraceSeconds }: Config): Promise<void> => {
  const delayMs = shutdownDelaySeconds * 1000;
  const graceMs = shutdownGraceSeconds * 1000;
  const began = performance.now();
  await doors.drain(graceMs, delayMs);
  await doors.stop(Math.max(CLOSE_MS, began + delayMs + graceMs - performance.now()));
};

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

/** The callers' pool, and what counts and logs its statements. */
const openPool = async ({ config, databaseUrl, log }: ServiceOptions, opened: AsyncDisposableStack) => {
  const plans = createPlans({ url: databaseUrl, log });
  opened.defer(() => plans.end());
  const slowLog = createSlowLog({ log, plans });
  opened.defer(() => slowLog.end());
  const observer = {
    measurements: createMeasurements(),
    place: placeOf(databaseUrl),
    slowMs: config.slowQueryMs,
    onSlow: slowLog.onSlow,
  };
  const { poolSize, poolWaitMs } = config;
  const breaker = createBreaker(log);
  const db = await createDatabase({
    url: databaseUrl,
    // One more connection is the readiness check's.
    size: poolSize - 1,
    waitMs: poolWaitMs,
    observer,
    retries: createRetries(log),
    breaker,
  });
  opened.defer(() => db.end());
  await checkRole(db, log);
  return { db, plans, observer, breaker };
};
type Pool = Awaited<ReturnType<typeof openPool>>;

/** What looks at the database beside the callers: readiness on their way, the monitor on a way of its own. */
const openWatch = async (options: ServiceOptions, { db, observer, breaker }: Pool, opened: AsyncDisposableStack) => {
  const { config, databaseUrl, monitorUrl, log } = options;
  const pooler = config.pgbouncerAdminUrl === null ? null : createConsole(config.pgbouncerAdminUrl);
  opened.defer(() => pooler?.end());
  await checkPools({ db, databaseUrl, pooler, config, log });
  const session = createSession(monitorUrl);
  opened.defer(() => session.end());
  const health = createHealth(SERVICES.map(({ typeName }) => typeName));
  const readiness = await watchReadiness({
    url: databaseUrl,
    requiredVersion: latestVersion(),
    health,
    onAnswer: breaker.reached,
    log,
  });
  opened.defer(() => readiness.stop());
  const monitor = await startMonitor({
    session,
    lookAtPooler: poolerLook(pooler, log),
    db,
    measurements: observer.measurements,
    health,
    alerts: createAlerts({ rules: configuredRules(config.alerts), log }),
    log,
    intervalSeconds: config.monitorIntervalSeconds,
    slowMs: config.slowQueryMs,
  });
  opened.defer(() => monitor.stop());
  return { session, health, readiness, monitor };
};

/**
 * Serves a migrated database on both doors. What was opened closes in reverse order, also when the start fails.
 * @throws Error when the database role could see too much, the key ring does not open the database, an address is taken or
 *   not allowed, or a TLS file or the keys of tokens cannot be used
 */
export const startService = async (options: ServiceOptions): Promise<Service> => {
  const { config, ring, accessLog, log, telemetry = NO_TELEMETRY } = options;
  await using opened = new AsyncDisposableStack();
  const authenticator = config.auth && (await startAuthenticator(config.auth, log));
  opened.defer(() => authenticator?.stop());
  const tls = config.tls && (await openTls(config.tls, log));
  opened.defer(() => tls?.close());
  if (tls && !config.healthListen)
    log.info('HEALTH_LISTEN is unset: gRPC probes of Kubernetes speak no TLS, and need it');
  const pool = await openPool(options, opened);
  const { db, plans, observer } = pool;
  const sealing = await openSealing(db, ring);
  const { session, health, readiness, monitor } = await openWatch(options, pool, opened);
  const signals = startSignals({ url: options.listenUrl, log });
  opened.defer(() => signals.stop());
  const sweeper = startSweeper({ db, changed: signals.changed, retention: config.retention, log });
  opened.defer(() => sweeper.stop());

  const { measurements, place } = observer;
  const authenticate = authenticator?.authenticate ?? null;
  const sources = { measurements, place, gauges: monitor.gauges };
  telemetry.sdk?.follow(sources);
  const metrics = metricsPage({
    sources,
    telemetry,
    authenticate: config.metricsPublic ? null : authenticate,
    log,
    accessLog,
  });
  const context: Context = {
    db: announcing(db, signals.changed),
    signals,
    pager: createPager(sealing.pageTokenKey),
    sealing,
  };
  const about: About = {
    serviceVersion: VERSION,
    aside: readiness.database,
    monitor,
    migrations: migrationFiles(),
    slowQueries: slowQueryReader(session, plans),
  };
  const doors = createDoors({
    grpcListen: config.grpcListen,
    httpListen: config.httpListen,
    healthListen: config.healthListen,
    tls,
    authenticate,
    identifyRequest: requestIdentifier(sealing.requestKey),
    allowedOrigins: config.allowedOrigins,
    implementations: implementations(context, about),
    health,
    log,
    accessLog,
    measurements,
    routes: new Map([...pageRoutes(), ['/metrics', metrics]]),
    version: VERSION,
  });
  const addresses = await doors.start();
  const closing = opened.move();
  closing.defer(() => close(doors, config));
  return { addresses, stop: () => closing.disposeAsync() };
};
