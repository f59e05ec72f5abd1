import { join } from 'node:path';
import { createAccessLog } from '../audit/access-log.ts';
import type { Place } from '../audit/target.ts';
import { type Config, ConfigError, loadConfig } from '../config.ts';
import { type Provided, provideDatabase } from '../db/provide.ts';
import { both, createLog, type Logger, standardError } from '../log.ts';
import { migrate } from '../migrator/migrate.ts';
import type { BoundAddresses } from '../rpc/doors.ts';
import { loadRing } from '../sealing/ring.ts';
import { startService } from '../service.ts';
import { preloadedTelemetry } from '../telemetry/preload.ts';
import { VERSION } from '../version.ts';
import { untilInterrupted } from './interrupt.ts';

export interface ServeOptions {
  /** Random ports and temporary data. */
  readonly ephemeral: boolean;
  /** One line of JSON when ready, and an end with standard input's. */
  readonly readyJson: boolean;
}

/** What a temporary service replaces, whatever is configured. */
const EPHEMERAL = {
  GRPC_LISTEN: '127.0.0.1:0',
  HTTP_LISTEN: '127.0.0.1:0',
  HEALTH_LISTEN: undefined,
  DATABASE_URL: undefined,
  MIGRATION_DATABASE_URL: undefined,
} as const;

const serveConfig = ({ ephemeral }: ServeOptions): Config =>
  loadConfig(ephemeral ? { ...process.env, ...EPHEMERAL } : process.env);

/** An end that was asked for by standard input, which closes with the process that started the service. */
const abortAtEndOfInput = (stop: AbortController): void => {
  process.stdin
    .on('end', () => stop.abort(new StopAsked('standard input closed')))
    .on('error', () => {})
    .resume()
    // A file has nothing to let go of.
    .unref?.();
};

class StopAsked extends Error {}

/** Runs the service until a signal, the end of standard input (with `readyJson`) or of the embedded database stops it. */
export async function serve(options: ServeOptions): Promise<void> {
  const config = serveConfig(options);
  const log = openLog(config);
  const stop = new AbortController();
  if (options.readyJson) abortAtEndOfInput(stop);
  try {
    await untilInterrupted(async (interrupted) => {
      interrupted.addEventListener('abort', () => stop.abort(new StopAsked(reasonOf(interrupted))), { once: true });
      await run(options, config, log, stop.signal);
    });
  } catch (error) {
    // An end that was asked for, at whatever point of the start, is no failure.
    if (!(error instanceof StopAsked)) throw error;
  }
}

/** The log, which goes where telemetry goes too, and takes what that complains of. @throws ConfigError about OTEL_* */
const openLog = ({ logLevel }: Config): Logger => {
  const { settings, sdk } = preloadedTelemetry();
  if (settings.problems.length > 0) throw new ConfigError(settings.problems);
  const log = createLog(logLevel, sdk?.lines ? both(standardError(), sdk.lines) : standardError());
  sdk?.reportTo(log);
  return log;
};

const reasonOf = ({ reason }: AbortSignal): string => (reason instanceof Error ? reason.message : String(reason));

/** Where calls are put on record: where the configuration says, else beside the embedded data, else on standard output. */
const placeOf = ({ access }: Config, { folder }: Provided): Place => {
  if (access.target !== null) return { to: access.target, own: false };
  return folder === null ? { to: 'stdout', own: false } : { to: join(folder, 'access.log'), own: true };
};

/** A service that is broken into gives away what it holds; `checkRole` sees to the owner in DATABASE_URL. */
const warnOfOwner = ({ databaseUrl, migrationDatabaseUrl, migrate: mode }: Config, log: Logger): void => {
  if (databaseUrl === null || migrationDatabaseUrl === null || mode === 'auto') return;
  log.warn(
    "MIGRATION_DATABASE_URL gives the service its schema's owner, whom it does not need: take it away, and run " +
      '`jeex-persistence migrate up` before the service, as an init container does; or ask for MIGRATE=auto',
  );
};

const tellOfMonitor = ({ databaseUrl, monitorDatabaseUrl }: Config, log: Logger): void => {
  if (databaseUrl === null || monitorDatabaseUrl !== null) return;
  log.info(
    'MONITOR_DATABASE_URL is unset: health is measured as jeex_app, whom PostgreSQL tells nothing of other sessions, of ' +
      'replicas, of the last backup and of slow statements; give it the role jeex_monitor, direct',
  );
};

/** Opens what the service needs, serves, and closes it in reverse order. */
const run = async (options: ServeOptions, config: Config, log: Logger, signal: AbortSignal): Promise<void> => {
  await using opened = new AsyncDisposableStack();
  warnOfOwner(config, log);
  tellOfMonitor(config, log);
  const database = await provideDatabase(config, { ephemeral: options.ephemeral, log, signal });
  opened.defer(() => database.stop());
  const ring = loadRing(config.encryptionKeys, database.secrets?.encryption ?? null);
  await migrate(database.migrationUrl, { mode: config.migrate, embedded: database.folder !== null, log, signal });
  signal.throwIfAborted();
  const place = placeOf(config, database);
  const accessLog = await createAccessLog({ place, ...config.access }, log);
  opened.defer(() => accessLog.close());
  const service = await startService({
    config,
    databaseUrl: database.appUrl,
    monitorUrl: database.monitorUrl,
    listenUrl: database.listenUrl,
    ring,
    accessLog,
    log,
    telemetry: preloadedTelemetry(),
  });
  opened.defer(() => service.stop());
  announce(options, config, log, { ...service.addresses, database: database.note, records: place.to });
  await ended(signal, database);
  log.info({ reason: reasonOf(signal) }, 'stopping');
};

/** Waits for the stop that was asked for; rejects when the embedded database ends by itself. */
const ended = (signal: AbortSignal, database: Provided): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
    database.died.then(reject);
  });

/** What curl and grpcurl need to be let in. */
const toolsOf = ({ tls }: Config) => {
  if (tls === null) return { scheme: 'http', grpcurl: '-plaintext', curl: '' };
  const own = tls.clientCaFile !== null;
  return {
    scheme: 'https',
    grpcurl: `-cacert CA.pem${own ? ' -cert CLIENT.pem -key CLIENT.key' : ''}`,
    curl: `--cacert CA.pem ${own ? '--cert CLIENT.pem --key CLIENT.key ' : ''}`,
  };
};

const callersOf = ({ auth }: Config): string =>
  auth === null ? 'authentication off: every caller holds every scope' : `bearer tokens of ${auth.issuer}`;

/** What is where: addresses, the database, and the record of calls. */
interface Running extends BoundAddresses {
  readonly database: string;
  readonly records: string;
}

const announce = (options: ServeOptions, config: Config, log: Logger, running: Running): void => {
  const { grpc, http, health, database, records } = running;
  log.info({ version: VERSION, ...running, callers: callersOf(config) }, 'ready');
  if (options.readyJson) {
    process.stdout.write(`${JSON.stringify({ grpc, http, health, pid: process.pid })}\n`);
    return;
  }
  // Who collects the records there expects lines of JSON.
  if (records === 'stdout' && !process.stdout.isTTY) return;
  const { scheme, grpcurl, curl } = toolsOf(config);
  process.stdout.write(`jeex-persistence ${VERSION} is ready
  gRPC      ${grpc}   (reflection is on: grpcurl ${grpcurl} ${grpc} list)
  HTTP      ${scheme}://${http}   (a status page; curl ${curl}${scheme}://${http}/readyz)
  database  ${database}
  callers   ${callersOf(config)}
  records   ${records} (of every call)
  stop      Ctrl-C
`);
};
