import { openFaultProxy } from '../../support/fault-proxy.ts';
import { type Fault, never } from '../fault.ts';
import { openReplica } from '../replica.ts';
import { append, compare, contentsOf, newAppend, newScratch } from '../scratch.ts';
import { insist } from '../waiting.ts';

const STATEMENT = 'documents.append';

/**
 * PostgreSQL commits, and its connection to the service ends in place of the answer: for a replica of the fault's own, which
 * reaches PostgreSQL through a proxy.
 */
export const commitUnseen: Fault = {
  name: 'commit-unseen',
  what: "PostgreSQL's answer to the service lost after the commit",
  batch: 50,
  missing: never,
  strike: async (world, _random, times) => {
    const { cluster, env, folder, signal, until } = world;
    await using opened = new AsyncDisposableStack();
    const proxy = await openFaultProxy(cluster.urlAs('app'));
    opened.defer(() => proxy.close());
    const own = { ...env, DATABASE_URL: proxy.url };
    const { clients } = await openReplica(opened, { name: 'third', folder, env: own, until });
    const scratch = await newScratch(world);
    const told = new Map<number, string>();
    for (let time = 0; time < times; time += 1) {
      const request = newAppend(scratch);
      proxy.inflict(STATEMENT, 1, { kind: 'close after' });
      told.set(await insist(signal, () => append(clients, scratch, request)), request.content);
    }
    // Each was executed, and then asked for again.
    const executed = proxy.executions.get(STATEMENT) ?? 0;
    const unseen =
      executed >= 2 * times ? [] : [`${times} answers were to be lost, and ${executed} statements were sent`];
    return { times, broken: [...unseen, ...compare(await contentsOf(world, scratch), told)] };
  },
};
