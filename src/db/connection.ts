import { readFile } from 'node:fs/promises';
import type { ConnectionOptions } from 'node:tls';
import { Client } from 'pg';

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
export function onlyTls13(client: Client): Client {
  const { connection } = client as unknown as { connection: { ssl: Tls } };
  if (connection.ssl === true) connection.ssl = { minVersion: 'TLSv1.3' };
  else if (connection.ssl) connection.ssl.minVersion = 'TLSv1.3';
  return client;
}

/** A connection of one's own to a database URL, to be ended by who opened it. @throws Error when there is none to be had */
export async function openClient(url: string, applicationName: string): Promise<Client> {
  const client = onlyTls13(
    new Client({ connectionString: await connectionString(url), application_name: applicationName }),
  );
  // What breaks a connection fails the statement that runs on it, or the next one.
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (error) {
    abandon(client);
    throw error;
  }
  return client;
}

/** A connection that this side gives up while it is being made would occupy the server for a minute. */
export const abandon = (client: Client): void => void client.end().catch(() => {});

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
