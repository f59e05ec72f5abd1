import { readFile } from 'node:fs/promises';
import type { ClientConfig } from 'pg';

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
 * What `pg` needs to connect to a database URL. A password in a file is read at each connect, so that a new one takes
 * effect without a restart; the line break at its end is none of it.
 */
export function clientConfig(url: string): ClientConfig {
  const parsed = new URL(url);
  const file = parsed.searchParams.get(PASSWORD_FILE);
  if (file === null) return { connectionString: url };
  parsed.searchParams.delete(PASSWORD_FILE);
  const password = async () => (await readFile(file, 'utf8')).replace(/\r?\n$/, '');
  return { connectionString: parsed.href, password };
}
