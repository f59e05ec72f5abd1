import { openClient, within } from '../../src/db/connection.ts';
import { withLogin } from '../../src/db/roles.ts';
import { type Secrets, startContainer, TAG } from '../support/container.ts';
import { docker, missing, must } from '../support/docker.ts';
import { removeLeftovers } from '../support/pooled.ts';
import { choosePort } from './ports.ts';
import type { Until } from './waiting.ts';

/** PgBouncer from its image, before the run's PostgreSQL, always on the same port. */
export interface Pooler {
  /** Of the service, to its database, through it. */
  readonly appUrl: string;
  /** Runs commands of Docker on it, such as `restart`, and resolves when it answers again. */
  restart(commands: readonly string[]): Promise<void>;
}

const CONSOLE_MS = 1_000;

/** Why there is no PgBouncer to be had here; null when there is. */
export const whyNoPooler = async (): Promise<string | null> => {
  const why = await missing();
  if (why !== null) return why.split('\n')[0] ?? why;
  const { code } = await docker(['image', 'inspect', `jeex-pgbouncer:${TAG}`]);
  return code === 0
    ? null
    : `the image jeex-pgbouncer:${TAG} is not built (docker compose -f deploy/compose.yaml build pgbouncer)`;
};

export const openPooler = async (
  opened: AsyncDisposableStack,
  { postgresPort, secrets, until }: { postgresPort: number; secrets: Secrets; until: Until },
): Promise<Pooler> => {
  await removeLeftovers();
  const port = await choosePort();
  const variables = { LISTEN_PORT: port, DATABASE_HOST: '127.0.0.1', DATABASE_PORT: postgresPort };
  const container = await startContainer(opened, 'pgbouncer', {
    secrets: secrets.file('pgbouncer'),
    // The machine's own network: PostgreSQL listens on loopback alone, and so does it.
    options: ['--network=host', ...Object.entries(variables).map(([name, value]) => `--env=${name}=${value}`)],
  });
  const search = new URLSearchParams({ sslmode: 'verify-full', sslrootcert: secrets.file('pgbouncer/tls/ca.crt') });
  const url = `postgres://127.0.0.1:${port}?${search}`;
  const consoleUrl = withLogin(url, 'pgbouncer', 'jeex_monitor', secrets.passwords.monitor);
  const answers = async (): Promise<boolean> => {
    try {
      const client = await openClient(consoleUrl, 'soak', within(CONSOLE_MS));
      await client.end();
      return true;
    } catch {
      return false;
    }
  };
  const untilAnswers = () => until(answers, 'PgBouncer answers');
  await untilAnswers();
  return {
    appUrl: withLogin(url, 'jeex', 'jeex_app', secrets.passwords.app),
    restart: async (commands) => {
      for (const command of commands) await must([command, container.id]);
      await untilAnswers();
    },
  };
};
