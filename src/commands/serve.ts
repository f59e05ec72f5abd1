import { createHmac } from 'node:crypto';
import { type Config, loadConfig } from '../config.ts';
import { migrate } from '../db/migrator.ts';
import { type Provided, provideDatabase } from '../db/provide.ts';
import { createLog, type Logger } from '../log.ts';
import { type Service, startService } from '../service.ts';
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

/** What signs page tokens where nothing is configured: every replica of one database derives the same. */
const pageTokenSecret = (database: Provided): Buffer => {
  if (database.secrets !== null) return Buffer.from(database.secrets.pageToken, 'hex');
  return createHmac('sha256', new URL(database.appUrl).password).update('page token').digest();
};

/** An end that was asked for by standard input, which closes with the process that started the service. */
const abortAtEndOfInput = (stop: AbortController): void => {
  process.stdin
    .on('end', () => stop.abort(new StopAsked('standard input closed')))
    .on('error', () => {})
    .resume()
    .unref();
};

class StopAsked extends Error {}

/** Runs the service until a signal, the end of standard input (with `readyJson`) or of the embedded database stops it. */
export async function serve(options: ServeOptions): Promise<void> {
  const config = serveConfig(options);
  const log = createLog(config.logLevel);
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

const reasonOf = ({ reason }: AbortSignal): string => (reason instanceof Error ? reason.message : String(reason));

const SILENT = { admit: () => {}, record: () => {}, close: async () => {} };

/** Opens what the service needs, serves, and closes it in reverse order. */
const run = async (options: ServeOptions, config: Config, log: Logger, signal: AbortSignal): Promise<void> => {
  await using opened = new AsyncDisposableStack();
  const database = await provideDatabase(config, { ephemeral: options.ephemeral, log, signal });
  opened.defer(() => database.stop());
  await migrate(database.migrationUrl, { mode: config.migrate, log });
  signal.throwIfAborted();
  const secret = pageTokenSecret(database);
  const service = await startService({
    config,
    databaseUrl: database.appUrl,
    pageTokenSecret: secret,
    accessLog: SILENT,
    log,
  });
  opened.defer(() => service.stop());
  announce(options, log, service, database);
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

const announce = (options: ServeOptions, log: Logger, service: Service, database: Provided): void => {
  const { grpc, http, health } = service.addresses;
  log.info({ version: VERSION, grpc, http, health, database: database.note }, 'ready');
  if (options.readyJson) {
    process.stdout.write(`${JSON.stringify({ grpc, http, health, pid: process.pid })}\n`);
    return;
  }
  process.stdout.write(`jeex-persistence ${VERSION} is ready
  gRPC      ${grpc}   (reflection is on: grpcurl -plaintext ${grpc} list)
  HTTP      http://${http}   (curl http://${http}/readyz)
  database  ${database.note}
  stop      Ctrl-C
`);
};
