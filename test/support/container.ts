import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Ended } from './command.ts';
import { docker, must, output } from './docker.ts';
import { writeSecrets } from './pooled.ts';
import { newProject } from './stack.ts';

/** Of the images that are tested. */
export const TAG = process.env.JEEX_TAG ?? 'dev';
const PORTS = { postgres: 5432, pgbouncer: 6432 } as const;
const RUN = {
  postgres: { path: '/run/postgresql', owner: 'mode=0700,uid=10001,gid=10001' },
  pgbouncer: { path: '/run/pgbouncer', owner: 'mode=0700,uid=10002,gid=10002' },
} as const;

/** More than any start takes, on a machine that does much else. */
const PATIENCE_MS = 120_000;
const LOOK_EVERY_MS = 200;

/** Waits until a condition of a container holds. @throws Error with its log */
const until = async (condition: () => Promise<boolean>, what: string, log: () => Promise<string>): Promise<void> => {
  const end = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}:\n${await log()}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
};

export type Target = keyof typeof PORTS;

/** A container of one of the images, hardened as a deployment runs it. */
export interface Container {
  readonly id: string;
  /** Where this machine reaches it; another one after each start. */
  port(): Promise<number>;
  /** Runs a command in it, whose end is the caller's to judge. */
  exec(...command: readonly string[]): Promise<Ended>;
  /** What it has said so far, since its first start. */
  log(): Promise<string>;
  /** Waits for a line in its log, from a place in it on. @throws Error when it does not come */
  says(what: RegExp, from?: number): Promise<void>;
  /** Waits until its own check holds. @throws Error with its log */
  healthy(): Promise<void>;
  /** Waits for its end: the exit code, and its last line. */
  ended(): Promise<{ code: number; last: string }>;
}

interface Options {
  /** The directory that is mounted as its secrets. */
  readonly secrets: string;
  /** The directory that is mounted where it keeps what belongs to a run; without one that is memory of its own. */
  readonly run?: string;
  /** Further options of `docker run`. */
  readonly options?: readonly string[];
}

/** Starts a container, which is removed with its volume when what was opened is closed. */
export const startContainer = async (
  opened: AsyncDisposableStack,
  target: Target,
  { secrets, run, options = [] }: Options,
): Promise<Container> => {
  const hardened = [
    '--health-interval=1s',
    '--read-only',
    '--cap-drop=ALL',
    '--security-opt=no-new-privileges',
    '--tmpfs=/tmp',
  ];
  const { path, owner } = RUN[target];
  const place = [
    run === undefined ? `--tmpfs=${path}:${owner}` : `--volume=${run}:${path}`,
    `--volume=${secrets}:/run/secrets/jeex:ro`,
    `--publish=127.0.0.1::${PORTS[target]}`,
  ];
  const name = `${newProject()}-${target}`;
  opened.defer(async () => void (await docker(['rm', '--force', '--volumes', name])));
  await must(['run', '--detach', `--name=${name}`, ...hardened, ...place, ...options, `jeex-${target}:${TAG}`]);

  const health = ['inspect', '--format={{.State.Health.Status}}', name];
  const exec = (...command: readonly string[]) => docker(['exec', name, ...command]);
  const log = async () => {
    const { out, err } = await docker(['logs', name]);
    return err + out;
  };
  return {
    id: name,
    exec,
    log,
    port: async () => Number((await must(['port', name, `${PORTS[target]}`])).trim().split(':').at(-1)),
    says: (what, from = 0) => until(async () => what.test((await log()).slice(from)), `${target} says ${what}`, log),
    healthy: () => until(async () => (await must(health)).trim() === 'healthy', `${target} is healthy`, log),
    ended: async () => {
      const code = Number(await must(['wait', name]));
      return { code, last: (await log()).trimEnd().split('\n').at(-1) ?? '' };
    },
  };
};

/** Secrets for both images, in a directory for each. */
export const makeSecrets = async (opened: AsyncDisposableStack) => {
  const folder = mkdtempSync(join(tmpdir(), 'jeex-images-'));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  const { authority, passwords } = await writeSecrets(folder);
  // Its files are everybody's to read, for the containers' users are nobody here.
  chmodSync(folder, 0o755);
  return { authority, passwords, file: (name: string): string => join(folder, name) };
};

export type Secrets = Awaited<ReturnType<typeof makeSecrets>>;

/** Makes a network for containers, which is removed when what was opened is closed. */
export const makeNetwork = async (opened: AsyncDisposableStack): Promise<string> => {
  const name = `${newProject()}-${randomBytes(2).toString('hex')}`;
  await must(['network', 'create', name]);
  opened.defer(async () => void (await docker(['network', 'rm', name])));
  return name;
};

/** Asks a PostgreSQL container as its superuser: what psql prints, without alignment. @throws Error with what it said */
export const ask = async (container: Container, sql: string, database = 'jeex'): Promise<string> =>
  output(
    await container.exec('psql', '-XAtq', '--set=ON_ERROR_STOP=1', `--dbname=${database}`, '--command', sql),
  ).trim();
