import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Client, credentials, Client as GrpcClient, Metadata } from '@grpc/grpc-js';
import { keySetOf, makeKey, mint } from '../../../src/auth/development.ts';
import { SCOPES } from '../../../src/rpc/access.ts';
import { openChannel } from '../../support/client.ts';
import { type Clients, clientsOn } from '../../support/service.ts';
import { type BenchDatabase, openDatabase } from './database.ts';
import { type Comparator, type ServerProcess, startServer } from './processes.ts';

/** A server that is measured. */
export interface Target extends ServerProcess {
  readonly name: string;
  /** Who calls, and for whom. */
  readonly headers: Readonly<Record<string, string>>;
  /** The process of the PgBouncer between it and the database. */
  readonly pooler?: number;
}

/** What a target is started with. */
export interface TargetOptions {
  readonly name: string;
  /** Another server than the service. */
  readonly comparator?: Comparator;
  /** Without authentication, and with writes alone on record. */
  readonly open?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** The data every target works on, and what starts targets. */
export interface World {
  readonly database: BenchDatabase;
  /** For files that go with the run. */
  readonly folder: string;
  readonly actor: string;
  readonly projects: readonly string[];
  /** Starts a server on the database; it ends with what is given. */
  start(options: TargetOptions, opened: AsyncDisposableStack): Promise<Target>;
}

const ISSUER = 'jeex-bench';
const TOKEN_SECONDS = 86_400;

/** The documents of each project. */
export const SMALL = 'small';
export const LARGE = 'large';
export const LONG = 'long';
export const WRITTEN = 'written';

/** As many as the drivers have processes, so that calls at once are for different projects. */
const PROJECTS = 16;
const SMALL_BYTES = 1_200;
const LARGE_BYTES = 64 * 1024;
/** More than a page of 50. */
const LONG_VERSIONS = 60;

/** A database with users, projects and documents, made by a service through its own door. */
export const openWorld = async (opened: AsyncDisposableStack, signal: AbortSignal): Promise<World> => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-bench-files-'));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const database = await openDatabase(opened, signal);
  const authority = await createAuthority(folder);
  const start: World['start'] = async ({ name, comparator, open = false, env }, ends) => {
    const settings = {
      ...environmentOf(database, comparator),
      ...(open ? OPEN : { ...authority.env, ACCESS_LOG: join(folder, `${name}.log`) }),
      ...env,
    };
    const server = await startServer(settings, comparator);
    ends.defer(() => server.stop());
    return { ...server, name, headers: open ? {} : authority.headers };
  };
  await using filling = new AsyncDisposableStack();
  const { actor, projects } = await fill(await start({ name: 'filler', open: true }, filling));
  await filling.disposeAsync();
  await database.admin.query('vacuum analyze');
  return {
    database,
    folder,
    actor,
    projects,
    start: async (options, ends) => {
      const target = await start(options, ends);
      return { ...target, headers: { ...target.headers, 'x-actor-id': actor } };
    },
  };
};

const OPEN = { ACCESS_LOG: '/dev/null', AUDIT_READS: 'writes' };

const environmentOf = (database: BenchDatabase, comparator: Comparator | undefined): Record<string, string> => ({
  DATABASE_URL: comparator === 'bare' ? database.adminUrl : database.appUrl,
  MONITOR_DATABASE_URL: database.monitorUrl,
  LISTEN_DATABASE_URL: database.appUrl,
  ENCRYPTION_KEYS: database.secrets?.encryption ?? '',
});

/** Who makes tokens, and one that may do everything. */
const createAuthority = async (folder: string) => {
  const jwks = join(folder, 'jwks.json');
  const key = await makeKey();
  writeFileSync(jwks, keySetOf([key]));
  const exp = Math.floor(Date.now() / 1000) + TOKEN_SECONDS;
  const claims = { iss: ISSUER, aud: 'jeex-persistence', sub: 'bench', scope: SCOPES.join(' '), exp };
  return {
    env: { AUTH_JWKS: jwks, AUTH_ISSUER: ISSUER },
    headers: { authorization: `Bearer ${await mint(key, claims)}` },
  };
};

/** Calls a target with what its calls carry. */
export const callTarget = async <T>(
  { address, headers }: Target,
  work: (clients: Clients, channel: Client) => Promise<T>,
) => {
  const channel = openChannel(address, headers);
  try {
    return await work(clientsOn(channel), channel);
  } finally {
    channel.close();
  }
};

const fill = (target: Target) =>
  callTarget(target, async ({ users, projects, documents }) => {
    const { user } = await users.createUser({ email: 'bench@example.org', name: 'Bench' });
    const actor = user?.id ?? '';
    const ids: string[] = [];
    for (let i = 0; i < PROJECTS; i++) {
      const { project } = await projects.createProject({ name: `Bench ${i}`, language: 'en' }, { actor });
      const projectId = project?.id ?? '';
      const append = (documentType: string, contents: readonly string[]) =>
        documents.batchAppendVersions(
          { projectId, entries: contents.map((content) => ({ documentType, content })) },
          { actor },
        );
      await append(SMALL, [textOf(SMALL_BYTES, i)]);
      await append(LARGE, [textOf(LARGE_BYTES, i)]);
      await append(
        LONG,
        Array.from({ length: LONG_VERSIONS }, (_, version) => textOf(SMALL_BYTES, version)),
      );
      ids.push(projectId);
    }
    return { actor, projects: ids };
  });

/** A text of so many bytes, another for each seed. */
export const textOf = (bytes: number, seed: number): string => {
  const line = `Line of document ${seed}: what it says is said again below, in the same words, until it is long enough.\n`;
  return line.repeat(Math.ceil(bytes / line.length)).slice(0, bytes);
};

const same = (bytes: Buffer): Buffer => bytes;

/** What a target answers to a request, in binary. @throws ServiceError when it refuses */
export const ask = async (target: Target, path: string, body: Uint8Array): Promise<Buffer> => {
  const client = new GrpcClient(target.address, credentials.createInsecure());
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(target.headers)) metadata.set(name, value);
  try {
    return await new Promise((resolve, reject) => {
      client.makeUnaryRequest(path, same, same, Buffer.from(body), metadata, (error, answer) => {
        if (error) reject(error);
        else resolve(answer as Buffer);
      });
    });
  } finally {
    client.close();
  }
};
