import { randomBytes } from 'node:crypto';
import { type Client, escapeIdentifier } from 'pg';
import { openClient } from '../../db/connection.ts';
import { startEmbedded } from '../../db/embedded.ts';
import { LOGINS, type Login } from '../../db/role-table.ts';
import { accessStatements, bootstrap, withDatabase, withLogin } from '../../db/roles.ts';

/** A PostgreSQL to try things on. */
export interface ScratchServer {
  /** As a superuser. */
  readonly adminUrl: string;
  readonly passwords: Readonly<Record<Login, string>>;
}

/** Databases that nobody keeps: gone when it is disposed of. */
export interface Scratch extends AsyncDisposable {
  /** Makes a copy of another of its databases, on which nobody may be working; without one it is as bootstrap leaves it. */
  copy(of?: ScratchDatabase): Promise<ScratchDatabase>;
}

export interface ScratchDatabase {
  readonly name: string;
  /** As jeex_owner, who migrates. */
  readonly url: string;
}

/** Starts a temporary PostgreSQL. Disposing of it stops it and leaves nothing. @throws Error as `startEmbedded` does */
export async function startScratchServer(
  log: (line: string) => void,
  signal?: AbortSignal,
): Promise<ScratchServer & AsyncDisposable> {
  const server = await startEmbedded({ dataDir: '', ephemeral: true, log: { info: log }, signal });
  const passwords = Object.fromEntries(LOGINS.map((login) => [login, randomBytes(24).toString('hex')]));
  return {
    adminUrl: server.adminUrl,
    passwords: passwords as Record<Login, string>,
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** Prepares a server for scratch databases: its roles, and the empty one that others are copies of. */
export async function openScratch(server: ScratchServer): Promise<Scratch> {
  const { adminUrl, passwords } = server;
  const made: string[] = [];
  const nameNext = () => {
    const name = `jeex_scratch_${randomBytes(6).toString('hex')}`;
    made.push(name);
    return name;
  };
  const empty = nameNext();
  await bootstrap(adminUrl, { database: empty, passwords });
  return {
    copy: async (of) => {
      const name = nameNext();
      await asAdmin(adminUrl, async (client) => {
        const template = escapeIdentifier(of?.name ?? empty);
        await client.query(`create database ${escapeIdentifier(name)} template ${template} owner jeex_owner`);
        await client.query(accessStatements(name));
      });
      return { name, url: withLogin(adminUrl, name, 'jeex_owner', passwords.owner) };
    },
    [Symbol.asyncDispose]: () =>
      asAdmin(adminUrl, async (client) => {
        for (const name of made) await client.query(`drop database if exists ${escapeIdentifier(name)} with (force)`);
      }),
  };
}

async function asAdmin(adminUrl: string, work: (client: Client) => Promise<void>): Promise<void> {
  await connected(withDatabase(adminUrl, 'postgres'), work);
}

/** Runs work on a connection of its own, names without a schema meaning those of `jeex`. */
export async function connected<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await openClient(url, 'jeex-persistence generate');
  try {
    await client.query('set search_path = jeex; set statement_timeout = 0');
    return await work(client);
  } finally {
    await client.end();
  }
}
