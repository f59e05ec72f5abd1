import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { VARIABLES } from '../variables.ts';

const ENTRY = fileURLToPath(new URL('../jeex-persistence.js', import.meta.url));
const START_MS = 120_000;
const STOP_MS = 30_000;

export interface TemporaryService {
  /** Of the gRPC door. */
  readonly address: string;
  /** Ends the service and waits for it. */
  stop(): Promise<void>;
}

/**
 * The environment without the service's own variables: a temporary service takes nothing from a configured one, and the refusals
 * that callers provoke on purpose are no news.
 */
const cleanEnvironment = (): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !Object.hasOwn(VARIABLES, name))),
  LOG_LEVEL: 'error',
});

/**
 * Starts a service with temporary data on random ports, as any other team's tests would.
 * @param settings variables of the service's own, besides the defaults
 * @throws Error when it does not say within two minutes that it is ready; it has said why on standard error
 */
export const startTemporaryService = async (
  settings: Readonly<Partial<Record<keyof typeof VARIABLES, string>>> = {},
): Promise<TemporaryService> => {
  const child = spawn(process.execPath, [ENTRY, 'serve', '--ephemeral', '--ready-json'], {
    env: { ...cleanEnvironment(), ...settings },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin?.on('error', () => {});
  const ready = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const late = AbortSignal.timeout(START_MS);
  try {
    const line = await Promise.race([
      once(ready, 'line', { signal: late }).then(([text]) => String(text)),
      once(child, 'exit', { signal: late }).then(([code]) => Promise.reject(new Error(`it ended with code ${code}`))),
    ]);
    return { address: (JSON.parse(line) as { grpc: string }).grpc, stop: () => stop(child) };
  } catch (error) {
    await stop(child);
    throw new Error('the temporary service did not get ready', { cause: error });
  }
};

/** The end of its standard input ends the service; one that does not listen is terminated. */
const stop = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  child.stdin?.end();
  await exit;
  clearTimeout(timer);
};
