import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { ConfigError, loadConfig } from '../config.ts';
import { readPassword } from '../db/connection.ts';
import { LOGINS, type Login, type Passwords } from '../db/role-table.ts';
import { bootstrap } from '../db/roles.ts';
import { VARIABLES } from '../variables.ts';
import { tell } from './output.ts';

const log = { info: tell };

/** Without these two there is no service. */
const NEEDED: readonly Login[] = ['owner', 'app'];

/**
 * Prepares a PostgreSQL server for the service, or brings one of an earlier release up to date. Passwords that were
 * generated are printed, this once, inside the two URLs; ones that were given are not repeated.
 * @throws ConfigError without ADMIN_DATABASE_URL, and naming every file with no usable password
 */
export async function bootstrapCommand({ database }: { database: string }): Promise<void> {
  const { adminDatabaseUrl, passwordsDir } = loadConfig(process.env, 'command');
  if (adminDatabaseUrl === null) {
    const { expected, example } = VARIABLES.ADMIN_DATABASE_URL;
    throw new ConfigError([`ADMIN_DATABASE_URL: expected ${expected} (for example ${example})`]);
  }
  const passwords = passwordsDir === null ? generate() : await readPasswords(passwordsDir);
  const { ownerUrl, appUrl, notes } = await bootstrap(adminDatabaseUrl, { database, passwords, log });
  for (const note of notes) tell(`left to do: ${note}`);
  const closed = LOGINS.filter((login) => passwords[login] === undefined).map(roleOf);
  if (closed.length > 0) tell(`without a password file in PASSWORDS_DIR, and so without a login: ${closed.join(', ')}`);
  printAccess('', appUrl, passwordsDir, 'app');
  printAccess('MIGRATION_', ownerUrl, passwordsDir, 'owner');
}

const roleOf = (login: Login) => `jeex_${login}` as const;

const generate = (): Passwords => ({ owner: randomBytes(24).toString('hex'), app: randomBytes(24).toString('hex') });

/** Prints what the service's configuration takes. */
function printAccess(prefix: '' | 'MIGRATION_', url: string, passwordsDir: string | null, login: Login): void {
  const shown = new URL(url);
  if (passwordsDir !== null) shown.password = '';
  process.stdout.write(`${prefix}DATABASE_URL=${shown.href}\n`);
  if (passwordsDir !== null) {
    process.stdout.write(`${prefix}DATABASE_PASSWORD_FILE=${join(passwordsDir, roleOf(login))}\n`);
  }
}

/** The passwords in the files that are named like the roles; a role without a file has none. */
async function readPasswords(directory: string): Promise<Passwords> {
  const problems: string[] = [];
  const found: { [L in Login]?: string } = {};
  for (const login of LOGINS) {
    const file = join(directory, roleOf(login));
    try {
      const password = await readPassword(file);
      if (/^[ -~]{12,200}$/.test(password)) found[login] = password;
      else problems.push(`PASSWORDS_DIR: expected 12 to 200 printable ASCII characters in ${file}`);
    } catch (error) {
      const absent = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
      if (!absent) problems.push(`PASSWORDS_DIR: ${(error as Error).message}`);
      else if (NEEDED.includes(login)) problems.push(`PASSWORDS_DIR: expected a file ${file} with the role's password`);
    }
  }
  const { owner, app } = found;
  if (problems.length > 0 || owner === undefined || app === undefined) throw new ConfigError(problems);
  return { ...found, owner, app };
}
