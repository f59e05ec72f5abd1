import { createHash, randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { type Client, credentials } from '@grpc/grpc-js';
import { openChannel } from './client.ts';
import type { Ended } from './command.ts';
import { docker, must, output, ROOT } from './docker.ts';

/** Where deploy-setup.ts leaves, for the processes of the test files, why there is no Docker. */
export const NO_DOCKER_VARIABLE = 'TEST_NO_DOCKER';

/** For `skip` of tests that need Docker: why there is none, or false. */
export const NO_DOCKER: string | false = process.env[NO_DOCKER_VARIABLE] || false;

/** What goes on running: the services of deploy/compose.yaml, and the probe that test/support/compose.yaml adds. */
export type Container = 'postgres' | 'pgbouncer' | 'pod' | 'service' | 'probe';

/** The stack of deploy/compose.yaml under a name of its own, on random ports. */
export interface Stack {
  /** The compose project. */
  readonly project: string;
  /** Of gRPC, which speaks TLS: host:port. */
  readonly grpc: string;
  /** Of HTTP: https://host:port. */
  readonly http: string;
  /** Who signed its certificates, in PEM. */
  readonly ca: string;
  /** Runs a command of compose on it, whose end is the caller's to judge. */
  compose(...args: readonly string[]): Promise<Ended>;
  /** A token that may do everything, or what `scope` names. */
  token(scope?: string): Promise<string>;
  /** A channel over TLS whose calls carry a token that may do everything; closed with the file's tests. */
  channel(): Promise<Client>;
  /** The id of a container. */
  id(container: Container): Promise<string>;
  /** Runs a command in a container, whose end is the caller's to judge. */
  exec(container: Container, command: readonly string[], input?: string): Promise<Ended>;
  /** The rows of a select, asked as the superuser. @throws Error with what psql said */
  query(select: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** What PgBouncer's console answers, such as to `show pools`; values are texts. @throws Error with what psql said */
  console(command: string): Promise<readonly Readonly<Record<string, string>>[]>;
  /** What its containers, or those named, have logged. */
  logs(...containers: readonly string[]): Promise<string>;
}

interface StackOptions {
  /** Besides what the tests have, such as variables of compose.yaml. */
  readonly env?: Readonly<Record<string, string>>;
  /** A checkout other than this one, whose images are built for it. */
  readonly checkout?: string;
}

/** The compose file of a checkout, as an option; with what tests add, as two. */
export const stackFile = (root = ROOT): string[] => ['--file', join(root, 'deploy/compose.yaml')];
export const testFiles = (root = ROOT): string[] => [
  ...stackFile(root),
  '--file',
  join(root, 'test/support/compose.yaml'),
];

// The machine is part of the name, since several may use one engine.
const PREFIX = `jeex-test-${createHash('sha256').update(hostname()).digest('hex').slice(0, 6)}-`;

/** A project's name that says who has started it. */
export const newProject = (): string => `${PREFIX}${process.pid}-${randomBytes(3).toString('hex')}`;

/** The process that has started a project; null when it is not of this machine's tests. */
export const starterOf = (project: string): number | null =>
  project.startsWith(PREFIX) ? Number.parseInt(project.slice(PREFIX.length), 10) : null;

/** Removes a project, whatever state it is in, and the images that are tagged with its name. */
export const removeProject = async (project: string): Promise<void> => {
  const down = ['down', '--volumes', '--remove-orphans', '--timeout', '0'];
  await must(['compose', '--project-name', project, ...testFiles(), '--profile', '*', ...down]);
  const tagged = ['image', 'ls', '--filter', `reference=jeex-*:${project}`, '--format', '{{.Repository}}:{{.Tag}}'];
  const images = lines(await must(tagged));
  if (images.length > 0) await must(['image', 'rm', ...images]);
};

/** What a command of Docker has listed. */
export const lines = (output: string): string[] => output.split('\n').filter((line) => line !== '');

/** Starts a stack, healthy when this returns, until the file's tests have ended. @throws Error with the containers' logs */
export const useStack = async ({ env = {}, checkout }: StackOptions = {}): Promise<Stack> => {
  const project = newProject();
  const given = { env: { GRPC_PORT: '0', HTTP_PORT: '0', ...(checkout && { JEEX_TAG: project }), ...env } };
  const on = (files: readonly string[], args: readonly string[]) =>
    ['compose', '--project-name', project, ...files, ...args] as const;
  const compose = (...args: readonly string[]) => docker(on(testFiles(checkout), args), given);
  const mustCompose = async (...args: readonly string[]) => output(await compose(...args)).trim();
  const logs = async (...containers: readonly string[]) => output(await compose('logs', '--no-color', ...containers));

  after(() => removeProject(project));
  // As anybody starts it; the probe joins it afterwards.
  const up = await docker(on(stackFile(checkout), ['up', '--wait', ...(checkout ? [] : ['--no-build'])]), given);
  if (up.code !== 0) throw new Error(`the stack does not start:\n${up.err}\n${await logs('--tail=30')}`);
  await mustCompose('up', '--detach', '--no-deps', '--no-build', 'probe');

  const id = (container: Container) => mustCompose('ps', '--all', '--quiet', container);
  const exec = async (container: Container, command: readonly string[], input = '') =>
    docker(['exec', '--interactive', await id(container), ...command], { input });
  const port = async (inside: number) => (await mustCompose('port', 'pod', `${inside}`)).split(':').at(-1);
  const token = (scope = 'read write system monitor admin') =>
    mustCompose('run', '--rm', '--no-deps', '-T', 'token', '--sub', 'tests', '--scope', scope);
  const grpc = `localhost:${await port(50051)}`;
  const ca = await must(['exec', await id('service'), 'cat', '/run/secrets/jeex/tls/ca.crt']);
  return {
    project,
    grpc,
    http: `https://localhost:${await port(8080)}`,
    ca,
    compose,
    token,
    channel: async () => {
      const headers = { authorization: `Bearer ${await token()}` };
      const channel = openChannel(grpc, headers, credentials.createSsl(Buffer.from(ca)));
      after(() => channel.close());
      return channel;
    },
    id,
    exec,
    query: async (select) => {
      const sql = `select coalesce(json_agg(q), '[]') from (${select}) as q`;
      return JSON.parse(output(await exec('postgres', [...PSQL, '--tuples-only', '--no-align', '--dbname=jeex'], sql)));
    },
    console: async (command) => readCsv(output(await exec('probe', CONSOLE, `${command};`))),
    logs,
  };
};

const PSQL = ['psql', '--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1'];
const CONSOLE = [
  ...['bash', '-c', 'PGPASSWORD=$(</run/secrets/jeex/passwords/jeex_monitor) exec "$@"', '', ...PSQL, '--csv'],
  'host=localhost port=6432 dbname=pgbouncer user=jeex_monitor sslmode=verify-full sslrootcert=/run/secrets/jeex/tls/ca.crt',
];

/** Rows of values that need no quotes, below a row with their names. */
const readCsv = (text: string): Record<string, string>[] => {
  const [names = [], ...rows] = text
    .trimEnd()
    .split('\n')
    .map((line) => line.split(','));
  return rows.map((row) => Object.fromEntries(row.map((value, i) => [names[i] ?? '', value])));
};
