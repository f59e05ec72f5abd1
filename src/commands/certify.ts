import { Client } from '@grpc/grpc-js';
import { goodToken, type Signer } from '../audit/isolation/tokens.ts';
import { type Certification, type Progress, startCertifying } from '../certify/certify.ts';
import { Door, Failed } from '../certify/door.ts';
import { pageOf } from '../certify/report.ts';
import { startTemporaryService } from '../demo/service.ts';
import { DatabaseService } from '../gen/jeex/persistence/v1/database_service_pb.js';
import { formatAddress, parseAddress } from '../rpc/listen.ts';
import { channelCredentials } from './channel.ts';
import { untilInterrupted } from './interrupt.ts';
import { print, tell } from './output.ts';
import { type RemoteOptions, signerOf } from './remote.ts';

export interface CertifyCommandOptions extends RemoteOptions {
  /** The gRPC address of a running service; absent: one is started, and ended with the run. */
  readonly address?: string;
  /** How long the callers work; minutes count instead of seconds where they are given. */
  readonly seconds: number;
  readonly minutes?: number;
  readonly callers: number;
  readonly projects: number;
  readonly watchers: number;
  /** The most calls a second; 0: as fast as they go. */
  readonly rate: number;
  readonly seed?: number;
  readonly json?: boolean;
}

/** A token is made anew long before it expires. */
const TOKEN_MS = 15 * 60_000;
const PROGRESS_MS = 5_000;
const GREETING_MS = 30_000;
const MOST_SEED = 2 ** 32;

/** The token of the next call. */
const tokenSource = (signer: Signer | null): (() => Promise<string | null>) => {
  let made = Number.NEGATIVE_INFINITY;
  let token: Promise<string | null> = Promise.resolve(null);
  return () => {
    if (signer !== null && performance.now() - made > TOKEN_MS) {
      made = performance.now();
      token = goodToken(signer, 'certify');
    }
    return token;
  };
};

const findService = async ({ address }: CertifyCommandOptions, opened: AsyncDisposableStack): Promise<string> => {
  if (address !== undefined) return formatAddress(parseAddress(address));
  const service = await startTemporaryService();
  opened.defer(() => service.stop());
  return service.address;
};

/** A look before anything is made. @throws Error saying what to do, when the service does not answer, or lets nobody in */
const greet = async (connect: () => Client, token: () => Promise<string | null>): Promise<void> => {
  const door = new Door(connect(), token);
  try {
    await door.call(DatabaseService.method.getServerInfo, {}, { timeoutMs: GREETING_MS });
  } catch (error) {
    const unknown = error instanceof Failed && error.reason === 'UNAUTHENTICATED';
    const help = unknown
      ? 'the service authenticates its callers: give --key, a private key whose public half is in its AUTH_JWKS'
      : 'the service does not answer';
    throw new Error(`${help} (${error instanceof Error ? error.message : error})`, { cause: error });
  } finally {
    door.close();
  }
};

const progressLine = ({ seconds, calls, acknowledged, failures, events, resumed }: Progress): string => {
  const failed = Object.entries(failures).map(([reason, count]) => `${reason} ${count}`);
  return [
    `${Math.round(seconds)} s: ${calls} calls, ${acknowledged} writes acknowledged, ${events} events, ${resumed} watches resumed`,
    ...failed,
  ].join('; ');
};

/** Waits for the time to be over, an interruption, or the end of the work by itself; tells how far it is meanwhile. */
const workFor = async (certification: Certification, seconds: number, signal: AbortSignal): Promise<void> => {
  const progress = setInterval(() => tell(progressLine(certification.progress())), PROGRESS_MS);
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, seconds * 1000);
  signal.addEventListener('abort', () => over.resolve(), { once: true });
  if (signal.aborted) over.resolve();
  // What it failed with is told when it is stopped.
  await Promise.race([over.promise, certification.ended.catch(() => {})]);
  clearInterval(progress);
  clearTimeout(timer);
};

/**
 * Certifies a running service, or a temporary one, on scratch projects. An interruption ends the work early, and what ran is
 * checked. The exit code is 1 when a promise does not hold.
 * @throws Error when the service cannot be used, or does not answer at the end
 */
export async function certify(options: CertifyCommandOptions): Promise<void> {
  const seed = options.seed ?? Math.floor(Math.random() * MOST_SEED);
  const seconds = options.minutes === undefined ? options.seconds : options.minutes * 60;
  await untilInterrupted(async (signal) => {
    await using opened = new AsyncDisposableStack();
    const address = await findService(options, opened);
    const credentials = channelCredentials(options);
    const { callers, projects, watchers, rate } = options;
    tell(
      `Certifying ${options.address === undefined ? 'a temporary service' : 'the service'} at ${address}, seed ${seed}`,
    );
    const connect = () => new Client(address, credentials, { 'grpc.use_local_subchannel_pool': 1 });
    const token = tokenSource(signerOf(options));
    await greet(connect, token);
    const certification = await startCertifying({
      connect,
      token,
      seed,
      callers,
      projects,
      watchers,
      rate,
      log: tell,
    });
    await workFor(certification, seconds, signal);
    const verdict = await certification.stop();
    print(options.json ? JSON.stringify({ address, ...verdict }) : pageOf(verdict));
    if (!verdict.ok) process.exitCode = 1;
  });
}
