import { readFile } from 'node:fs/promises';
import type { ConnectionOptions } from 'node:tls';
import { Client, type ClientConfig } from 'pg';
import { connectFailure } from './connect-failure.ts';

/** The search parameter of a database URL that names a file with the password. */
const PASSWORD_FILE = 'password_file';

/** A database URL whose password stands in a file, so that one text still says all; null without a URL. */
export function withPasswordFile(url: string | undefined, file: string | undefined): string | null {
  if (url === undefined) return null;
  if (file === undefined) return url;
  const changed = new URL(url);
  changed.password = '';
  changed.searchParams.set(PASSWORD_FILE, file);
  return changed.href;
}

/**
 * A database URL as `pg` takes it. A password in a file is read now, so that who asks at each connect takes a new one
 * without a restart.
 * @throws Error as `readPassword` does
 */
export async function connectionString(url: string): Promise<string> {
  const parsed = new URL(url);
  const file = parsed.searchParams.get(PASSWORD_FILE);
  if (file === null) return url;
  parsed.searchParams.delete(PASSWORD_FILE);
  parsed.password = encodeURIComponent(await readPassword(file));
  return parsed.href;
}

/** What `pg` has made of a database URL's `sslmode` and its files: false for none; `true` when nothing more is said. */
export type Tls = false | true | ConnectionOptions;

/** A client that speaks TLS speaks 1.3 and nothing older, whatever the server would take (SEC-001). */
function onlyTls13(client: Client): Client {
  const { connection } = client as unknown as { connection: { ssl: Tls } };
  if (connection.ssl === true) connection.ssl = { minVersion: 'TLSv1.3' };
  else if (connection.ssl) connection.ssl.minVersion = 'TLSv1.3';
  return client;
}

/** Limits of a connection: how long it may take to be made, and each answer on it, in milliseconds. */
export const within = (timeoutMs: number): ClientConfig => ({
  connectionTimeoutMillis: timeoutMs,
  query_timeout: timeoutMs,
});

/** So that who waits for a long answer learns that the other side is gone. */
const KEEP_ALIVE: ClientConfig = { keepAlive: true, keepAliveInitialDelayMillis: 10_000 };

/**
 * A connection of one's own to a database URL, to be ended by who opened it.
 * @throws ConnectFailure that says why there is none to be had
 */
export async function openClient(url: string, applicationName: string, options: ClientConfig = {}): Promise<Client> {
  let client: Client | undefined;
  try {
    const config = {
      ...KEEP_ALIVE,
      ...options,
      connectionString: await connectionString(url),
      application_name: applicationName,
    };
    client = onlyTls13(new Client(config));
    // What breaks a connection fails the statement that runs on it, or the next one.
    client.on('error', () => {});
    await client.connect();
    return client;
  } catch (error) {
    if (client) abandon(client);
    throw connectFailure(error as Error, url);
  }
}

/** A connection that this side gives up while it is being made would occupy the server for a minute. */
const abandon = (client: Client): void => void client.end().catch(() => {});

/** Gives up a connection that does not answer, and would not answer a goodbye either. */
export const cut = (client: Client): void =>
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();

/** Ends a connection; one whose other side does not let go in time is cut. @param timeoutMs in milliseconds */
export async function endWithin(client: Client, timeoutMs: number): Promise<void> {
  const late = setTimeout(() => cut(client), timeoutMs);
  await client.end().finally(() => clearTimeout(late));
}

/**
 * The password a file holds; the line break at its end is none of it.
 * @throws Error naming the file, when it cannot be read or is empty
 */
export async function readPassword(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`the password file cannot be read: ${error.message}`, { cause: error });
  });
  const password = text.replace(/\r?\n$/, '');
  if (password === '') throw new Error(`the password file ${file} is empty`);
  return password;
}
