import { createReadStream } from 'node:fs';

/** Where the keys that verify tokens come from. */
export interface KeySource {
  /** For people: the file, or the URL without its query. */
  readonly name: string;
  /** How long, in milliseconds, until it is read again. */
  readonly everyMs: number;
  /** How long, in milliseconds, a token with an unknown key waits after the last reading before it brings about another. */
  readonly cooldownMs: number;
  /** @throws Error when it cannot be read, or is larger than a key set can be */
  read(signal: AbortSignal): Promise<string>;
}

const MAX_BYTES = 256 * 1024;

/** How often a file is read is cheap; how often a URL is, somebody else pays for. */
const FILE_PACE = { everyMs: 5_000, cooldownMs: 1_000 };
const URL_PACE = { everyMs: 5 * 60_000, cooldownMs: 10_000 };

/**
 * The source behind AUTH_JWKS.
 * @param location a path, or an http or https URL
 * @throws Error for a URL with a password, which would be seen wherever the URL is
 */
export const keySource = (location: string): KeySource =>
  /^https?:\/\//i.test(location) ? fromUrl(new URL(location)) : fromFile(location);

const fromFile = (path: string): KeySource => ({
  name: path,
  ...FILE_PACE,
  // One byte more than allowed shows that there is more.
  read: (signal) => readBounded(createReadStream(path, { end: MAX_BYTES, signal })),
});

const fromUrl = (url: URL): KeySource => {
  if (url.username !== '' || url.password !== '') throw new Error('AUTH_JWKS must not hold a user name or a password');
  return {
    name: `${url.origin}${url.pathname}`,
    ...URL_PACE,
    read: async (signal) => {
      // Who is redirected elsewhere would take keys from there.
      const response = await fetch(url, { signal, redirect: 'error', headers: { accept: 'application/json' } });
      if (response.status === 200 && response.body) return await readBounded(response.body);
      await response.body?.cancel();
      throw new Error(`it answers with the status ${response.status}`);
    },
  };
};

const readBounded = async (chunks: AsyncIterable<Uint8Array>): Promise<string> => {
  const read: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > MAX_BYTES) throw new Error(`it is larger than ${MAX_BYTES} bytes`);
    read.push(chunk);
  }
  return Buffer.concat(read).toString();
};
