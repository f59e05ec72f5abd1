import { randomBytes } from 'node:crypto';
import { ConfigError, loadConfig } from '../config.ts';
import { bootstrap } from '../db/roles.ts';
import { VARIABLES } from '../variables.ts';

const log = { info: (message: string): void => void process.stderr.write(`${message}\n`) };

/**
 * Prepares a PostgreSQL server for the service. Passwords that were generated are printed, this once, inside the two
 * URLs; ones that were given are not repeated.
 * @throws ConfigError without ADMIN_DATABASE_URL
 */
export async function bootstrapCommand(options: { database: string }): Promise<void> {
  const { adminDatabaseUrl } = loadConfig(process.env, 'command');
  if (adminDatabaseUrl === null) {
    const { expected, example } = VARIABLES.ADMIN_DATABASE_URL;
    throw new ConfigError([`ADMIN_DATABASE_URL: expected ${expected} (for example ${example})`]);
  }
  const passwords = { owner: generate(), app: generate() };
  const { ownerUrl, appUrl } = await bootstrap(adminDatabaseUrl, { database: options.database, passwords, log });
  process.stdout.write(`DATABASE_URL=${appUrl}\n`);
  process.stdout.write(`MIGRATION_DATABASE_URL=${ownerUrl}\n`);
}

const generate = (): string => randomBytes(24).toString('hex');
