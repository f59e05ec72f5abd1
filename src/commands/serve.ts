import { createHmac } from 'node:crypto';
import { type Config, loadConfig } from '../config.ts';
import { migrate } from '../db/migrator.ts';
import { type Provided, provideDatabase } from '../db/provide.ts';
import { createLog, type Logger } from '../log.ts';
import { type Service, startService, VERSION } from '../service.ts';
import { untilInterrupted } from './interrupt.ts';

export interface ServeOptions {
  /** Random ports and temporary data. */
  readonly ephemeral: boolean;
  /** One line of JSON when ready, and an end with standard input's. */
  readonly readyJson: boolean;
}

const ANY_PORT = { host: '127.0.0.1', port: 0 } as const;

const serveConfig = (options: ServeOptions): Config => {
  const config = loadConfig();
  return options.ephemeral ? { ...config, grpcListen: ANY_PORT, httpListen: ANY_PORT, healthListen: null } : config;
};

/** What signs page tokens where nothing is configured: every replica of one database derives the same. */
const pageTokenSecret = (config: Config, database: Provided): Buffer => {
  if (config.pageTokenSecret !== null) return config.pageTokenSecret;
  if (database.secrets !== null) return Buffer.from(database.secrets.pageToken, 'hex');
  return createHmac('sha256', new URL(database.appUrl).password).update('page token').digest();
};

/** Runs the service until a signal, the end of standard input (with `readyJson`) or of the embedded database stops it. */
export async function serve(options: ServeOptions): Promise<void> {
  const config = serveConfig(options);
  const log = createLog(config.logLevel);
  let asked = false;
  await untilInterrupted(async (signal) => {
    const stop = new AbortController();
    signal.addEventListener('abort', () => stop.abort(signal.reason), { once: true });
    if (options.readyJson) {
      process.stdin
        .on('end', () => stop.abort(new Error('standard input closed')))
        .on('error', () => {})
        .resume();
    }
    await using opened = new AsyncDisposableStack();
    const database = await provideDatabase(config, { ephemeral: options.ephemeral, log, signal: stop.signal });
    opened.defer(() => database.stop());
    await migrate(database.migrationUrl, { mode: config.migrate, log });
    stop.signal.throwIfAborted();
    const service = await startService({
      config,
      databaseUrl: database.appUrl,
      pageTokenSecret: pageTokenSecret(config, database),
      log,
    });
    opened.defer(() => service.stop());
    announce(options, log, service, database);
    await ended(stop.signal, database);
    asked = true;
    log.info({ reason: String((stop.signal.reason as Error | undefined)?.message) }, 'stopping');
  }).catch((error: unknown) => {
    // An end that was asked for, at whatever point of the start, is no failure.
    if (!asked && !isInterruption(error)) throw error;
  });
  process.stdin.pause();
}

const isInterruption = (error: unknown): boolean =>
  error instanceof Error && /^(interrupted by SIG|standard input closed)/.test(error.message);

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
