import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { adminUrlOf, isReady, readSecrets, type Secrets } from './embedded.ts';
import { findHome, type Home } from './embedded-home.ts';
import { livingHolder } from './lockfile.ts';
import { commandLine } from './processes.ts';

/** An embedded PostgreSQL that another process of this service has started. */
export interface Running {
  /** As the superuser, to the database `postgres`. */
  readonly adminUrl: string;
  readonly port: number;
  readonly secrets: Secrets;
  /** Where the data is. */
  readonly folder: string;
  /** The process that started it, and will stop it. */
  readonly holder: number;
}

const START_MILLISECONDS = 30_000;

/**
 * The PostgreSQL that serves the data in `dataDir` right now, or null when nobody uses that data. One that is starting is
 * waited for.
 * @throws Error when a living process holds the data and its PostgreSQL does not get ready
 */
export async function findRunning(dataDir: string, signal?: AbortSignal): Promise<Running | null> {
  const home = findHome(dataDir);
  for (const deadline = Date.now() + START_MILLISECONDS; ; await sleep(50)) {
    signal?.throwIfAborted();
    const holder = livingHolder(join(home.folder, 'service.lock'));
    if (holder === null) return null;
    const port = portOf(home);
    if (port !== null) {
      const secrets = readSecrets(home);
      return { adminUrl: adminUrlOf(secrets, port), port, secrets, folder: home.folder, holder };
    }
    if (Date.now() > deadline) {
      throw new Error(`process ${holder} uses the data in ${home.folder}, and its PostgreSQL does not get ready`);
    }
  }
}

/** Null until a living PostgreSQL of this very cluster takes connections. */
function portOf(home: Home): number | null {
  const pidFile = join(home.cluster, 'postmaster.pid');
  const lines = existsSync(pidFile) ? readFileSync(pidFile, 'utf8').split('\n') : [];
  const pid = Number(lines[0]);
  const ours = pid > 0 && isReady(home, pid) && commandLine(pid)?.includes(home.cluster);
  return ours ? Number(lines[3]) : null;
}
