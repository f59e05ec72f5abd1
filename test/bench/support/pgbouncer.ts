import { randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { docker, missing, must } from '../../support/docker.ts';
import type { World } from './world.ts';

const IMAGE = `jeex-pgbouncer:${process.env.JEEX_TAG ?? 'dev'}`;
const START_MS = 30_000;
const POLL_MS = 100;

export interface Pooler {
  /** The database through it, as the service's role. */
  readonly url: string;
  readonly pid: number;
  /** Removes it. */
  stop(): Promise<void>;
}

/** Why there can be no PgBouncer here; null when there can. */
export const noPooler = async (): Promise<string | null> => {
  const reason = await missing();
  if (reason !== null) return reason;
  const { code } = await docker(['image', 'inspect', IMAGE]);
  return code === 0 ? null : `there is no image ${IMAGE}: docker compose --file deploy/compose.yaml build pgbouncer`;
};

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
};

/** As in a deployment, but for TLS, which the direct way has not either. */
const settingsOf = (host: string, port: string, listenPort: number): string => `
[databases]
jeex = host=${host} port=${port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${listenPort}
unix_socket_dir =
pool_mode = transaction
default_pool_size = 20
max_prepared_statements = 200
ignore_startup_parameters = extra_float_digits,options
auth_type = scram-sha-256
auth_file = /bench/users.txt
log_connections = 0
log_disconnections = 0
log_stats = 0
`;

/** Starts the image's PgBouncer before the run's database, on this machine's network. @throws Error with what it has logged */
export const startPooler = async ({ database, folder }: World): Promise<Pooler> => {
  const { hostname, port, username, password } = new URL(database.appUrl);
  const listenPort = await freePort();
  const mounted = join(folder, 'pgbouncer');
  mkdirSync(mounted);
  writeFileSync(join(mounted, 'pgbouncer.ini'), settingsOf(hostname, port, listenPort));
  writeFileSync(join(mounted, 'users.txt'), `"${username}" "${password}"\n`);
  // The container's user reads them; the folder above keeps others out.
  chmodSync(mounted, 0o755);
  const name = `jeex-bench-${process.pid}-${randomUUID().slice(0, 8)}`;
  const stop = async () => void (await docker(['rm', '--force', '--volumes', name]));
  const options = ['--detach', '--name', name, '--network', 'host', '--volume', `${mounted}:/bench:ro`];
  await must(['run', ...options, '--entrypoint', 'pgbouncer', IMAGE, '/bench/pgbouncer.ini']);
  const url = new URL(database.appUrl);
  url.port = String(listenPort);
  try {
    await untilAnswered(url.href);
    const pid = Number(await must(['inspect', '--format', '{{.State.Pid}}', name]));
    return { url: url.href, pid, stop };
  } catch (error) {
    const { out, err } = await docker(['logs', name]);
    await stop();
    throw new Error(`PgBouncer does not answer:\n${out}${err}`, { cause: error });
  }
};

const untilAnswered = async (url: string): Promise<void> => {
  for (const end = performance.now() + START_MS; ; await sleep(POLL_MS)) {
    const client = new Client({ connectionString: url });
    try {
      await client.connect();
      await client.end();
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
    }
  }
};
