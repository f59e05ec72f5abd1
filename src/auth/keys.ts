import type { Logger } from 'pino';
import { type KeySet, parseKeySet } from './key-set.ts';
import type { KeySource } from './key-source.ts';

/** The keys that verify tokens, as their source has them. */
export interface Keys {
  /** Those in force; another object once they have changed. */
  readonly current: KeySet;
  /** Reads the source again, for a token whose key is not there; nothing when it was read a moment ago. */
  refresh(): Promise<void>;
  stop(): void;
}

const READ_TIMEOUT_MS = 5_000;

/**
 * Reads the keys, and again at the source's pace. While the source is down or broken, the last good ones stay in force.
 * @throws Error when they cannot be read at the start: without keys nobody could be let in
 */
export const openKeys = async (source: KeySource, log: Logger): Promise<Keys> => {
  const stopped = new AbortController();
  const read = () => source.read(AbortSignal.any([stopped.signal, AbortSignal.timeout(READ_TIMEOUT_MS)]));
  let [text, current] = await readFirst(source, read);
  let readAt = performance.now();
  let reading: Promise<void> | null = null;
  let healthy = true;

  const accept = (next: string) => {
    if (next !== text) {
      current = parseKeySet(next);
      text = next;
      log[current.size > 0 ? 'info' : 'warn'](
        { source: source.name, keys: current.size },
        'the keys of tokens changed',
      );
    }
    if (!healthy) log.info({ source: source.name }, 'the keys of tokens can be read again');
    healthy = true;
  };

  const reject = (err: unknown) => {
    if (healthy && !stopped.signal.aborted) {
      log.warn({ source: source.name, err }, 'the keys of tokens cannot be read; the last ones stay in force');
    }
    healthy = false;
  };

  const reread = (): Promise<void> => {
    readAt = performance.now();
    reading ??= read()
      .then(accept)
      .catch(reject)
      .finally(() => {
        reading = null;
      });
    return reading;
  };

  const timer = setInterval(() => void reread(), source.everyMs).unref();
  return {
    get current() {
      return current;
    },
    refresh: async () => {
      if (reading !== null || performance.now() - readAt >= source.cooldownMs) await reread();
    },
    stop: () => {
      clearInterval(timer);
      stopped.abort();
    },
  };
};

const readFirst = async (source: KeySource, read: () => Promise<string>): Promise<[string, KeySet]> => {
  try {
    const text = await read();
    const keys = parseKeySet(text);
    if (keys.size === 0) throw new Error('it holds no public key that could verify a token (EdDSA, ECDSA or RSA)');
    return [text, keys];
  } catch (cause) {
    throw new Error(`AUTH_JWKS: ${source.name} cannot be used: ${describe(cause)}`, { cause });
  }
};

/** What `fetch` throws says why in its cause alone. */
const describe = (error: unknown): string => {
  const { message, cause } = error as Error;
  return cause instanceof Error ? `${message} (${(cause as NodeJS.ErrnoException).code ?? cause.message})` : message;
};
