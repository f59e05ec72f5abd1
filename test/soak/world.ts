import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { processStart } from '../../src/db/processes.ts';
import { makeSecrets } from '../support/container.ts';
import { clientsOn, ENCRYPTION_KEY } from '../support/service.ts';
import { openCluster } from './cluster.ts';
import { type Disks, openDisks, unmount } from './disks.ts';
import type { World } from './fault.ts';
import type { Options } from './options.ts';
import { openPooler, type Pooler, whyNoPooler } from './pooler.ts';
import { openChannelTo, openReplica } from './replica.ts';
import { untilOf } from './waiting.ts';

const PREFIX = 'jeex-soak-';
const REPLICAS = ['first', 'second'];
/** Of each replica; PgBouncer has as many to PostgreSQL for all of them. */
const POOL_SIZE = 20;

/** Removes what runs have left that were killed: their folders, and the file systems mounted in them. */
const removeLeftovers = (): void => {
  for (const name of readdirSync(tmpdir()).filter((each) => each.startsWith(PREFIX))) {
    if (processStart(Number.parseInt(name.slice(PREFIX.length), 10)) !== null) continue;
    for (const disk of ['data', 'wal']) unmount(join(tmpdir(), name, disk));
    rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
};

const makeFolder = (opened: AsyncDisposableStack): string => {
  const folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
  opened.defer(() => rmSync(folder, { recursive: true, force: true }));
  // PostgreSQL's account passes through it.
  chmodSync(folder, 0o711);
  return folder;
};

/** Where the data goes: onto disks of its own, or just into a folder. */
const placesOf = (disks: Disks | string, folder: string): { data: string; wal: string | null } => {
  if (typeof disks !== 'string') return { data: disks.data.folder, wal: disks.wal.folder };
  const data = join(folder, 'data');
  mkdirSync(data, { recursive: true });
  chmodSync(data, 0o711);
  return { data, wal: null };
};

/** Starts all of it, in order; it is closed with what is opened. @param say is told what is there */
export const openWorld = async (
  opened: AsyncDisposableStack,
  { direct, rounds, times }: Options,
  { signal, say }: { signal: AbortSignal; say: (line: string) => void },
): Promise<World> => {
  removeLeftovers();
  const until = untilOf(signal);
  const folder = makeFolder(opened);
  const secrets = await makeSecrets(opened);
  const disks = openDisks(opened, folder);
  const places = placesOf(disks, folder);
  const cluster = await openCluster(opened, { folder: places.data, walFolder: places.wal, secrets, until, signal });
  await cluster.start();
  const noPooler = direct ? 'without PgBouncer, as asked' : await whyNoPooler();
  const pooler: Pooler | string =
    noPooler ?? (await openPooler(opened, { postgresPort: cluster.port, secrets, until }));
  say(`PostgreSQL 18 on port ${cluster.port}${typeof disks === 'string' ? `, ${disks}` : ', on disks of its own'}`);
  say(typeof pooler === 'string' ? `direct connections: ${pooler}` : 'through PgBouncer');
  const env = {
    DATABASE_URL: typeof pooler === 'string' ? cluster.urlAs('app') : pooler.appUrl,
    LISTEN_DATABASE_URL: cluster.urlAs('app'),
    MONITOR_DATABASE_URL: cluster.urlAs('monitor'),
    ENCRYPTION_KEYS: ENCRYPTION_KEY,
    POOL_SIZE: `${POOL_SIZE}`,
    MAX_REPLICAS: `${REPLICAS.length}`,
    SHUTDOWN_GRACE_SECONDS: '10',
  };
  const replicas = await Promise.all(REPLICAS.map((name) => openReplica(opened, { name, folder, env, until })));
  const channel = openChannelTo(replicas.map(({ grpc }) => grpc));
  opened.defer(() => channel.close());
  const counted = rounds !== null || times !== null;
  // In a run by the clock the first replica lives from beginning to end, so that its memory is measured all the time.
  const mortals = counted ? replicas : replicas.slice(1);
  return { cluster, replicas, mortals, pooler, disks, clients: clientsOn(channel), folder, env, signal, until };
};
