import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { World } from './fault.ts';
import type { Replica } from './replica.ts';

/** What a replica holds while nobody calls. */
interface Held {
  readonly name: string;
  /** Open files and sockets by what they are, without connections to the database, which the pool keeps for a while. */
  readonly descriptors: Readonly<Record<string, number>>;
  /** Of its pool. */
  readonly acquired: number;
  readonly waiting: number;
}

/** What is held while nobody calls. */
export interface Rest {
  readonly replicas: readonly Held[];
  readonly locks: number;
  readonly openTransactions: number;
}

const HELD = `
select (select count(*)::integer from pg_locks as l join pg_stat_activity as a using (pid)
        where a.usename in ('jeex_app', 'jeex_monitor') and l.locktype <> 'virtualxid') as locks,
       (select count(*)::integer from pg_stat_activity where state like 'idle in transaction%') as "openTransactions"`;

const linkOf = (path: string): string => {
  try {
    return readlinkSync(path);
  } catch {
    // It was closed meanwhile.
    return '';
  }
};

/** The sockets, by inode, of a process's machine that are connected to a port. https://docs.kernel.org/networking/proc_net_tcp.html */
const socketsTo = (pid: number, ports: ReadonlySet<number>): ReadonlySet<string> => {
  const lines = readFileSync(`/proc/${pid}/net/tcp`, 'utf8').trim().split('\n').slice(1);
  const fields = lines.map((line) => line.trim().split(/\s+/));
  const connected = fields.filter(([, , remote = '']) => ports.has(Number.parseInt(remote.split(':')[1] ?? '', 16)));
  return new Set(connected.map((field) => `socket:[${field[9]}]`));
};

/** What numbers tell apart counts as the same. */
const descriptorsOf = (pid: number, databasePorts: ReadonlySet<number>): Record<string, number> => {
  const toDatabase = socketsTo(pid, databasePorts);
  const links = readdirSync(`/proc/${pid}/fd`).map((name) => linkOf(`/proc/${pid}/fd/${name}`));
  const kept = links.filter((link) => link !== '' && !toDatabase.has(link));
  const byKind = Map.groupBy(kept, (link) => link.replaceAll(/\d+/g, ''));
  return Object.fromEntries([...byKind].map(([kind, own]) => [kind, own.length]));
};

/** Of all kinds. */
export const countOf = (descriptors: Readonly<Record<string, number>>): number =>
  Object.values(descriptors).reduce((sum, count) => sum + count, 0);

const heldBy = async (replica: Replica, databasePorts: ReadonlySet<number>): Promise<Held> => {
  const { health } = await replica.clients.database.getDatabaseHealth({});
  const { acquired = 0n, waiting = 0n } = health?.servicePool ?? {};
  const descriptors = replica.pid === null ? {} : descriptorsOf(replica.pid, databasePorts);
  return { name: replica.name, descriptors, acquired: Number(acquired), waiting: Number(waiting) };
};

export const lookAtRest = async ({ cluster, pooler, replicas }: World): Promise<Rest> => {
  const ports = new Set([cluster.port, ...(typeof pooler === 'string' ? [] : [Number(new URL(pooler.appUrl).port)])]);
  const [held = { locks: 0, openTransactions: 0 }] = await cluster.ask<{ locks: number; openTransactions: number }>(
    HELD,
  );
  return { ...held, replicas: await Promise.all(replicas.map((replica) => heldBy(replica, ports))) };
};

/** The kinds of descriptors that there are more of, in words. */
const more = (before: Readonly<Record<string, number>>, after: Readonly<Record<string, number>>): string =>
  Object.entries(after)
    .filter(([kind, count]) => count > (before[kind] ?? 0))
    .map(([kind, count]) => `${count - (before[kind] ?? 0)} more ${kind}`)
    .join(', ');

const heldMore = (usual: Held | undefined, { name, descriptors, acquired, waiting }: Held): string[] => {
  const [before, after] = [usual?.descriptors ?? {}, descriptors];
  const [fewer, many] = [countOf(before), countOf(after)];
  return [
    ...(many > fewer ? [`${name} holds ${many} descriptors, and held ${fewer} before: ${more(before, after)}`] : []),
    ...(acquired > 0 ? [`${name} has ${acquired} connections in use`] : []),
    ...(waiting > 0 ? [`in ${name} ${waiting} calls wait`] : []),
  ];
};

/** What is held more than before, a line each. */
export const leaksOf = (before: Rest, after: Rest): string[] => {
  const usual = new Map(before.replicas.map((replica) => [replica.name, replica]));
  const leaks = after.replicas.flatMap((replica) => heldMore(usual.get(replica.name), replica));
  if (after.locks > 0) leaks.push(`${after.locks} locks are held`);
  if (after.openTransactions > 0) leaks.push(`${after.openTransactions} transactions are open`);
  return leaks;
};
